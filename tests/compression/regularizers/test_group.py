from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.regularizers import MENU, GroupLassoRegularizer, GroupVarianceRegularizer, L1Regularizer
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule

CONV = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
MATRIX = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
CASES = {
    "L1Regularizer": {"reg_regims": {"w": 0.3}},
    "GroupLassoRegularizer": {"reg_regims": {"w": [0.3, "Channels"]}},
    "GroupVarianceRegularizer": {"reg_regims": {"w": [0.3, "Channels"]}},
}


def test_every_regularizer_is_in_this_suite() -> None:
    coupled = {"CoupledGroupLassoRegularizer", "GrowingRegularizer"}  # not of one weight: see test_coupled
    assert set(CASES) == set(MENU) - coupled


@pytest.mark.parametrize("name", CASES)
def test_the_term_is_a_scalar_added_to_the_loss_with_a_finite_gradient_even_at_zero(name: str) -> None:
    regularizer = MENU[name]("r", **CASES[name])
    for start in (CONV.double(), torch.zeros_like(CONV).double()):
        weight = start.clone().requires_grad_()
        loss = regularizer.loss({"w": weight}, torch.tensor(2.0, dtype=torch.float64))
        assert (loss.shape, loss.dtype) == ((), torch.float64)
        assert float(loss.detach()) > 2.0 or not start.any()
        loss.backward()
        assert weight.grad is not None
        assert bool(torch.isfinite(weight.grad).all())


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    regularizer = MENU[name]("r", **CASES[name])
    weight = CONV.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: regularizer.loss({"w": w}, torch.zeros((), dtype=torch.float64)), weight)


@pytest.mark.parametrize(
    ("group_type", "weight", "expected"),
    [
        ("2D", CONV, lambda w: np.sqrt((w**2).sum((2, 3))).sum()),
        ("3D", CONV, lambda w: np.sqrt((w**2).sum((1, 2, 3))).sum()),
        ("4D", CONV, lambda w: np.sqrt((w**2).sum())),
        ("Channels", CONV, lambda w: np.sqrt((w**2).sum((0, 2, 3))).sum()),
        ("Rows", MATRIX, lambda w: np.sqrt((w**2).sum(1)).sum()),
        ("Cols", MATRIX, lambda w: np.sqrt((w**2).sum(0)).sum()),
        ("Rows+Cols", MATRIX, lambda w: np.sqrt((w**2).sum(1)).sum() + np.sqrt((w**2).sum(0)).sum()),
        ("4D+Channels", CONV, lambda w: np.sqrt((w**2).sum()) + np.sqrt((w**2).sum((0, 2, 3))).sum()),
    ],
)
def test_group_lasso_is_numpys_sum_of_norms(group_type: str, weight: Tensor, expected) -> None:
    term = GroupLassoRegularizer("r", {"w": [0.7, group_type]}).term("w", weight)
    assert float(term) == pytest.approx(0.7 * expected(weight.numpy()), rel=1e-6)


def test_variance_is_one_over_the_sample_variance_of_channel_norms() -> None:
    norms = np.sqrt((CONV.numpy() ** 2).sum((0, 2, 3)))
    term = GroupVarianceRegularizer("r", {"w": [0.7, "Channels"]}).term("w", CONV)
    assert float(term) == pytest.approx(0.7 / norms.var(ddof=1), rel=1e-6)


def test_thresholds_compare_with_the_strength() -> None:
    weight = torch.tensor([[0.1, 0.5], [0.05, 0.2]])
    mean = GroupLassoRegularizer("r", {"w": [0.2, "Rows"]}, "Mean_Abs")
    largest = GroupLassoRegularizer("r", {"w": [0.2, "Rows"]}, "Max")
    assert mean.threshold_mask("w", weight).tolist() == [[1, 1], [0, 0]]
    assert largest.threshold_mask("w", -weight).tolist() == [[1, 1], [0, 0]], "0.2 is not above 0.2"
    assert L1Regularizer("r", {"w": 0.1}, "Max").threshold_mask("w", weight).tolist() == [[0, 1], [0, 1]]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))

    def forward(self) -> Tensor:
        return (self.weight * 0).sum()


def trained(args: dict, epochs: int, criterion: str | None = "Mean_Abs"):
    model = Pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    body = {"class": "GroupLassoRegularizer", "reg_regims": {"weight": [0.5, "Rows"]}}
    if criterion:
        body["threshold_criteria"] = criterion
    policy = {"regularizer": {"instance_name": "r", "args": args}, "starting_epoch": 0, "ending_epoch": 2}
    mapping = {"regularizers": {"r": body}, "policies": [{**policy, "frequency": 1}]}
    scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
    seen = []
    for epoch in range(epochs):
        scheduler.on_epoch_begin(epoch)
        scheduler.on_minibatch_begin(epoch, 0, 1)
        loss = scheduler.before_backward(epoch, 0, 1, model())
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(epoch, 0, 1)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1)
        scheduler.on_epoch_end(epoch)
        seen.append((float(loss.detach()), copy.deepcopy(model.weight.tolist())))
    return seen, model, scheduler


def test_a_policy_adds_the_term_in_its_epochs_only_and_zeroes_what_is_small() -> None:
    # Norms 5 and 1: the loss is 0.5 * (5 + 1). Each row's gradient is 0.5 * row / norm, so rows shrink by 0.5.
    seen, _, scheduler = trained({}, 3)
    assert seen[0] == (pytest.approx(3.0), [pytest.approx([2.7, 3.6]), [0.0, 0.0]])  # row 2: 0.3, 0.4: mean 0.35
    assert seen[1][0] == pytest.approx(0.5 * 4.5)
    assert seen[2] == (0.0, seen[1][1])
    assert scheduler.masks.names() == ()


def test_without_a_criterion_nothing_is_zeroed() -> None:
    seen, _, _ = trained({}, 1, None)
    assert seen[0][1][1] == pytest.approx([0.3, 0.4])


def test_keep_mask_holds_the_zeros_after_the_last_epoch() -> None:
    _, model, scheduler = trained({"keep_mask": True}, 2)
    assert scheduler.masks["weight"].tolist() == [[1, 1], [0, 0]]
    with torch.no_grad():
        model.weight.fill_(1.0)
    scheduler.on_minibatch_end(9, 0, 1)
    assert model.weight.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("L1Regularizer", {"reg_regims": {"w": [0.1, "2D"]}}, "reg_regims.w: the strength must be a number"),
        ("L1Regularizer", {"reg_regims": {}}, "reg_regims: must map"),
        ("GroupLassoRegularizer", {"reg_regims": {"w": 0.1}}, "reg_regims.w: must be [strength, group type]"),
        ("GroupLassoRegularizer", {"reg_regims": {"w": [-1, "2D"]}}, "the strength must be a number from 0 up"),
        ("GroupLassoRegularizer", {"reg_regims": {"w": [1, "Channel"]}}, "did you mean 'Channels'?"),
        (
            "GroupLassoRegularizer",
            {"reg_regims": {"w": [1, "2D"]}, "threshold_criteria": "Mean"},
            "threshold_criteria: must be one of Mean_Abs, Max, or left out, got 'Mean'",
        ),
        ("GroupVarianceRegularizer", {"reg_regims": {"w": [1, "2D"]}}, "the group type must be Channels"),
    ],
)
def test_wrong_arguments_are_one_line(name: str, args: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MENU[name]("r", **args)
    assert says in str(caught.value)
