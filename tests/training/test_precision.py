"""Which precision a run has, and that finding it out leaves no trace."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError, DataError
from raydistill.training.precision import choose, flattened, has_bf16

CPU = torch.device("cpu")
IMAGES = (torch.zeros(2, 3, 2, 2),)


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 5))


class Fails(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.layer, self.error = nn.Linear(2, 2), error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


class Waits(nn.Module):
    """In bf16, or everywhere else."""

    def __init__(self, in_bf16: bool) -> None:
        super().__init__()
        self.layer, self.in_bf16 = nn.Linear(2, 2), in_bf16

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu") == self.in_bf16:
            time.sleep(0.01)
        return self.layer(images.flatten()[:2])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch computes in bf16 on processors without it too, slowly; only there `choose` would not try."""
    monkeypatch.setattr("raydistill.training.precision.has_bf16", lambda device: True)


@pytest.mark.usefixtures("measured")
def test_auto_is_a_precision_and_leaves_the_random_state_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert choose("auto", model, CPU, IMAGES, deterministic=False) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    assert choose("auto", model, CPU, IMAGES, deterministic=True) == "fp32"
    assert choose("bf16", model, CPU, IMAGES, deterministic=True) == "bf16"


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("slow_in_bf16", "chosen"), [(True, "fp32"), (False, "bf16")])
def test_the_faster_one_is_taken(slow_in_bf16: bool, chosen: str) -> None:
    assert choose("auto", Waits(slow_in_bf16), CPU, IMAGES, deterministic=False) == chosen


@pytest.mark.usefixtures("measured")
def test_a_run_that_is_to_have_the_same_bits_does_not_look_at_a_clock() -> None:
    assert choose("auto", Fails(KeyError("x")), CPU, IMAGES, deterministic=True) == "fp32"


@pytest.mark.usefixtures("measured")
def test_the_network_that_is_measured_is_a_copy() -> None:
    model = small().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose("auto", model, CPU, IMAGES, deterministic=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


@pytest.mark.usefixtures("measured")
def test_a_network_that_takes_more_than_inputs_is_measured_by_its_loss() -> None:
    asked: list[bool] = []

    def loss(network: nn.Module) -> Tensor:
        asked.append(network.training)
        return network(torch.ones(2, 12)).sum()

    assert choose("auto", small(), CPU, (), deterministic=False, loss=loss) in ("fp32", "bf16")
    assert asked
    assert all(asked)


@pytest.mark.usefixtures("measured")
def test_a_network_that_fails_is_one_line() -> None:
    line = r"^precision: cannot be measured: a step .* fails \(KeyError: 'boxes'\); say fp32 or bf16$"
    with pytest.raises(ConfigError, match=line):
        choose("auto", Fails(KeyError("boxes")), CPU, IMAGES, deterministic=False)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("error", [DataError("an image is gone"), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_is_said_plainly_already_and_memory_that_ran_out_come_out_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=f"^{error}$"):
        choose("auto", Fails(error), CPU, IMAGES, deterministic=False)


def test_where_there_is_no_bf16_nothing_is_measured() -> None:
    meta = torch.device("meta")
    assert not has_bf16(meta)
    assert choose("auto", Fails(KeyError("x")), meta, IMAGES, deterministic=False) == "fp32"


def test_an_unknown_one_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^precision: is not known, got 'bf61'; did you mean 'bf16'"):
        choose("bf61", small(), CPU, IMAGES, deterministic=True)


def test_outputs_of_any_nesting_are_found_in_their_order() -> None:
    one, two, three = (torch.full((1,), value) for value in (1.0, 2.0, 3.0))
    output: dict[str, Any] = {"logits": one, "rest": [("name", two), {"deep": three, "none": None}]}
    assert [float(found) for found in flattened(output)] == [1.0, 2.0, 3.0]
