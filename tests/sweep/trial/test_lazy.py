"""What travels through Tune's config comes out as it went in, and Tune neither copies it nor spells it out."""

from __future__ import annotations

import copy
import pickle

import torch

from raydistill.sweep.trial.lazy import Lazy


class Noisy:
    """It counts how often it was copied or unpacked."""

    unpacked = 0

    def __setstate__(self, state: dict) -> None:
        Noisy.unpacked += 1
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict) -> Noisy:
        raise AssertionError("nobody may copy it")


def test_it_is_unpacked_where_it_is_used_and_nowhere_before() -> None:
    content = Noisy()
    content.values = torch.arange(3)  # type: ignore[attr-defined]
    Noisy.unpacked = 0
    arrived = pickle.loads(pickle.dumps(copy.deepcopy(Lazy("a plan", content))))
    assert Noisy.unpacked == 0
    assert torch.equal(arrived.content.values, torch.arange(3))
    assert Noisy.unpacked == 1
    assert arrived.content is not arrived.content  # a trial may change what it was given


def test_tune_sees_its_name_alone() -> None:
    lazy = Lazy("t0003", {"secret": list(range(1000))})
    assert repr(lazy) == str(lazy) == "t0003"
    assert copy.deepcopy({"x": [lazy]})["x"][0] is lazy
