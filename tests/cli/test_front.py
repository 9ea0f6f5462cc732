"""``raydistill front`` on a sweep that lies there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.sweep.kept import keep_sweep

pytestmark = pytest.mark.slow
Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("storage")
    keep_sweep(root)
    return root


def test_the_table_fits_and_tells_how_to_go_on(raydistill: Command, storage: Path) -> None:
    ended = raydistill("front", "--storage", str(storage))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "Pareto front: digits, top1 on its validation and test split, seeds: 1"
    assert all(len(line) <= 80 for line in lines if not line.startswith("take one away"))
    assert "trials: 3 finished, 1 stopped" in lines
    assert lines[-1] == f"take one away: raydistill pick tiny --storage {storage} --trial TRIAL"
    assert any(line.split()[:1] == ["baseline"] for line in lines)


def test_every_trial_and_bounds(raydistill: Command, storage: Path) -> None:
    def trials(*arguments: str) -> set[str]:
        out = raydistill("front", "tiny", "--storage", str(storage), "--format", "csv", *arguments).out
        return {line["trial_id"] for line in csv.DictReader(io.StringIO(out))}

    assert trials("--all") == {"baseline", "t0000", "t0001", "t0002"}
    assert trials("--all", "--where", "sparsity >= 0.001") == {"t0000", "t0001", "t0002"}
    assert trials("--all", "--where", "sparsity >= 0.001", "--where", "sparsity < 0.01") < {"t0000", "t0001", "t0002"}
    ended = raydistill("front", "tiny", "--storage", str(storage), "--where", "sparsity >= 2")
    assert "no trial to show that meets the bounds" in ended.out


def test_json_has_the_figures_in_full(raydistill: Command, storage: Path) -> None:
    rows = json.loads(raydistill("front", "tiny", "--storage", str(storage), "--all", "--format", "json").out)
    one = next(row for row in rows if row["trial_id"] == "t0001")
    assert one["filters.desired_sparsity"] == 0.5
    assert 0 < one["size_bytes"] < 248_024
    assert 0 < one["test_top1"] <= 1


def test_the_page_is_opened(raydistill: Command, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    ended = raydistill("front", "tiny", "--storage", str(storage), "--open")
    assert opened == [(storage / "tiny" / "pareto.html").as_uri()]
    assert ended.err.strip() == str(storage / "tiny" / "pareto.html")
    assert "raydistill pick " in (storage / "tiny" / "pareto.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nosuch",), "error: SWEEP: there is no sweep in "),
        (("tiny", "--where", "top1 ~ 3"), "error: --where[0]: must be a figure"),
        (("tiny", "--where", "toq1 < 3"), "error: --where[0]: unknown figure, got 'toq1'; did you mean 'top1'?"),
    ],
)
def test_what_is_wrong_is_one_line(raydistill: Command, storage: Path, arguments: tuple[str, ...], says: str) -> None:
    ended = raydistill("front", *arguments, "--storage", str(storage))
    assert ended.code == 2
    assert ended.err.startswith(says)
    assert ended.err.count("\n") == 1
