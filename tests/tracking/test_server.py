"""A real MLflow server, killed and started again while a sweep writes to it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
import torch

from raydistill.records import RUNNING
from raydistill.search import Objective, front_rows
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog, visit

pytestmark = pytest.mark.slow
OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
TRIALS, EPOCHS = 6, 20


class Server:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nobody needs
        with open(self.folder / "server.log", "ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.exceptions.RequestException:
                time.sleep(0.2)
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL to the server and its workers: no farewell, answers under way are lost."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(tables, folder / "mlflow.db")
    shared = Server(folder)
    shared.start()
    yield shared
    shared.kill()


def test_nothing_is_lost_and_nothing_doubled_over_a_killed_server(
    server, tmp_path: Path, trial, epoch, runs, capfd
) -> None:
    told: list[str] = []
    log = SweepLog(server.uri, tmp_path / "storage", "simplenet", "sweep-1", {"seed": 0}, report=told.append)
    log.start()
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(os.urandom(20_000))
    last = epoch(EPOCHS - 1, 0.5 + (EPOCHS - 1) / 100)
    records = [trial(f"t{i:04d}", last=last) for i in range(TRIALS)]
    slowest = 0.0
    for number in range(EPOCHS):
        for record in records:
            before = time.monotonic()
            if number == 0:
                log.trial_started(dataclasses.replace(record, state=RUNNING, last=None))
            log.epoch(record.trial_id, epoch(number, 0.5 + number / 100))
            if number == EPOCHS - 1:
                log.trial_ended(record, [checkpoint])
            slowest = max(slowest, time.monotonic() - before)
        if number == 6:
            server.kill()
        if number == 12:
            server.start()
        if number == 15:  # again, with requests under way
            time.sleep(0.3)
            server.kill()
            time.sleep(1)
            server.start()
        time.sleep(0.05)
    log.front(front_rows(records, OBJECTIVES), OBJECTIVES, METRICS)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    member = log.log_model("t0000", network, np.zeros((2, 3, 8, 8), dtype=np.float32), {"test_top1": 0.5})
    log.register(member)
    assert log.finish(timeout_s=60) == 0
    assert slowest < 10, "a trial was held up by the server"
    assert all("does not answer" in line for line in told), told
    assert capfd.readouterr() == ("", "")

    found = runs(server.uri)
    assert set(found) == {"simplenet", *(record.trial_id for record in records)}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)
    for record in records:
        run = found[record.trial_id]
        history = client.get_metric_history(run.info.run_id, "top1")
        steps = sorted(metric.step for metric in history)
        assert steps == list(range(EPOCHS)), record.trial_id
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["checkpoint.pt"]
        stored = client.download_artifacts(run.info.run_id, "checkpoint.pt", str(tmp_path))
        assert Path(stored).read_bytes() == checkpoint.read_bytes()
    version = client.get_model_version_by_alias("simplenet", "pareto-knee")
    assert version.version in (1, "1")
    assert version.run_id == found["t0000"].info.run_id
    parent = [item.path for item in client.list_artifacts(found["simplenet"].info.run_id)]
    assert parent == ["pareto.csv", "pareto.html", "pareto.png"]


def test_a_server_that_stays_away_costs_no_more_than_the_timeout(server, tmp_path: Path, trial, epoch, runs) -> None:
    log = SweepLog(server.uri, tmp_path / "storage", "unheard", "sweep-1")
    log.start()
    log.trial_started(trial("t0000", state=RUNNING))
    assert log.flush(30) == 0
    server.kill()
    for number in range(5):
        log.epoch("t0000", epoch(number))
    log.trial_ended(trial("t0000"))
    before = time.monotonic()
    assert log.finish(timeout_s=2) > 0
    assert time.monotonic() - before < 60  # it did not hang: no claim about speed
    (line,) = log.errors
    assert line.startswith("MLflow does not answer, its records wait: ")
    assert len(line) < 160

    server.start()  # the sweep is resumed: it sends its records again
    log = SweepLog(server.uri, tmp_path / "storage", "unheard", "sweep-1")
    log.start()
    for number in range(5):
        log.epoch("t0000", epoch(number))
    log.trial_ended(trial("t0000"))
    assert log.finish() == 0
    run = runs(server.uri, "unheard")["t0000"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["top1"] == 0.5


def test_its_version_is_seen(server: Server) -> None:
    found = visit(server.uri)
    assert (found.client, found.server) == (mlflow.__version__, mlflow.__version__)
