"""Sweeps killed at random moments lose nothing and do nothing twice: benchmarks/soak.py, a few stories of it.

``RAYDISTILL_SOAK_SWEEPS=30`` runs more of them; the script itself prints a table.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import soak
import soak_reader

SWEEPS = int(os.environ.get("RAYDISTILL_SOAK_SWEEPS", "0"))
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not SWEEPS, reason="takes a minute and more a sweep: RAYDISTILL_SOAK_SWEEPS=30 shoots at 30"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[soak.Range]:
    with soak.open_range(tmp_path_factory.mktemp("soak"), tables) as opened:
        yield opened
        assert soak.left_running(opened.marks, 120.0) == []


@pytest.mark.parametrize("number", range(SWEEPS))
def test_nothing_lost_nothing_twice(place: soak.Range, number: int) -> None:
    report = soak.shoot(place, number)
    assert report.faults == [], report
    assert any("@" in killed for killed in report.killed), report


def test_a_server_that_never_comes_back_and_one_that_does_in_the_end(place: soak.Range) -> None:
    """The sweep ends all the same and says how many records wait; the resumed one sends them, all and once."""
    place.server.ready()
    sweep = soak.Sweep(place, "unheard", 0, "none", place.folder / "sweeps", place.server.uri)
    place.marks.append(sweep.mark)
    sweep.start()
    while sweep.running() and sweep.lines() < 6:
        soak.time.sleep(0.02)
    place.server.kill()
    sweep.finish()
    told = sweep.output()
    assert sweep.code == 0, told
    assert "warning: MLflow does not answer, its records wait: " in told
    assert "records in time, they are safe in" in told
    assert "once it answers again --resume sends them" in " ".join(told.split())
    assert "trials: 4 finished" in told
    place.server.ready()
    before = sweep.lines()
    sweep.start()
    sweep.finish()
    assert sweep.code == 0, sweep.output()
    assert sweep.lines() == before + 1  # nothing was trained or tested again
    faults = soak_reader.faults_of(
        sweep.folder, place.server.folder / "mlflow.db", place.server.folder / "mlartifacts", place.reference(0)
    )
    assert faults == []


def _twice(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    doubled = next(line for line in lines if json.loads(line)["event"] == "epoch")
    (folder / "journal.jsonl").write_text("\n".join([*lines, doubled]) + "\n")


def _end_lost(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line).get("trial_id") != "t0002" or "trial_ended" not in line]
    (folder / "journal.jsonl").write_text("\n".join(kept) + "\n")


def _sql(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with sqlite3.connect(folder / "mlflow.db") as connection:
            connection.execute(statement)

    return change


def _other_weights(folder: Path) -> None:
    path = folder / "trials" / "t0001" / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    name = next(name for name, tensor in content["model"].items() if tensor.dim() == 1)
    content["model"][name] += 1e-7
    torch.save(content, path)


def _left_over(folder: Path) -> None:
    (folder / "trials" / "t0001" / ".checkpoint.pt.1-ab.tmp").write_text("")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_twice, "epochs of t0"),
        (_end_lost, "ended: "),
        (_sql("DELETE FROM metrics WHERE key = 'top1' AND step = 2"), "top1 of t0000 in MLflow"),
        (_sql("UPDATE runs SET status = 'RUNNING' WHERE name = 't0001'"), "run of 't0001' is RUNNING"),
        (_sql("DELETE FROM tags WHERE key = 'raydistill.trial_id' AND value = 't0003'"), "runs in MLflow"),
        (_other_weights, "final weights of t0001 differ"),
        (_left_over, "left in the storage"),
    ],
)
def test_the_reader_sees_what_is_wrong(
    place: soak.Range, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    """A verdict is worth what its reader sees: an undisturbed sweep, spoilt in one place."""
    reference = place.reference(0)
    folder = tmp_path / reference.name
    shutil.copytree(reference, folder)
    journal = folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace(str(reference), str(folder)))
    change(folder)
    found = soak_reader.faults_of(folder, folder / "mlflow.db", reference / "mlartifacts", reference)
    assert any(words in fault for fault in found), found
