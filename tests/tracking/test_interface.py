"""MLflow's interface in a browser: the links of a sweep open what they promise."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from raydistill.records import STOPPED
from raydistill.search import front_rows
from raydistill.search.highlights import progress
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import DatasetCard, SweepLog
from tests.tracking.conftest import make_epoch, make_evaluation, make_trial
from tests.tracking.test_figures import TWO
from tests.tracking.test_front_page import CHROMIUM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture
def interface(storage: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{storage}/mlflow.db"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as ui:
        try:
            for _ in range(240):
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            import os
            import signal

            os.killpg(ui.pid, signal.SIGKILL)


@pytest.fixture
def told(storage: Path) -> str:
    """A sweep of four trials in the store; the address of its front."""
    records = [
        make_trial("baseline", 0.9, 0.0, test=make_evaluation(0.89), values={}),
        make_trial("t0000", 0.88, 0.6, test=make_evaluation(0.87)),
        make_trial("t0001", 0.80, 0.5),
        make_trial("t0002", 0.5, 0.1, state=STOPPED),
    ]
    log = SweepLog(None, storage, "simplenet", "sweep-1", dataset=DatasetCard("digits", "abc123"))
    log.start()
    for record in records:
        log.trial_started(record)
        log.epoch(record.trial_id, make_epoch(1))
        log.trial_ended(record)
    for count in (2, 4):
        rows = front_rows(records[:count], TWO)
        log.front(rows, TWO, METRICS, progress(rows, TWO, METRICS))
        log.flush(30)
    page = log.front_page
    assert log.finish() == 0
    return page


def test_the_links_open_what_they_promise(told: str, interface: str, storage: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("simplenet")
    parent = next(r for r in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in r.data.tags)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(told.replace("http://127.0.0.1:5000", interface))
        page.get_by_text("2 matching runs").wait_for(timeout=60_000)
        page.locator("a", has_text="t0000").first.wait_for(timeout=60_000)  # a member of the front
        assert page.locator("a", has_text="t0001").count() == 0  # dominated
        for column in ("top1", "sparsity", "test_top1"):
            assert page.get_by_text(column, exact=True).count() >= 1, column

        page.goto(f"{interface}/#/experiments/{experiment.experiment_id}/runs/{parent.info.run_id}")
        page.get_by_text("The Pareto front, 2 of 3 finished:").wait_for(timeout=60_000)
        assert page.get_by_text("digits (abc123)").count() == 1
        with page.context.expect_page() as opened:  # the note's links open a page of their own
            page.locator("td a", has_text="t0000").first.evaluate("link => link.click()")
        assert f"/runs/{runs['t0000'].info.run_id}" in opened.value.url

        page.goto(f"{interface}/#/experiments/{experiment.experiment_id}/runs/{parent.info.run_id}/model-metrics")
        page.get_by_text("hypervolume", exact=True).first.wait_for(timeout=60_000)
        assert page.get_by_text("front_size", exact=True).count() >= 1

        charts = f"{interface}/#/experiments/{experiment.experiment_id}/runs/{runs['t0000'].info.run_id}/model-metrics"
        page.goto(charts)
        page.get_by_text("epoch by epoch", exact=False).first.wait_for(timeout=60_000)
        first = ["t0000 (epoch by epoch/sparsity)", "t0000 (epoch by epoch/top1)", "t0000 (learning_rate)"]
        for chart in first:
            page.get_by_text(chart, exact=True).first.wait_for(timeout=60_000)
        shown = page.locator("body").inner_text()
        assert [line for line in shown.splitlines() if line.startswith("t0000 (")][:3] == first
        browser.close()
    assert (runs["t0002"].info.status, runs["t0002"].data.tags["state"]) == ("FINISHED", "stopped")
