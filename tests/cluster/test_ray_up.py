"""`ray up cluster.onprem.yaml` for real, on three hosts of namespaces: a sweep outlives one of them, then `ray down`.

MLflow's server runs on the head, its database is PostgreSQL. One story: each test goes on where the one before ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raydistill.records import ENDED
from raydistill.sweep.tune.callback import LOST_MACHINE
from tests.cluster import hosts
from tests.cluster.hosts import HOSTS, LABORATORY, Laboratory

ROOT = Path(__file__).parents[2]
WHY_NOT = hosts.missing() or ("" if hosts.postgres_folder() else "PostgreSQL is not installed (tests/cluster/run does)")
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

TRIALS, EPOCHS = 6, 40
HUNG_S = 1200
"""A bound that says that something hangs; it is no expectation."""


@dataclass
class Background:
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> bool:
        """Raise if it has ended; else False."""
        assert self.process.poll() is None, self.log.read_text()
        return False


class Cluster:
    """The machine at which `ray up` is typed. rows: what PostgreSQL answers to a query."""

    def __init__(self, lab: Laboratory) -> None:
        self.lab, self.file = lab, lab.tilde / "cluster.onprem.yaml"
        self._password = secrets.token_hex(16)

    @property
    def database(self) -> str:
        return f"postgresql://mlflow:{self._password}@{LABORATORY}/postgres"

    def ray(self, *words: str | Path, timeout: float = HUNG_S) -> str:
        return self.lab.run(self.lab.tilde / "raydistill-env/bin/ray", *words, cwd=ROOT, timeout=timeout)

    def up(self) -> str:
        """`ray up`, once more where the machine was so busy that Ray, which waits for itself for 30 s, gave up."""
        for _ in range(4):
            try:
                return self.ray("up", "-y", "--no-config-cache", self.file)
            except AssertionError as error:
                if "timed out during startup" not in str(error):
                    raise
                tell("this machine is so busy that Ray did not start in its 30 s; ray up again")
        raise TimeoutError("Ray does not start here")

    def on_head(self, command: str) -> str:
        return self.ray("exec", "--no-config-cache", self.file, command)

    def in_background(self, name: str, *words: str | Path) -> Background:
        """A command that is to stay, such as a tunnel."""
        log = self.lab.folder / f"{name}.log"
        process = self.lab.start(self.lab.tilde / "raydistill-env/bin/ray", *words, log=log, cwd=ROOT)
        return Background(process, log)

    def python(self, code: str, *arguments: str) -> Any:
        """What a program prints as JSON; it runs where `ray up` was typed."""
        return json.loads(self.lab.run(sys.executable, "-c", code, *arguments).splitlines()[-1])

    def rows(self, query: str) -> list[list[Any]]:
        code = (
            "import json, sys, psycopg; print(json.dumps(psycopg.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
        )
        return self.python(code, self.database, query)

    def start_postgres(self) -> None:
        programs, data = hosts.postgres_folder(), self.lab.folder / "postgres"
        assert programs is not None
        data.mkdir()
        (self.lab.folder / "password").write_text(self._password)
        subprocess.run(["chown", "postgres", str(data), str(self.lab.folder / "password")], check=True)
        as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        secret = ["-E", "UTF8", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={self.lab.folder / 'password'}"]
        self.lab.run(*as_postgres, programs / "initdb", "-D", data, *secret)
        with (data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {LABORATORY}/24 scram-sha-256\n")
        settings = f"-c listen_addresses={LABORATORY} -c unix_socket_directories={data} -c fsync=off"
        start = ["-D", data, "-w", "-l", data / "log", "-o", settings, "start"]
        self.lab.run(*as_postgres, programs / "pg_ctl", *start)

    def edit(self) -> None:
        """What README tells a user to do before `ray up`."""
        (self.lab.home / ".ray").mkdir()
        self.ray("get-auth-token", "--generate")
        text = (ROOT / "cluster.onprem.yaml").read_text()
        for before, after in (
            ("192.0.2.1 ", f"{HOSTS['head']} "),
            ("192.0.2.2", HOSTS["worker1"]),
            ("192.0.2.3", HOSTS["worker2"]),
            ("ssh_user: ubuntu", "ssh_user: root"),
            ("~/.ssh/id_ed25519", str(self.lab.key)),
            ("STORE=/shared/raydistill", f"STORE={self.lab.shared}"),
            ("timeout 300 ", f"timeout {HUNG_S} "),
            ("--object-manager-port=8076", "--object-manager-port=8076 --num-cpus=1 --object-store-memory=200000000"),
        ):
            assert before in text, before
            text = text.replace(before, after)
        (self.lab.home / self.file.name).write_text(text)
        with (self.lab.hosts["head"].home / ".bashrc").open("a") as file:
            file.write(f"export MLFLOW_BACKEND_STORE_URI={self.database}\n")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with hosts.laboratory() as lab:
        cluster = Cluster(lab)
        cluster.start_postgres()
        cluster.edit()
        begun = time.monotonic()
        (lab.folder / "up.log").write_text(cluster.up())
        tell(f"ray up returned after {time.monotonic() - begun:.0f} s")
        wait_for("three nodes", lambda: "3 local.cluster.node" in cluster.on_head("ray status"), pause_s=2)
        tell(f"all three nodes are there after {time.monotonic() - begun:.0f} s")
        yield cluster


def test_every_machine_installed_the_checkout_and_the_same_versions(cluster: Cluster) -> None:
    pins = (cluster.lab.hosts["head"].home / "raydistill-versions.txt").read_text()
    assert "ray==" in pins
    assert "mlflow==" in pins
    for host in cluster.lab.hosts.values():
        python = host.tilde / "raydistill-env/bin/python"
        where = host.run(python, "-c", "import raydistill; print(raydistill.__file__)").strip()
        assert where == f"{host.tilde}/raydistill-checkout/raydistill/__init__.py"
        assert (host.home / "raydistill-versions.txt").read_text() == pins
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


def test_who_has_no_token_is_refused(cluster: Cluster) -> None:
    code = "import ray; ray.init(address='auto', log_to_driver=False); print('in')"
    host = cluster.lab.hosts["worker1"]
    python = host.tilde / "raydistill-env/bin/python"
    ask = [
        *host.command("env", "RAY_AUTH_TOKEN=wrong" * 8, python, "-c", code.replace("auto", f"{HOSTS['head']}:6379"))
    ]
    answer = subprocess.run(ask, capture_output=True, text=True, timeout=HUNG_S)
    assert "in" not in answer.stdout.split()
    assert "oken" in answer.stderr


def test_dashboard_and_mlflow_listen_on_loopback_only(cluster: Cluster) -> None:
    def at(port: int) -> set[str]:
        listening = [line.split()[3] for line in cluster.lab.hosts["head"].run("ss", "-Hltn").splitlines()]
        return {address for address in listening if address.endswith(f":{port}")}

    assert at(5000) == {"127.0.0.1:5000"}
    assert at(8265) == {"127.0.0.1:8265"}


def test_a_sweep_outlives_a_machine(cluster: Cluster) -> None:
    lab, sweep = cluster.lab, cluster.lab.shared / "sweeps" / "simplenet"
    cluster.in_background("dashboard", "dashboard", "--no-config-cache", "-p", "8265", cluster.file)
    cluster.in_background("attach", "attach", "--no-config-cache", "-p", "5000", cluster.file)
    for port in (8265, 5000):
        wait_for(f"the tunnel to {port}", lambda port=port: answers(cluster, port), pause_s=1)
    command = f"raydistill sweep search_spaces/simplenet.yaml --dataset digits --num-samples {TRIALS} --epochs {EPOCHS}"
    submit = ["job", "submit", "--address", "http://127.0.0.1:8265", "--working-dir", ".", "--submission-id", "sweep"]
    job = cluster.in_background("job", *submit, "--", *command.split(), "--address", "auto")

    def victim() -> str:
        """A trial that trains on worker1 and is not about to end."""
        job.check()
        for lock in sweep.glob("trials/*/lock"):
            count = len(epochs(sweep).get(lock.parent.name, []))
            if lock.read_text().strip().endswith(" on worker1") and 2 <= count < EPOCHS // 2:
                return lock.parent.name
        return ""

    trial = wait_for("a trial on worker1", victim)
    lab.cut("worker1")
    cut = time.monotonic()
    wait_for("the loss to be seen", lambda: job.check() or trial in retried(sweep))
    tell(f"the lost host was given up {time.monotonic() - cut:.0f} s after the cut")
    wait_for("the trial to go on", lambda: job.check() or went_on(sweep, trial))
    tell(f"trial {trial} trained on elsewhere {time.monotonic() - cut:.0f} s after the cut")
    assert " on worker1" not in (sweep / "trials" / trial / "lock").read_text()
    wait_for("the sweep's end", lambda: job.process.poll() is not None, pause_s=1)
    tell(f"the sweep ended {time.monotonic() - cut:.0f} s after the cut")
    printed = job.log.read_text()
    assert job.process.returncode == 0, printed
    assert f"warning: trial {trial} starts again from its last checkpoint: {LOST_MACHINE}" in printed
    assert "Pareto front: digits" in printed

    told = events(sweep)
    ends = Counter(e["trial_id"] for e in told if e["event"] == "trial_ended" and e["state"] in ENDED)
    assert ends == {f"t{i:04d}": 1 for i in range(TRIALS)}
    assert all(e["state"] != "failed" for e in told if e["event"] == "trial_ended")
    for trial_id, seen in epochs(sweep).items():
        assert seen == list(range(len(seen))), trial_id

    runs = {
        name: (status, uuid)
        for name, status, uuid in cluster.rows(
            "select t.value, r.status, r.run_uuid from runs r join tags t using (run_uuid)"
            " where t.key = 'raydistill.trial_id'"
        )
    }
    assert set(runs) == {"baseline", *ends}
    assert {status for status, _ in runs.values()} <= {"FINISHED", "KILLED"}
    for name, (_, uuid) in runs.items():
        steps = cluster.rows(f"select step from metrics where key = 'top1' and run_uuid = '{uuid}' order by step")
        assert [step for (step,) in steps] == epochs(sweep).get(name, list(range(EPOCHS))), name
    through_the_tunnel = cluster.python(
        "import json, mlflow; client = mlflow.MlflowClient('http://127.0.0.1:5000');"
        "print(json.dumps(client.get_registered_model('simplenet').name))"
    )
    assert through_the_tunnel == "simplenet"
    assert list((lab.shared / "mlflow").rglob("pareto.csv"))


def test_a_machine_that_comes_back_is_taken_again(cluster: Cluster) -> None:
    cluster.lab.mend("worker1")
    wait_for("three nodes", lambda: "3 local.cluster.node" in cluster.on_head("ray status"), pause_s=2)


def test_ray_down_stops_ray_on_every_machine(cluster: Cluster) -> None:
    """On the head at once; Ray leaves the others to notice that the head is gone, which takes them a minute."""
    cluster.ray("down", "-y", cluster.file)

    def with_ray() -> list[str]:
        found = {name: host.run("ps", "-e", "-o", "comm=").split() for name, host in cluster.lab.hosts.items()}
        return [name for name, processes in found.items() if {"raylet", "gcs_server"} & set(processes)]

    assert "head" not in with_ray()
    begun = time.monotonic()
    wait_for("Ray's end on the workers", lambda: not with_ray(), pause_s=1)
    tell(f"Ray had ended on the workers {time.monotonic() - begun:.0f} s after ray down")


def answers(cluster: Cluster, port: int) -> bool:
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).close()"
    ask = cluster.lab.command(sys.executable, "-c", code, str(port))
    return subprocess.run(ask, capture_output=True).returncode == 0


def events(sweep: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        lines = (sweep / "journal.jsonl").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    return []


def epochs(sweep: Path) -> dict[str, list[int]]:
    """The epochs of each trial in the order they were recorded."""
    found: dict[str, list[int]] = {}
    for event in events(sweep):
        if event["event"] == "epoch":
            found.setdefault(event["trial_id"], []).append(event["metrics"]["epoch"])
    return found


def retried(sweep: Path) -> set[str]:
    return {event["trial_id"] for event in events(sweep) if event["event"] == "trial_retried"}


def went_on(sweep: Path, trial: str) -> bool:
    """It has trained an epoch since it was started again."""
    story = [event["event"] for event in events(sweep) if event.get("trial_id") == trial]
    return "epoch" in story[story.index("trial_retried") :]


def wait_for(what: str, there: Callable[[], Any], pause_s: float = 0.2) -> Any:
    deadline = time.monotonic() + HUNG_S
    while time.monotonic() < deadline:
        found = there()
        if found:
            return found
        time.sleep(pause_s)
    raise TimeoutError(f"{what}: not in {HUNG_S} s")


def tell(line: str) -> None:
    """A figure for whoever runs this by hand (`pytest -s`)."""
    print(f"\n[{os.path.basename(__file__)}] {line}", flush=True)
