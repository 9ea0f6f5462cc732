"""``raydistill front`` on a sweep that lies there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.storage import open_store
from raydistill.storage.bucket import Bucket
from tests.cli.conftest import Ended
from tests.sweep.kept import keep_sweep, send

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


@pytest.fixture
def in_bucket(storage: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same sweep in a bucket, looked at from a machine that has nothing of it."""
    where = f"s3://{bucket}/sweeps"
    store = open_store(where)
    assert isinstance(store, Bucket)
    send(storage / "tiny", store)
    monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / "another machine"))
    return where


def test_a_front_in_a_bucket(
    raydistill: Command, in_bucket: str, storage: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = raydistill("front", "tiny", "--storage", str(storage), "--all", "--format", "csv").out
    here = here.replace(str(storage), in_bucket)  # where the checkpoints lie
    for named in (("tiny", "--storage", in_bucket), (f"{in_bucket}/tiny",), ("--storage", in_bucket)):
        ended = raydistill("front", *named, "--all", "--format", "csv")
        assert (ended.code, ended.err, ended.out) == (0, "", here)
    ended = raydistill("front", "--storage", in_bucket)
    assert ended.out.splitlines()[-1] == f"take one away: raydistill pick tiny --storage {in_bucket} --trial TRIAL"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert raydistill("front", "tiny", "--storage", in_bucket, "--open").code == 0
    (page,) = opened
    assert Path(page.removeprefix("file://").replace("%20", " ")).read_text().count("t0002") > 0


def test_what_is_not_in_a_bucket_is_one_line(raydistill: Command, in_bucket: str) -> None:
    for arguments, says in (
        (("tini", "--storage", in_bucket), f"there is no sweep in {in_bucket}/tini; did you mean 'tiny'?"),
        (("--storage", f"{in_bucket}/deeper"), f"there is no sweep in {in_bucket}/deeper; name one, or --storage"),
        (("tiny", "--storage", in_bucket.replace("test-", "none-")), "none-"),
    ):
        ended = raydistill("front", *arguments)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert says in ended.err
