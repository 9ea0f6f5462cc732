"""Each function of networks side by side against the same function of one network at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raydistill.training.packing.folding import Folding, NotFolded

PLACES = 3


def side_by_side(each: list[Tensor]) -> Tensor:
    return torch.cat(each, dim=1)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


CONV = drawn(PLACES, 6, 4, 3, 3)
GROUPED = drawn(PLACES, 4, 2, 3, 3)
LINEAR, BIAS = drawn(PLACES, 5, 4), drawn(PLACES, 5)


@pytest.mark.parametrize(
    ("function", "weights", "shape"),
    [
        (lambda x, w: functional.conv2d(x, w, stride=2, padding=1), CONV, (2, 4, 8, 8)),
        (lambda x, w: functional.conv2d(x, w, groups=2), GROUPED, (2, 4, 8, 8)),
        (lambda x, w: functional.conv1d(x, w[..., 0]), CONV, (2, 4, 9)),
        (functional.linear, LINEAR, (2, 4)),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_layers_with_weights(
    function: Callable[[Tensor, Tensor], Tensor], weights: Tensor, shape: tuple[int, ...], shared: bool
) -> None:
    each = [drawn(*shape)] * PLACES if shared else [drawn(*shape) + place for place in range(PLACES)]
    with Folding(PLACES):
        together = function(each[0] if shared else side_by_side(each), weights)
    expected = side_by_side([function(x, weight) for x, weight in zip(each, weights, strict=True)])
    torch.testing.assert_close(together, expected)


def test_a_bias() -> None:
    each = [drawn(2, 4) + place for place in range(PLACES)]
    with Folding(PLACES):
        together = functional.linear(side_by_side(each), LINEAR, BIAS)
    expected = [functional.linear(x, w, b) for x, w, b in zip(each, LINEAR, BIAS, strict=True)]
    torch.testing.assert_close(together, side_by_side(expected))


def test_batch_norm_learns_of_each_network_by_itself() -> None:
    each = [drawn(4, 2, 3, 3) * (place + 1) for place in range(PLACES)]
    mean, var = torch.zeros(PLACES, 2, dtype=torch.float64), torch.ones(PLACES, 2, dtype=torch.float64)
    weight, bias = drawn(PLACES, 2), drawn(PLACES, 2) + 1
    own = [(m.clone(), v.clone()) for m, v in zip(mean, var, strict=True)]
    with Folding(PLACES):
        together = functional.batch_norm(side_by_side(each), mean, var, weight, bias, training=True)
    expected = [
        functional.batch_norm(x, m, v, w, b, training=True)
        for x, (m, v), w, b in zip(each, own, weight, bias, strict=True)
    ]
    torch.testing.assert_close(together, side_by_side(expected))
    torch.testing.assert_close(mean, torch.stack([m for m, _ in own]))
    torch.testing.assert_close(var, torch.stack([v for _, v in own]))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: functional.conv2d(drawn(2, 8, 8, 8), CONV),
        lambda: functional.linear(drawn(2, 3, 4), LINEAR),
        lambda: functional.linear(drawn(2, 8), LINEAR),
        lambda: functional.batch_norm(drawn(2, 2, 3, 3), None, None, drawn(PLACES, 2)),
        lambda: float(drawn(2, 2).mean()) > 0,
        lambda: drawn(1, 1).item(),
        lambda: drawn(2, 2).nonzero(),
    ],
)
def test_what_is_not_of_networks_side_by_side_is_refused(wrong: Callable[[], object]) -> None:
    wrong_shapes = Folding(PLACES)
    with wrong_shapes, pytest.raises(NotFolded):
        wrong()
