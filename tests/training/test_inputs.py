"""What a checkpoint says of its network's inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from raydistill.training.inputs import are_inputs, example_inputs, inputs_state


def test_shapes_and_dtypes_come_back() -> None:
    tokens = torch.arange(5)
    state = inputs_state(
        (torch.ones(1, 3, 4), tokens.view(5, 1)), (torch.ones(2, 3, 4), torch.stack([tokens, tokens], 1))
    )
    assert are_inputs(state)
    features, times = example_inputs(state, 3)
    assert (features.shape, features.dtype) == ((3, 3, 4), torch.float32)
    assert (times.shape, times.dtype) == ((5, 3), torch.int64)
    assert torch.equal(times[:, 2], tokens)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("text",), ("text",)),
        ((torch.zeros(1, 2),), (torch.zeros(1, 2),)),
        ((torch.zeros(1, 2),), (torch.zeros(2, 3),)),
        ((torch.zeros(1, 2),), (torch.zeros(2),)),
        ((torch.zeros(1),), (torch.zeros(2), torch.zeros(2))),
    ],
)
def test_what_has_no_samples_to_count_is_not_said(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    assert inputs_state(one, two) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.pop("shape"),
        lambda said: said.update(shape=[3, 4]),
        lambda said: said.update(shape=[None, None, 4]),
        lambda said: said.update(shape=[None, -1]),
        lambda said: said.update(shape=[None, 1 << 40]),
        lambda said: said.update(dtype="load"),
        lambda said: said.update(dtype="int64"),
        lambda said: said.update(sample=torch.zeros(2, 4)),
        lambda said: said.update(sample="x"),
    ],
)
def test_damage_is_seen(change: Callable[[dict[str, Any]], object]) -> None:
    (said,) = inputs_state((torch.zeros(1, 4),), (torch.zeros(2, 4),))
    assert are_inputs([said])
    change(said)
    assert not are_inputs([said])
    assert not are_inputs(said)
