"""Weights times norms of inputs: against a plain loop, for every way of saying how much."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.masks import largest_of_each_group
from raydistill.compression.pruners import Moment, WandaPruner
from raydistill.compression.pruners.wanda import smallest_of_each_row, wanda_scores
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError

NOW = PolicyTime(0, 0, 1, 1)


def decided(pruner: WandaPruner, weight: Tensor, read: Tensor, before: Tensor | None = None) -> Tensor:
    """read: (groups, samples, columns)."""
    masks = {} if before is None else {"w": before}
    return pruner.masks({"w": weight}, Moment(NOW, masks, {"w": read.double().square().sum(1)}))["w"]


def by_loop(weight: Tensor, read: Tensor, count: int) -> Tensor:
    """Row after row, weight after weight."""
    mask = torch.ones_like(weight)
    for row in range(weight.shape[0]):
        scores = []
        for column in range(weight.shape[1]):
            norm = math.sqrt(sum(float(value) ** 2 for value in read[:, column]))
            scores.append((abs(float(weight[row, column])) * norm, column))
        for _, column in sorted(scores)[:count]:
            mask[row, column] = 0.0
    return mask


def test_it_is_the_papers_rule() -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(5, 12), torch.randn(40, 12) * torch.linspace(0.1, 3.0, 12)
    found = decided(WandaPruner("p", {"w": 0.5}), weight, read.unsqueeze(0))
    assert torch.equal(found, by_loop(weight, read, 6))
    assert not torch.equal(found, by_loop(weight, torch.ones(1, 12), 6)), "magnitude decides otherwise"


@pytest.mark.parametrize("level", [0.0, 0.1, 0.37, 0.5, 0.7, 0.99])
def test_levels_are_met_exactly_and_rows_share_them_evenly(level: float) -> None:
    torch.manual_seed(0)
    found = decided(WandaPruner("p", {"w": level}), torch.randn(7, 13), torch.randn(1, 30, 13))
    zeros = (found == 0).sum(1)
    assert int(zeros.sum()) == math.floor(level * 7 * 13 + 1e-9)
    assert int(zeros.max() - zeros.min()) <= 1


def test_the_weights_of_a_layer_may_be_compared_with_each_other() -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(5, 12) * torch.linspace(0.2, 2.0, 5).unsqueeze(1), torch.randn(1, 40, 12)
    found = decided(WandaPruner("p", {"w": 0.5}, compare="layer"), weight, read)
    scores = wanda_scores(weight, read.double().square().sum(1))
    assert torch.equal(found != 0, scores > scores.flatten().kthvalue(30).values)
    assert WandaPruner("p", {"w": 0.5}, compare="layer").with_levels({"w": 0.1}).compare == "layer"


@pytest.mark.parametrize("wrong", [{"compare": "rows"}, {"compare": "layer", "weights": ["w"], "n": 2, "m": 4}])
def test_what_cannot_be_compared(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="compare: "):
        WandaPruner("p", **{**({} if "n" in wrong else {"levels": {"w": 0.5}}), **wrong})  # type: ignore[arg-type]


def test_of_rows_that_give_one_more_it_is_the_cheapest() -> None:
    scores = torch.tensor([[1.0, 5.0, 6.0], [1.0, 2.0, 9.0], [1.0, 4.0, 7.0]])
    assert smallest_of_each_row(scores, 4).tolist() == [[0, 1, 1], [0, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 3), (3, 3)])
def test_every_group_of_every_row_keeps_n(n: int, m: int) -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(6, 24), torch.randn(1, 50, 24) * torch.rand(24)
    found = decided(WandaPruner("p", weights=["w"], n=n, m=m), weight, read)
    assert bool((found.reshape(-1, m).sum(1) == n).all())
    scores = wanda_scores(weight, read.square().sum(1)).reshape(-1, m)
    lost = scores.masked_fill(found.reshape(-1, m) == 1, -1.0).amax(1)
    assert bool((lost <= scores.masked_fill(found.reshape(-1, m) == 0, math.inf).amin(1)).all())


def test_of_a_convolution_groups_are_channels_at_one_position() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 6, 3)
    read = kind_of(conv).patches(conv, torch.randn(3, 8, 7, 7) * torch.rand(8, 1, 1))
    assert read is not None
    found = decided(WandaPruner("p", weights=["w"], n=2, m=4), conv.weight, read)
    assert bool((found.reshape(6, 2, 4, 3, 3).sum(2) == 2).all())
    at = wanda_scores(conv.weight.flatten(1), read.square().sum(1)).reshape(6, 8, 3, 3)[2, 4:, 1, 0]
    assert set(at.topk(2).indices.tolist()) == set(found[2, 4:, 1, 0].nonzero().flatten().tolist())


@torch.no_grad()
def test_groups_of_a_convolution_have_their_own_inputs() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 2, groups=2)
    inputs = torch.randn(3, 4, 5, 5) * torch.tensor([1.0, 2.0, 3.0, 0.1]).view(4, 1, 1)
    read = kind_of(conv).patches(conv, inputs)
    assert read is not None
    found = decided(WandaPruner("p", {"w": 0.5}), conv.weight, read)
    for group in range(2):
        alone = nn.Conv2d(2, 3, 2)
        own = kind_of(alone).patches(alone, inputs[:, 2 * group : 2 * group + 2])
        assert own is not None
        rows = slice(3 * group, 3 * group + 3)
        assert torch.equal(found[rows].flatten(1), by_loop(conv.weight[rows].flatten(1), own[0], 4))


def test_what_is_pruned_stays_and_counts_and_what_is_never_read_goes_first() -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(4, 10).abs() + 0.1, torch.randn(1, 20, 10)
    read[..., 3] = 0.0
    before = torch.ones(4, 10)
    before[:, 7] = 0.0
    found = decided(WandaPruner("p", {"w": 0.2}), weight, read, before)
    assert (found == 0).nonzero()[:, 1].tolist() == [3, 7] * 4


def test_a_tie_goes_in_the_order_of_the_columns() -> None:
    assert largest_of_each_group(torch.ones(1, 4), 2, 4).tolist() == [[1, 1, 0, 0]]
    assert smallest_of_each_row(torch.ones(2, 4), 4).tolist() == [[0, 0, 1, 1]] * 2
