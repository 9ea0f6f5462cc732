"""One driver at a time in a bucket, wherever it runs; who was believed dead learns that another has taken over."""

from __future__ import annotations

import time

import pytest

from raydistill.errors import StorageError
from raydistill.storage import lease as leases
from raydistill.storage.lease import Lease
from raydistill.storage.objects import BucketUri, Objects


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's clock shows whole seconds."""
    for name, seconds in (("LEASE_S", 3.0), ("RENEW_S", 0.2), ("_LOOK_S", 1.0), ("_SETTLE_S", 0.1)):
        monkeypatch.setattr(leases, name, seconds)


def nobody(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.slow  # leases run out in real time
def test_held_by_one_and_free_when_it_ends(objects: Objects) -> None:
    first = Lease(objects, "tiny/driver", "the sweep", "here")
    first.take(0.0, nobody)
    told: list[str] = []
    with first.renewed():
        time.sleep(4.0)  # longer than it lasts without being renewed
        first.check()
        with pytest.raises(StorageError, match=r"driver: the sweep is in use by process \d+ on .*; wait for it to end"):
            Lease(objects, "tiny/driver", "the sweep", "there").take(0.0, told.append)
        assert len(told) == 1
        assert "until just now: waiting whether it still is" in told[0]
    assert objects.names("tiny") == []
    Lease(objects, "tiny/driver", "the sweep", "there").take(0.0, nobody)


@pytest.mark.slow  # leases run out in real time
def test_a_dead_holder_elsewhere_is_waited_out(objects: Objects) -> None:
    dead = Lease(objects, "driver", "the sweep", "there")
    dead.take(0.0, nobody)  # and it is never renewed
    told: list[str] = []
    begun = time.monotonic()
    heir = Lease(objects, "driver", "the sweep", "here")
    heir.take(0.0, told.append)
    assert time.monotonic() - begun >= 2.0
    assert len(told) == 1
    heir.check()
    with pytest.raises(StorageError, match=r"has been taken over by process \d+ on .*nothing more is written"):
        dead.check()
    begun = time.monotonic()
    time.sleep(4.0)
    Lease(objects, "driver", "the sweep", "elsewhere").take(0.0, nobody)  # long dead: nothing to wait for


@pytest.mark.slow
def test_a_dead_holder_on_the_same_working_copy_is_not(objects: Objects) -> None:
    Lease(objects, "driver", "the sweep", "here").take(0.0, nobody)
    Lease(objects, "driver", "the sweep", "here").take(0.0, nobody)


@pytest.mark.slow  # leases run out in real time
def test_a_living_one_is_waited_for_as_long_as_allowed(objects: Objects) -> None:
    first = Lease(objects, "claim", "this baseline", "here")
    first.take(0.0, nobody)
    second = Lease(objects, "claim", "this baseline", "there")
    with first.renewed():
        begun = time.monotonic()
        with pytest.raises(StorageError, match="in use"):
            second.take(4.0, lambda line: None)
        assert time.monotonic() - begun >= 4.0
    second.take(4.0, nobody)


@pytest.mark.slow
def test_who_is_seized_from_stops_renewing(objects: Objects) -> None:
    first = Lease(objects, "claim", "this trial", "here")
    first.seize()
    first.check()
    with first.renewed():
        second = Lease(objects, "claim", "this trial", "there")
        second.seize()
        with pytest.raises(StorageError, match="this trial has been taken over"):
            first.check()
        time.sleep(0.5)  # renewals come twice in it
        second.check()
    second.check()  # and letting go does not remove what is another's


@pytest.mark.slow  # leases run out in real time
def test_a_holder_cut_off_for_long_learns_it_when_it_is_back(address: BucketUri, objects: Objects) -> None:
    cut = Lease(objects, "driver", "the sweep", "there")
    cut.take(0.0, nobody)
    Lease(Objects(address), "driver", "the sweep", "here").take(0.0, lambda line: None)
    with cut.renewed():
        time.sleep(1.5)
        with pytest.raises(StorageError, match="taken over"):
            cut.check_renewed()


@pytest.mark.slow
def test_a_lease_that_somebody_removed_is_written_again(objects: Objects) -> None:
    lease = Lease(objects, "driver", "the sweep", "here")
    lease.take(0.0, nobody)
    objects.delete("driver")
    lease.check()
    with lease.renewed():
        deadline = time.monotonic() + 30
        while objects.names("") != ["driver"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
