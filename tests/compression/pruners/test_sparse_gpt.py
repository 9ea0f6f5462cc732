"""Weights that make good what leaving others out adds: a numpy reference that inverts anew at each step, and least
squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.calibration import DAMPING
from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.pruners import Moment, SparseGPTPruner
from raydistill.compression.pruners.sparse_gpt import sparse_gpt
from raydistill.compression.pruners.wanda import smallest_of_each_row, wanda_scores
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError

NOW = PolicyTime(0, 0, 1, 1)


def together(samples: int, columns: int, seed: int = 0) -> Tensor:
    """Inputs that go together, so that one weight can stand for another; some are louder than others."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    mixed = common @ torch.randn(3, columns, generator=generator, dtype=torch.float64)
    own = torch.randn(samples, columns, generator=generator, dtype=torch.float64)
    return (mixed + 0.5 * own) * (0.2 + torch.rand(columns, generator=generator, dtype=torch.float64))


def weights(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(rows: Tensor, pruned: Tensor, read: Tensor) -> float:
    return float((read @ (pruned - rows).T).square().sum())


def reference(weight: np.ndarray, hessian: np.ndarray, count: int, block: int) -> np.ndarray:
    """Algorithm 1, with the inverse of what is left of H worked out anew at every column."""
    hessian = hessian + DAMPING * np.diag(hessian).mean() * np.eye(len(hessian))
    left, columns = weight.copy(), weight.shape[1]
    keep = np.ones_like(left, dtype=bool)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        costs = np.stack([left[:, j] ** 2 / np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(start, end)], axis=1)
        due = round(count * end / columns) - round(count * start / columns)
        chosen = np.unravel_index(np.argsort(costs, axis=None, kind="stable")[:due], costs.shape)
        keep[chosen[0], chosen[1] + start] = False
        for j in range(start, end):
            inverse = np.linalg.inv(hessian[j:, j:])
            for row in np.flatnonzero(~keep[:, j]):
                left[row, j:] -= left[row, j] / inverse[0, 0] * inverse[0]
    return left * keep


@pytest.mark.parametrize(("columns", "block"), [(9, 128), (24, 8), (23, 5)])
def test_it_is_the_papers_rule(columns: int, block: int) -> None:
    read, rows = together(200, columns), weights(4, columns)
    hessian, count = read.T @ read, 2 * columns
    keep, found = sparse_gpt(rows, hessian, count, block=block)
    expected = reference(rows.numpy(), hessian.numpy(), count, block)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)
    assert np.array_equal(keep.numpy() != 0, expected != 0)
    assert int((keep == 0).sum()) == count


def test_with_all_pruned_columns_first_it_is_least_squares() -> None:
    """Every weight that stays comes after all that go, so nothing is given up: the damped normal equations' own."""
    read, rows = together(300, 10), weights(3, 10)
    mask = torch.ones(3, 10, dtype=torch.float64)
    mask[:, :4] = 0.0
    hessian = read.T @ read
    _, found = sparse_gpt(rows, hessian, 12, mask=mask)
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(10, dtype=torch.float64)
    fitted = torch.linalg.solve(damped[4:, 4:], damped[4:] @ rows.T).T
    torch.testing.assert_close(found[:, 4:], fitted)
    assert bool((found[:, :4] == 0).all())


def test_it_lies_between_the_mask_alone_and_least_squares() -> None:
    read, rows = together(300, 16), weights(5, 16)
    mask, found = sparse_gpt(rows, read.T @ read, 40, damping=1e-9)
    exact = torch.zeros_like(rows)
    for row in range(5):
        kept = mask[row] != 0
        exact[row, kept] = torch.linalg.lstsq(read[:, kept], read @ rows[row]).solution
    lowest, highest = error(rows, exact, read), error(rows, rows * mask, read)
    assert lowest * (1 - 1e-9) <= error(rows, found, read) < 0.5 * highest


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.5, 0.75])
def test_its_error_is_below_that_of_other_masks(seed: int, level: float) -> None:
    read, rows = together(400, 32, seed), weights(8, 32, seed + 50)
    count = int(level * rows.numel())
    _, found = sparse_gpt(rows, read.T @ read, count, block=8)
    wanda = rows * smallest_of_each_row(wanda_scores(rows, read.square().sum(0, keepdim=True)), count)
    magnitude = rows * smallest_of_each_row(rows.abs(), count)
    errors = [error(rows, pruned, read) for pruned in (found, wanda, magnitude)]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize(("n", "m", "block"), [(2, 4, 128), (4, 8, 12), (1, 3, 2)])
def test_every_group_of_every_row_keeps_n(n: int, m: int, block: int) -> None:
    read, rows = together(200, 24), weights(6, 24)
    keep, found = sparse_gpt(rows, read.T @ read, 0, (n, m), block=block)
    assert bool((keep.reshape(-1, m).sum(1) == n).all())
    assert torch.equal(found != 0, keep != 0)
    by_magnitude = torch.zeros_like(rows).reshape(-1, m)
    by_magnitude.scatter_(1, rows.abs().reshape(-1, m).topk(n).indices, 1.0)
    assert error(rows, found, read) < error(rows, rows * by_magnitude.reshape(rows.shape), read)


def test_inputs_that_are_copies_or_never_read_do_not_stop_it() -> None:
    read, rows = together(50, 8), weights(3, 8)
    read[:, 1], read[:, 5] = read[:, 0], 0.0
    keep, found = sparse_gpt(rows, read.T @ read, 8, damping=1e-12)
    assert bool(found.isfinite().all())
    assert keep[:, 5].tolist() == [0.0] * 3, "what is never read goes first"
    nothing, same = sparse_gpt(rows, torch.zeros(8, 8, dtype=torch.float64), 4)
    assert int((nothing == 0).sum()) == 4
    assert torch.equal(same, rows * nothing)


def test_what_is_pruned_stays_so_and_counts() -> None:
    read, rows = together(100, 12), weights(4, 12)
    before = torch.ones(4, 12)
    before[:, 9:] = 0.0
    keep, found = sparse_gpt(rows, read.T @ read, 24, before=before, block=4)
    assert bool((found[:, 9:] == 0).all())
    assert int((keep == 0).sum()) == 24 + 12 - 8, "the last block had 12 already, its share is 8"
    again = torch.ones(4, 12)
    again[:, :6] = 0.0
    assert bool((sparse_gpt(rows, read.T @ read, 24, before=again)[0] == again).all())


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_convolution_it_lowers_the_outputs_error(groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 6, 3, padding=1, groups=groups, bias=False)
    maps = nn.functional.avg_pool2d(torch.randn(16, 8, 10, 10), 3, 1)
    read = kind_of(conv).patches(conv, maps)
    assert read is not None
    pruner = SparseGPTPruner("p", {"w": 0.6})
    mask, values = pruner.settled("w", conv.weight, (read.transpose(1, 2) @ read).double(), None)
    assert values is not None
    assert int((mask == 0).sum()) == int(0.6 * conv.weight.numel())
    expected = conv(maps)

    def off(weight: Tensor) -> float:
        found = nn.functional.conv2d(maps, weight, padding=1, groups=groups)
        return float((found - expected).square().mean())

    assert off(values) < 0.7 * off(conv.weight * mask)


def test_the_pruner_decides_the_same_as_the_function() -> None:
    read, rows = together(100, 8), weights(4, 8).float()
    sums = (read.T @ read).unsqueeze(0)
    pruner = SparseGPTPruner("p", weights=["w"], n=2, m=4)
    keep, found = sparse_gpt(rows, sums[0], 0, (2, 4))
    assert torch.equal(pruner.masks({"w": rows}, Moment(NOW, {}, {"w": sums}))["w"], keep)
    assert torch.equal(pruner.settled("w", rows, sums, None)[1], found)


@pytest.mark.parametrize("wrong", [{"damping": 0}, {"damping": 2}, {"block": 0}, {"block": True}])
def test_arguments_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SparseGPTPruner("p", {"w": 0.5}, **wrong)  # type: ignore[arg-type]
