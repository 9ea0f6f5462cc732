"""Steps of the optimizer, held against what torch does when it is told each part by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.parts import Optimizer
from raydistill.tasks import TRAIN, Loading
from raydistill.training.stepping import Stepping
from tests.tasks.own import Line

CPU = torch.device("cpu")


def begun(lr: float = 0.1, **said: Any) -> tuple[nn.Module, torch.optim.Optimizer, Stepping]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return model, optimizer, Stepping(model, optimizer, Optimizer(**said), CPU)


def test_minibatches_are_parts_of_steps() -> None:
    """Seven, three a step: the last step has one."""
    _, _, stepping = begun(accumulate=3)
    assert stepping.steps(7) == 3
    assert [stepping.place(index, 7) for index in range(7)] == [
        (0, True, False), (0, False, False), (0, False, True), (1, True, False), (1, False, False), (1, False, True),
        (2, True, True),
    ]  # fmt: skip


def test_rows_of_a_step_are_those_of_its_minibatches() -> None:
    _, _, stepping = begun(accumulate=3)
    feed = Line().feed(TRAIN, Loading(CPU, 20))  # 85 rows: 20, 20, 20, 20, 5
    assert [stepping.rows(feed, index, feed.batches) for index in range(5)] == [60, 60, 60, 25, 25]


@pytest.mark.parametrize(
    ("said", "cut"),
    [
        ({}, lambda p: None),
        ({"clip_norm": 0.5}, lambda p: nn.utils.clip_grad_norm_(p, 0.5)),
        ({"clip_value": 0.1}, lambda p: nn.utils.clip_grad_value_(p, 0.1)),
    ],
)
def test_gradients_are_cut_before_the_step(said: dict[str, float], cut: Any) -> None:
    model, _, stepping = begun(**said)
    other, optimizer, _ = begun()
    for network in (model, other):
        network(torch.ones(4, 3)).square().sum().backward()
    stepping.step(1.0)
    cut(list(other.parameters()))
    optimizer.step()
    assert torch.equal(model.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("done", "share"), [(0.5, 0.25), (1.0, 0.5), (2.0, 1.0), (3.5, 1.0)])
def test_the_rate_rises_for_the_step_only(done: float, share: float) -> None:
    model, optimizer, stepping = begun(warmup_epochs=2.0)
    before = model.weight.detach().clone()  # type: ignore[operator]
    model.weight.grad = torch.ones_like(before)
    stepping.step(done)
    torch.testing.assert_close(before - model.weight.detach(), torch.full_like(before, 0.1 * share))  # type: ignore[operator]
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert stepping.learning_rate == pytest.approx(0.1 * share)


def test_the_rate_is_put_back_where_the_step_fails() -> None:
    model, optimizer, stepping = begun(warmup_epochs=2.0)
    model.weight.grad = torch.ones(2, 3).to_sparse()
    optimizer.param_groups[0]["weight_decay"] = "a number"
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever torch says
        stepping.step(0.5)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("said", "plain"),
    [({}, True), ({"ema": 0.9}, True), ({"warmup_epochs": 1.0}, True), ({"accumulate": 2}, False),
     ({"clip_norm": 1.0}, False), ({"clip_value": 1.0}, False)],
)  # fmt: skip
def test_a_step_is_plain_where_only_the_optimizer_touches_gradients(said: dict[str, Any], plain: bool) -> None:
    _, _, stepping = begun(**said)
    assert stepping.plain is plain
    stepping.compute_in("fp16")
    assert stepping.plain is False


def test_scaled_gradients_are_their_own_size_before_the_step() -> None:
    model, _, stepping = begun()
    stepping.compute_in("fp16")
    loss = model(torch.ones(4, 3)).sum()
    scaled = stepping.scaled(loss)
    assert float(scaled.detach()) == pytest.approx(float(loss.detach()) * 65536)  # torch's first scale
    scaled.backward()
    assert torch.equal(model.weight.grad, torch.full((2, 3), 4.0 * 65536))  # type: ignore[arg-type]
    stepping.gradients_are_whole()
    assert torch.equal(model.weight.grad, torch.full((2, 3), 4.0))  # type: ignore[arg-type]
    before = model.weight.detach().clone()  # type: ignore[operator]
    stepping.step(1.0)
    torch.testing.assert_close(model.weight.detach(), before - 0.4)  # type: ignore[operator]


def test_a_step_that_overflows_is_left_out_and_the_scale_halved() -> None:
    model, _, stepping = begun()
    stepping.compute_in("fp16")
    before = model.weight.detach().clone()  # type: ignore[operator]
    stepping.backward((model(torch.ones(4, 3)) * 1e38).sum())
    stepping.gradients_are_whole()
    stepping.step(1.0)
    assert torch.equal(model.weight, before)  # type: ignore[arg-type]
    assert stepping.state_dict()["scaler"]["scale"] == 32768


def test_the_scale_is_kept_and_taken_up_and_dropped_in_another_precision() -> None:
    model, _, first = begun()
    first.compute_in("fp16")
    first.backward((model(torch.ones(4, 3)) * 1e38).sum())
    first.gradients_are_whole()
    first.step(1.0)
    _, _, second = begun()
    second.load_state_dict(first.state_dict())  # without a scale of its own there is nothing to take up
    assert second.state_dict() == {}
    second.compute_in("fp16")
    second.load_state_dict({})
    assert second.state_dict()["scaler"]["scale"] == 65536
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    second.compute_in("fp16")  # the same once more
    assert second.state_dict() == first.state_dict()
    second.compute_in("bf16")
    assert second.state_dict() == {}
    loss = torch.ones(())
    assert second.scaled(loss) is loss
