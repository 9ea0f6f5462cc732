"""A schedule as values: in which epochs a policy acts."""

from __future__ import annotations

import pytest

from raydistill.schedule.spec import KINDS, SECTIONS, InstanceSpec, PolicySpec, ScheduleSpec


def policy(start: int, end: int, frequency: int, epochs: tuple[int, ...] | None = None) -> PolicySpec:
    return PolicySpec(0, "pruner", "p", {}, start, end, frequency, epochs)


@pytest.mark.parametrize("of", [(0, 10, 3), (2, 9, 7), (5, 6, 100), (0, 1, 1)])
def test_its_epochs_are_counted_as_they_are_listed(of: tuple[int, int, int]) -> None:
    listed = [epoch for epoch in range(of[0], of[1]) if (epoch - of[0]) % of[2] == 0]
    found = policy(*of)
    assert (list(found.active_epochs()), found.count, found.last_epoch) == (listed, len(listed), listed[-1])


def test_epochs_that_are_given_are_those() -> None:
    found = policy(1, 9, 1, (1, 4, 8))
    assert (found.active_epochs(), found.count, found.last_epoch) == ((1, 4, 8), 3, 8)
    assert found.path == "policies[0]"


def test_an_instance_is_found_by_the_kind_of_its_policy() -> None:
    assert tuple(KINDS.values()) == SECTIONS
    instances = (InstanceSpec("extensions", "a", "X", {}), InstanceSpec("pruners", "a", "Y", {}))
    spec = ScheduleSpec("s", instances, (policy(0, 4, 2), policy(0, 4, 3)), {})
    assert spec.instance("pruner", "a").class_name == "Y"
    assert spec.instance("extension", "a").path == "extensions.a"
    assert spec.last_epoch == 3
    with pytest.raises(KeyError, match=r"regularizers\.a"):
        spec.instance("regularizer", "a")
    assert ScheduleSpec("s", (), (), {}).last_epoch == -1
