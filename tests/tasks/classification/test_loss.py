from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.tasks.classification.loss import EarlyExit, auxiliary, classification_loss

LABELS = torch.tensor([0, 2, 1])
FIRST = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SECOND = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.5, 0.0, 0.5]])
LAST = torch.tensor([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
Aux = namedtuple("Aux", ["logits", "aux_logits"])
TwoAux = namedtuple("TwoAux", ["logits", "aux_logits2", "aux_logits1"])


def cross_entropy(logits: torch.Tensor) -> float:
    """Mean of log(sum(exp(z))) - z[label], row by row."""
    rows = logits.double().numpy()
    return float(np.mean([np.log(np.exp(z).sum()) - z[label] for z, label in zip(rows, LABELS, strict=True)]))


def test_the_loss_of_exits_is_the_weighted_sum_and_the_last_takes_the_rest() -> None:
    expected = 0.2 * cross_entropy(FIRST) + 0.3 * cross_entropy(SECOND) + 0.5 * cross_entropy(LAST)
    loss = classification_loss([FIRST, SECOND, LAST], LABELS, (0.2, 0.3))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_single_exit_has_its_cross_entropy_to_the_bit() -> None:
    loss = classification_loss(LAST, LABELS)
    assert torch.equal(loss, torch.nn.functional.cross_entropy(LAST, LABELS))
    assert float(loss) == pytest.approx(cross_entropy(LAST), rel=1e-5)


def test_auxiliary_classifiers_add_to_the_loss() -> None:
    one, two = Aux(LAST, FIRST), TwoAux(LAST, FIRST, SECOND)
    assert float(classification_loss(one, LABELS)) == pytest.approx(cross_entropy(LAST) + 0.4 * cross_entropy(FIRST))
    assert float(classification_loss(two, LABELS)) == pytest.approx(
        cross_entropy(LAST) + 0.3 * cross_entropy(FIRST) + 0.3 * cross_entropy(SECOND)
    )
    assert auxiliary(Aux(LAST, None)) == ()  # as torchvision's models answer in eval mode


@pytest.mark.parametrize(
    ("output", "weights", "says"),
    [
        ([FIRST, LAST], (), "earlyexit_lossweights: must be 1: the model has 2 exits"),
        ([FIRST, LAST], (0.1, 0.2), "earlyexit_lossweights: must be 1: the model has 2 exits"),
        (LAST, (0.1,), "leave them out, it has a single exit"),
    ],
)
def test_weights_must_fit_the_exits(output: Any, weights: tuple[float, ...], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        classification_loss(output, LABELS, weights)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"loss_weights": ()}, "earlyexit_lossweights: must add up to below 1"),
        ({"loss_weights": (0.5, 0.5)}, "earlyexit_lossweights: must add up to below 1"),
        ({"loss_weights": (-0.1,)}, "earlyexit_lossweights: must be numbers from 0 up"),
        ({"loss_weights": [0.1]}, "earlyexit_lossweights: must be numbers from 0 up"),
        ({"loss_weights": (0.1,), "thresholds": (0.5, 0.5)}, "earlyexit_thresholds: must be 1, as many as"),
        ({"loss_weights": (0.1,), "thresholds": (-1.0,)}, "earlyexit_thresholds: must be numbers from 0 up"),
    ],
)
def test_values_that_cannot_be(arguments: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EarlyExit(**arguments)
    assert says in str(caught.value)
