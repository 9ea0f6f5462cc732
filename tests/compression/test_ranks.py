"""Several ranks of one run, as threads of this process would be too few: what one rank alone does."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.ranks import LostWorker, Ranks, as_text, digest, said_by
from raydistill.errors import ConfigError, Fault, TrainingError


def test_one_rank_alone_is_first_and_changes_nothing() -> None:
    ranks, tensor = Ranks(), torch.ones(3)
    assert (ranks.first, ranks.several, ranks.idle) == (True, False, False)
    assert ranks.sum(tensor) is tensor
    assert ranks.gather("x") == ["x"]
    assert ranks.of_first("x") == "x"
    given = {"a": tensor}
    found = ranks.tensors_of_first(given)
    assert found == given
    assert found is not given
    assert ranks.together(lambda: 3) == 3
    done: list[int] = []
    ranks.by_first(lambda: done.append(1))
    ranks.same([("a", tensor)], "weights", "weights")
    assert done == [1]
    assert not Ranks(1, 2).first
    assert Ranks(1, 2).several


def test_its_errors_are_its_own() -> None:
    def fails() -> None:
        raise KeyError("x")

    for way in (Ranks().by_first, Ranks().together):
        with pytest.raises(KeyError):
            way(fails)
    with pytest.raises(KeyError), Ranks().failing_together():
        fails()


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (ConfigError(Fault("a", "b"), Fault("c", "d")), ConfigError, "worker 3: a: b\nworker 3: c: d"),
        (KeyError("x"), TrainingError, "worker 3: KeyError: 'x'"),
        (ValueError("first\nsecond"), TrainingError, "worker 3: ValueError: first"),
    ],
)
def test_an_error_travels_as_its_class_and_its_lines(error: Exception, kind: type, line: str) -> None:
    told = as_text(error)
    assert told is not None
    again = said_by(told, 3)
    assert (type(again), str(again)) == (kind, line)
    assert as_text(None) is None
    assert issubclass(LostWorker, TrainingError)


def test_a_digest_is_of_bits_names_shapes_and_types() -> None:
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    same = [("w", base.clone()), ("w", base.t().contiguous().t()), ("w", torch.nn.Parameter(base))]
    other = [("v", base), ("w", base.reshape(4)), ("w", base.double()), ("w", base + 1e-6), ("w", -base)]
    assert len({digest([one]) for one in same}) == 1
    assert len({digest([one]) for one in [*same, *other]}) == 1 + len(other)
    assert digest([("a", base), ("b", base)]) != digest([("b", base), ("a", base)])
    assert digest([("z", torch.tensor(0.0))]) != digest([("z", torch.tensor(-0.0))])
