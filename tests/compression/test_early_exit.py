from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import pytest
import torch

from raydistill.compression.early_exit import answers, entropy, exits, exits_taken
from raydistill.errors import ConfigError

FIRST = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SECOND = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.5, 0.0, 0.5]])
LAST = torch.tensor([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
Aux = namedtuple("Aux", ["logits", "aux_logits"])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (FIRST, [FIRST]),
        ([FIRST, LAST], [FIRST, LAST]),
        ((FIRST, SECOND, LAST), [FIRST, SECOND, LAST]),
        (Aux(LAST, FIRST), [LAST]),
        ((LAST, torch.zeros(2, 5)), [LAST]),  # logits and a hidden state
        ((LAST, (torch.zeros(2), torch.zeros(2))), [LAST]),
    ],
)
def test_the_logits_in_an_output(output: Any, expected: list[torch.Tensor]) -> None:
    found = exits(output)
    assert len(found) == len(expected)
    assert all(mine is theirs for mine, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("output", [None, [], {"out": LAST}, [LAST, torch.zeros(2, 5)], ["a"]])
def test_an_output_without_logits_is_refused(output: Any) -> None:
    with pytest.raises(ConfigError, match="model: gives an output whose logits cannot be told"):
        exits(output)


def test_entropy_in_nats() -> None:
    values = entropy(torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -1e9, -1e9]]))
    expected = [math.log(4), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_an_image_leaves_by_the_first_exit_that_is_sure_enough() -> None:
    # entropies: first exit ~0, log 3 = 1.0986, 0.9753; second ~0, ~0, 1.0620
    outputs = [FIRST, SECOND, LAST]
    assert exits_taken(outputs, (0.5, 0.5)).tolist() == [0, 1, 2]
    assert exits_taken(outputs, (0.98, 1.1)).tolist() == [0, 1, 0]
    assert exits_taken(outputs, (0.0, 0.0)).tolist() == [2, 2, 2]  # entropy is never below zero
    assert exits_taken(outputs, ()).tolist() == [2, 2, 2]
    chosen = answers(outputs, torch.tensor([0, 1, 2]))
    assert torch.equal(chosen, torch.stack([FIRST[0], SECOND[1], LAST[2]]))
