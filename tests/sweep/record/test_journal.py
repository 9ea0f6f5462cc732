"""The journal: what was written is read back, a torn tail is not, damage is said."""

from __future__ import annotations

import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.errors import StorageError
from raydistill.records import BASELINE, FINISHED, INTERRUPTED, RUNNING, STOPPED, EpochMetrics, Evaluation, TrialRecord
from raydistill.sweep.record.journal import FORMAT, Journal, read_journal


def metrics(epoch: int, top1: float = 0.5) -> EpochMetrics:
    return EpochMetrics(
        epoch,
        4,
        1.5,
        {"top1": top1, "top5": 0.9, "loss": 1.0},
        0.1,
        0.3,
        {"fc1.weight": 0.6},
        1e3,
        0.5,
        1_000 + epoch,
        "/c.pt",
    )


def record(trial_id: str, state: str = RUNNING) -> TrialRecord:
    return TrialRecord(trial_id, {"training.lr": 0.1}, state, "simplenet_cifar", "digits", 0, epochs=4, started_ms=77)


def write(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(
            "sweep_started", format=FORMAT, sweep_id="s", config={"num_samples": 2}, dataset={"name": "digits"}
        )
        journal.append("baseline", record=record(BASELINE, FINISHED).to_json())
        journal.append("trial_started", record=record("t0000").to_json())
        journal.append("trial_started", record=record("t0001").to_json())
        for epoch in range(3):
            journal.append("epoch", trial_id="t0000", metrics=metrics(epoch).to_json())
            journal.append("epoch", trial_id="t0001", metrics=metrics(epoch, 0.6).to_json())
        journal.append("trial_ended", trial_id="t0000", state=STOPPED, reason="score too low")
        journal.append(
            "tested",
            trial_id=BASELINE,
            evaluation=vars(Evaluation("test", {"top1": 0.7, "top5": 0.9, "loss": 1.0}, 360)),
        )


def test_read_back(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl")
    history = read_journal(tmp_path / "journal.jsonl")
    assert history.start is not None
    assert history.start["sweep_id"] == "s"
    assert list(history.records) == [BASELINE, "t0000", "t0001"]
    assert (history.records["t0000"].state, history.records["t0000"].reason) == (STOPPED, "score too low")
    assert history.records["t0001"].state == RUNNING
    assert history.records["t0001"].last == metrics(2, 0.6)
    assert history.records["t0001"].checkpoint == "/c.pt"
    assert history.records[BASELINE].test == Evaluation("test", {"top1": 0.7, "top5": 0.9, "loss": 1.0}, 360)
    assert [(trial, m.epoch) for trial, m in history.epochs] == [(t, e) for e in range(3) for t in ("t0000", "t0001")]


def test_no_journal_is_an_empty_history(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl").start is None


def test_every_torn_tail_is_dropped_and_cut(tmp_path: Path) -> None:
    """Killed at any byte of the last line: what stood before is there, and the next line is whole."""
    path = tmp_path / "journal.jsonl"
    write(path)
    whole = path.read_bytes()
    *before, last, _ = whole.split(b"\n")
    kept = b"\n".join([*before, b""])
    for cut in (len(kept), len(kept) + 1, len(kept) + len(last) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert read_journal(path).records[BASELINE].test is None
        with Journal(path) as journal:
            journal.append("trial_ended", trial_id="t0001", state=FINISHED, reason="done")
        history = read_journal(path)
        assert history.records["t0001"].state == FINISHED
        assert history.records["t0000"].state == STOPPED


def test_a_trial_started_again_keeps_what_it_reached(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    with Journal(path) as journal:
        journal.append("trial_ended", trial_id="t0001", state=INTERRUPTED, reason="the sweep was interrupted")
        assert read_journal(path).records["t0001"].state == INTERRUPTED
        again = {**record("t0001").to_json(), "started_ms": 99}
        journal.append("trial_started", record=again)
    back = read_journal(path).records["t0001"]
    assert (back.state, back.last, back.started_ms) == (RUNNING, metrics(2, 0.6), 77)


def test_a_resumed_sweep_may_have_more_trials(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    with Journal(path) as journal:
        journal.append("sweep_resumed", config={"num_samples": 9})
    start = read_journal(path).start
    assert start is not None
    assert (start["config"], start["sweep_id"]) == ({"num_samples": 9}, "s")


NOT_EVENTS = [
    b"not json", b"[1]", b'{"event": "epoch", "trial_id": "t9", "metrics": {}}', b"\xff", b"[" * 100_000, b"null",
    b'{"event": "trial_ended", "trial_id": "t0001", "state": "finished", "reason": 3}',
]  # fmt: skip


@pytest.mark.parametrize("line", NOT_EVENTS)
@pytest.mark.parametrize("place", [1, 4, 12])
def test_a_damaged_line_costs_what_it_said(tmp_path: Path, line: bytes, place: int) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    whole = read_journal(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:place], line, *lines[place:]]))
    found = read_journal(path)
    assert [one for one in found.lost if "journal.jsonl" in one] == found.lost
    assert found.records == whole.records
    assert found.epochs == whole.epochs
    assert found.lost[0].startswith(f"{path}:{place + 1}: is not an event of a sweep")


@pytest.mark.parametrize("figure", ['"0.5"', "null", "[1]", "true", '{"a": 1}'])
def test_figures_that_are_no_numbers(tmp_path: Path, figure: str) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    path.write_text(path.read_text().replace('"top1": 0.6', f'"top1": {figure}', 1))
    found = read_journal(path)
    assert len(found.lost) == 1
    assert len(found.epochs) == 5


def test_a_train_loss_may_be_absent_but_is_a_number_where_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    with Journal(path) as journal:
        journal.append("epoch", trial_id="t0001", metrics=replace(metrics(3), train_loss=None).to_json())
    history = read_journal(path)
    assert [found.train_loss for trial, found in history.epochs if trial == "t0001"] == [1.5, 1.5, 1.5, None]
    with Journal(path) as journal:
        journal.append("epoch", trial_id="t0001", metrics={**metrics(3).to_json(), "train_loss": "low"})
    assert len(read_journal(path).lost) == 1


def test_a_trial_whose_start_is_lost_is_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], b"?", *lines[3:]]))
    found = read_journal(path)
    assert list(found.records) == [BASELINE, "t0001"]
    assert len(found.lost) == 5, "its start, three epochs, its end"


@pytest.mark.parametrize("line", [*NOT_EVENTS, b'{"event": "trial_paused"}'])
def test_who_the_sweep_is_must_be_known(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    path.write_bytes(b"\n".join([line, *path.read_bytes().split(b"\n")[1:]]))
    with pytest.raises(StorageError, match=r"journal.jsonl:1: is not an event of a sweep; .*--name"):
        read_journal(path)


def test_a_journal_of_another_format(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append("sweep_started", format=99, sweep_id="s", config={}, dataset={})
    with pytest.raises(StorageError, match="format 99"):
        read_journal(tmp_path / "j")


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    """The process's own file size limit stands for the disk's end: the same failing write, in mid-line."""
    path = tmp_path / "journal.jsonl"
    write(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        with Journal(path) as journal, pytest.raises(StorageError, match=r"journal.jsonl: cannot be written \(file"):
            journal.append("trial_ended", trial_id="t0001", state=FINISHED, reason="done")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_journal(path).records["t0001"].state == RUNNING


def test_half_a_line_does_not_stay_where_space_is_freed_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path)
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
        try:
            with pytest.raises(StorageError):
                journal.append("trial_ended", trial_id="t0001", state=FINISHED, reason="done")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == whole
        with pytest.raises(StorageError):  # a line is missing: a shorter one behind it might be about what it said
            journal.append("epoch", trial_id="t0009", metrics={})
    assert path.read_bytes() == whole
    with Journal(path) as journal:
        journal.append("trial_ended", trial_id="t0001", state=INTERRUPTED, reason="the disk was full")
    assert read_journal(path).records["t0001"].reason == "the disk was full"


def test_the_baseline_and_its_epochs_are_one_line(tmp_path: Path) -> None:
    """A driver killed between two lines would leave a baseline that is there, without all of its epochs."""
    epochs = [metrics(epoch) for epoch in range(3)]
    with Journal(tmp_path / "j") as journal:
        baseline = record(BASELINE, FINISHED).to_json()
        journal.append("baseline", record=baseline, epochs=[trained.to_json() for trained in epochs])
    assert read_journal(tmp_path / "j").epochs == [(BASELINE, trained) for trained in epochs]


def named(path: Path, kept: str, *references: str, given: str | None = None) -> list[str]:
    """References as a journal in `kept` holds them."""
    with Journal(path, kept=kept) as journal:
        config = {"baseline": {"checkpoint": given}}
        journal.append("sweep_started", format=FORMAT, sweep_id="s", config=config, dataset={})
        for number, reference in enumerate(references):
            trial = record(f"t{number:04d}" if number else BASELINE)
            last = replace(metrics(0), checkpoint=reference)
            journal.append("baseline" if not number else "trial_started", record=trial.to_json(), epochs=[])
            journal.append("epoch", trial_id=trial.trial_id, metrics=last.to_json())
    return re.findall(r'"checkpoint": "([^"]*)"', path.read_text())


@pytest.mark.parametrize(
    ("old", "new"), [("/disk/sweeps", "/other/place"), ("s3://bucket/sweeps", "s3://other"), ("/a", "s3://b/c")]
)
def test_files_are_named_from_where_the_sweep_is(tmp_path: Path, old: str, new: str) -> None:
    path, dense, own = tmp_path / "j", "baselines/0123456789abcdef/checkpoint.pt", "tiny/trials/t0001/checkpoint.pt"
    assert named(path, f"{old}/tiny", f"{old}/{dense}", f"{old}/{own}", "/elsewhere/c.pt") == [
        f"../{dense}", "trials/t0001/checkpoint.pt", "/elsewhere/c.pt",
    ]  # fmt: skip
    for storage in (old, new):
        history = read_journal(path, f"{storage}/tiny")
        found = [history.records[trial_id].checkpoint for trial_id in (BASELINE, "t0001", "t0002")]
        assert found == [f"{storage}/{dense}", f"{storage}/{own}", "/elsewhere/c.pt"]
        assert history.records["t0001"].last == replace(metrics(0), checkpoint=f"{storage}/{own}")
        assert history.epochs[1][1].checkpoint == f"{storage}/{own}"


def test_a_journal_that_names_its_files_in_full(tmp_path: Path) -> None:
    dense, own = "/old/baselines/0123456789abcdef/checkpoint.pt", "/old/tiny/trials/t0001/checkpoint.pt"
    named(tmp_path / "j", "/nowhere/x", dense, own, own)
    history = read_journal(tmp_path / "j", "/new/tiny")
    assert [history.records[trial_id].checkpoint for trial_id in (BASELINE, "t0001", "t0002")] == [
        dense.replace("/old", "/new"), own.replace("/old", "/new"), own,
    ]  # fmt: skip
    (tmp_path / "j").unlink()
    named(tmp_path / "j", "/nowhere/x", dense, given=dense)
    assert read_journal(tmp_path / "j", "/new/tiny").records[BASELINE].checkpoint == dense, "a user's own"
