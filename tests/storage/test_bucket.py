"""Two machines, each with a working copy of its own, on one bucket."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import ConfigError, StorageError
from raydistill.storage import Folder, Store, open_store
from raydistill.storage.bucket import Bucket
from raydistill.storage.objects import BucketUri

pytestmark = pytest.mark.slow  # leases and mirrors go by the clock
JOURNAL = "journal.jsonl"
MakeStore = Callable[[str], Bucket]


@pytest.fixture
def machine(address: BucketUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStore:
    """The store as a machine of that name has it."""

    def make(name: str) -> Bucket:
        monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / name))
        return Bucket(address, outage_s=5.0)

    return make


def nobody(line: str) -> None:
    raise AssertionError(line)


def drive(store: Store, *lines: str) -> list[str]:
    """One driver's life; gives the journal's lines when it ends."""
    journal = store.root / "tiny" / JOURNAL
    with store.held(journal, "the sweep", nobody) as follower:
        journal.touch()
        follower.begin(journal)
        for line in lines:
            with journal.open("a") as file:
                file.write(f"{line}\n")
            follower.grown(wait=True)
        (store.root / "tiny" / "pareto.csv").write_text("the front")
        follower.close()
        return journal.read_text().split()


def test_a_journal_goes_on_elsewhere(machine: MakeStore) -> None:
    here, there = machine("here"), machine("there")
    assert here.root != there.root
    assert here.content(here.root / "tiny" / JOURNAL) == b""
    assert drive(here, "a", "b") == ["a", "b"]
    assert there.content(there.root / "tiny" / JOURNAL) == b"a\nb\n"
    assert not (there.root / "tiny").exists()  # looking changes nothing
    assert drive(there, "c") == ["a", "b", "c"]
    assert drive(here) == ["a", "b", "c"]
    assert here.objects.get("tiny/pareto.csv") == (b"the front", here.objects.version("tiny/pareto.csv"))


def test_what_did_not_get_out_before_the_driver_died_is_still_on_its_machine(machine: MakeStore) -> None:
    here = machine("here")
    drive(here, "a")
    with (here.root / "tiny" / JOURNAL).open("a") as file:
        file.write("b\n")
    assert drive(here, "c") == ["a", "b", "c"]
    assert drive(machine("there")) == ["a", "b", "c"]


def test_a_journal_that_went_on_elsewhere_is_the_one_that_counts(machine: MakeStore) -> None:
    here = machine("here")
    drive(here, "a")
    with (here.root / "tiny" / JOURNAL).open("a") as file:
        file.write("lost\n")
    drive(machine("there"), "b")
    assert drive(here) == ["a", "b"]


def test_a_sweep_whose_objects_were_removed_begins_anew(machine: MakeStore) -> None:
    here = machine("here")
    drive(here, "a")
    here.objects.delete(*here.objects.names("tiny"))
    assert drive(here, "b") == ["b"]


def test_a_second_driver_on_this_machine(machine: MakeStore) -> None:
    here = machine("here")
    journal = here.root / "tiny" / JOURNAL
    with (
        here.held(journal, "the sweep", nobody),
        pytest.raises(StorageError, match="the sweep is in use by process"),
        here.held(journal, "the sweep", nobody),
    ):
        pass


def test_a_trial_goes_on_elsewhere(machine: MakeStore, address: BucketUri) -> None:
    here, there = machine("here"), machine("there")
    trial = here.reference(here.root / "tiny" / "trials" / "t0000")
    assert trial == f"{address.uri}/tiny/trials/t0000"
    with here.workplace(trial, "this trial", 0.0) as place:
        assert sorted(path.name for path in place.folder.iterdir()) == ["lock"]
        (place.folder / "checkpoint.pt").write_bytes(b"epoch 1")
        (place.folder / "sparsity.csv").write_text("layer,sparsity")
        place.push()
        assert there.exists(f"{trial}/checkpoint.pt")
        with there.lent(f"{trial}/checkpoint.pt") as path:
            assert path.read_bytes() == b"epoch 1"
            assert path.name == "checkpoint.pt"
        assert not path.exists()
        (place.folder / "events.out.tfevents.1").write_bytes(b"e")
        (place.folder / "checkpoint.pt").write_bytes(b"epoch 2, not pushed")
    assert sorted(path.name for path in here.local(trial).iterdir()) == ["lock"]
    names = here.objects.names("tiny/trials/t0000")
    files = ["checkpoint.pt", "claim", "events.out.tfevents.1", "sparsity.csv"]
    assert names == [f"tiny/trials/t0000/{name}" for name in files]
    with there.workplace(trial, "this trial", 0.0) as place:
        assert (place.folder / "checkpoint.pt").read_bytes() == b"epoch 1"


def test_what_an_earlier_process_left_does_not_count(machine: MakeStore) -> None:
    here = machine("here")
    trial = here.reference(here.root / "tiny" / "trials" / "t0000")
    here.local(trial).mkdir(parents=True)
    (here.local(trial) / "checkpoint.pt").write_bytes(b"of a sweep that was removed")
    with here.workplace(trial, "this trial", 0.0) as place:
        assert not (place.folder / "checkpoint.pt").exists()


def test_only_what_changed_is_pushed(machine: MakeStore) -> None:
    here = machine("here")
    trial = here.reference(here.root / "tiny" / "trials" / "t0000")
    with here.workplace(trial, "this trial", 0.0) as place:
        (place.folder / "checkpoint.pt").write_bytes(b"epoch 1")
        place.push()
        here.objects.put("tiny/trials/t0000/checkpoint.pt", b"marked")
        place.push()
        assert here.objects.get("tiny/trials/t0000/checkpoint.pt") is not None
        with here.lent(f"{trial}/checkpoint.pt") as path:
            assert path.read_bytes() == b"marked"
    with here.workplace(trial, "this trial", 0.0) as place:
        here.objects.put("tiny/trials/t0000/checkpoint.pt", b"marked again")
        place.push()  # what was pulled has not changed
        with here.lent(f"{trial}/checkpoint.pt") as path:
            assert path.read_bytes() == b"marked again"


def test_a_file_that_goes_while_it_is_pushed_leaves_what_was_kept(
    machine: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that dies between the look at a checkpoint and its reading."""
    here = machine("here")
    trial = here.reference(here.root / "tiny" / "trials" / "t0000")
    with here.workplace(trial, "this trial", 0.0) as place:
        checkpoint = place.folder / "checkpoint.pt"
        checkpoint.write_bytes(b"epoch 1")
        place.push()
        checkpoint.write_bytes(b"epoch 12")
        monkeypatch.setattr(place._lease, "check", checkpoint.unlink)  # type: ignore[attr-defined]
        place.push()
        assert here.objects.get("tiny/trials/t0000/checkpoint.pt")[0] == b"epoch 1"


def test_a_trial_that_another_machine_took_over_pushes_no_more(machine: MakeStore) -> None:
    here, there = machine("here"), machine("there")
    trial = here.reference(here.root / "tiny" / "trials" / "t0000")
    with here.workplace(trial, "this trial", 0.0) as orphan:
        (orphan.folder / "checkpoint.pt").write_bytes(b"epoch 1")
        orphan.push()
        with there.workplace(trial, "this trial", 0.0) as heir:
            (heir.folder / "checkpoint.pt").write_bytes(b"epoch 2 of the heir")
            heir.push()
            (orphan.folder / "checkpoint.pt").write_bytes(b"epoch 2 of the orphan")
            with pytest.raises(StorageError, match="this trial has been taken over by process"):
                orphan.push()
    with here.lent(f"{trial}/checkpoint.pt") as path:
        assert path.read_bytes() == b"epoch 2 of the heir"


def test_the_baseline_is_brought_once_and_again_when_it_is_another(machine: MakeStore) -> None:
    here, there = machine("here"), machine("there")
    baseline = here.reference(here.root / "baselines" / "ab12")
    with here.workplace(baseline, "this baseline", 0.0, rivals=True) as place:
        (place.folder / "checkpoint.pt").write_bytes(b"dense")
        place.push()
    first = there.fetched(f"{baseline}/checkpoint.pt")
    assert first.read_bytes() == b"dense"
    assert there.fetched(f"{baseline}/checkpoint.pt") == first
    here.objects.put("baselines/ab12/checkpoint.pt", b"another")
    assert there.fetched(f"{baseline}/checkpoint.pt").read_bytes() == b"another"
    assert first.read_bytes() == b"dense"  # somebody may be reading it
    here.objects.delete("baselines/ab12/checkpoint.pt")
    with pytest.raises(StorageError, match=r"checkpoint\.pt: is not there any more"):
        there.fetched(f"{baseline}/checkpoint.pt")


def test_a_users_own_file_is_there_for_all(machine: MakeStore, tmp_path: Path) -> None:
    own = tmp_path / "dense.pt"
    own.write_bytes(b"given")
    here, there = machine("here"), machine("there")
    reference = here.given(str(own))
    own.unlink()
    assert there.fetched(reference).read_bytes() == b"given"
    assert there.fetched(reference).name == "dense.pt"


def test_a_store_travels_by_its_address(
    machine: MakeStore, address: BucketUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(machine("here"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # set where the sweep was started, not on the nodes
    monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / "node"))
    received = pickle.loads(sent)
    assert received.root.parent == tmp_path / "node"
    received.check()
    assert received.outage_s == 5.0
    assert b"secret" not in sent


def test_the_check_leaves_nothing_and_names_the_option(machine: MakeStore, gate: Any) -> None:
    here = machine("here")
    here.check()
    assert here.objects.names("") == []
    away = replace(here.address, uri=here.address.uri.replace("test-", "no-test-"))
    with pytest.raises(StorageError, match=r"^--storage s3://no-test-.*/sweeps: there is no such bucket"):
        Bucket(away).check()


def test_a_reference_into_another_storage(machine: MakeStore) -> None:
    with pytest.raises(StorageError, match=r"s3://other/t/checkpoint\.pt: does not lie in this storage"):
        machine("here").exists("s3://other/t/checkpoint.pt")


def test_the_working_copy_may_go_at_any_time(machine: MakeStore) -> None:
    here = machine("here")
    drive(here, "a")
    shutil.rmtree(here.root)
    assert drive(machine("here"), "b") == ["a", "b"]


def test_a_folder_is_as_it_always_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sweeps")
    assert isinstance(store, Folder)
    assert store.root == tmp_path / "sweeps"
    assert store.reference(store.root / "a") == str(tmp_path / "sweeps" / "a")
    with store.workplace(str(tmp_path / "sweeps" / "t"), "this trial", 0.0) as place:
        (place.folder / "checkpoint.pt").write_bytes(b"1")
        place.push()
    assert (tmp_path / "sweeps" / "t" / "checkpoint.pt").read_bytes() == b"1"
    with pytest.raises(ConfigError, match="did you mean 's3://bucket/p'"):
        open_store(Path("s3://bucket/p"))


def test_sweeps_are_found_on_any_machine_the_latest_first(machine: MakeStore) -> None:
    here = machine("here")
    for name in ("b", "a"):
        journal = here.root / name / JOURNAL
        with here.held(journal, "the sweep", nobody) as follower:
            journal.write_text("x\n")
            follower.begin(journal)
            follower.close()
        time.sleep(1.1)  # the service counts seconds
    here.objects.put("given/0123/checkpoint.pt", b"no sweep")
    there = machine("there")
    assert there.sweeps(JOURNAL) == ["a", "b"]
    here.objects.put("b/journal/zzz/0", b"x\n")
    assert there.sweeps(JOURNAL) == ["b", "a"]
    assert Bucket(replace(there.address, uri=f"{there.address.uri}/deeper"), outage_s=5.0).sweeps(JOURNAL) == []


def test_events_in_a_folder_of_a_trials_folder_are_kept(machine: MakeStore) -> None:
    here = machine("here")
    with here.workplace(here.reference(here.root / "tiny/trials/t0"), "t0", 0.0) as place:
        (place.folder / "steps").mkdir()
        (place.folder / "steps" / "events.out.tfevents.1.host").write_bytes(b"events")
        (place.folder / "steps" / "other").write_bytes(b"a user's own")
    assert here.objects.names("tiny/trials/t0/steps") == ["tiny/trials/t0/steps/events.out.tfevents.1.host"]
