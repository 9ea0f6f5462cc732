"""Quantization-aware training: Distiller's losses, outputs and weights; what is rounded between layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers import MENU, NCFQuantAwareTrainQuantizer, QuantAwareTrainRangeLinearQuantizer
from raydistill.compression.quantizers.activations import TrackedRange
from raydistill.compression.quantizers.aware import checked_modes
from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.points import RESULT
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.errors import ConfigError
from tests.compression.quantizers.oracle_nets import Oracles

NUMBERS = range(16)
"""Of the cases of training."""


def trained(oracles: Oracles, number: int, as_distiller: bool) -> tuple[nn.Module, list[float], Tensor]:
    case = oracles.cases["aware"][number]
    net = oracles.network(case["net"])
    batches = [oracles.tensor(name) for name in case["batches"]]
    optimizer = torch.optim.SGD(net.parameters(), lr=case["lr"], momentum=case["momentum"])
    arguments = case["args"]
    if "Range" in case["class"]:
        arguments = {**arguments, "quantize_residuals": False}
    quantizer = MENU[case["class"]]("q", **arguments)
    held = quantizer.plan(net, (batches[0],)).carry_out(net)
    new = list(held.learned())
    if new:
        optimizer.add_param_group({"params": new, **quantizer.optimizer_settings()})
    if as_distiller:
        emulate(net, held)
    losses = []
    net.train()
    for batch in batches:
        output = net(batch)
        loss = output.pow(2).mean() + output.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return net, losses, net.eval()(oracles.tensor(case["input"])).detach()


def emulate(net: nn.Module, held: Quantization) -> None:
    """What Distiller does otherwise. Its quantizer of the inputs is a child of the network, which as a sequence runs
    through it at the end, so the output is rounded by it too. And it compares a pair of modes, of weights and
    activations, with single ones, so that every mode is taken for ASYMMETRIC_UNSIGNED, of weights as well."""
    if len(held.inputs):
        net.register_forward_hook(lambda module, inputs, output: held.inputs[0](output))
    for name in held.weight_names():
        quantizer = held.weight(name)
        if isinstance(quantizer, LinearWeight):
            held.replace_weight(name, LinearWeight(quantizer.bits, "ASYMMETRIC_UNSIGNED", quantizer.axis))


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_distillers_training(compat: Path, number: int) -> None:
    oracles = Oracles.read(compat)
    assert len(oracles.cases["aware"]) == len(NUMBERS)
    case = oracles.cases["aware"][number]
    net, losses, output = trained(oracles, number, as_distiller=True)
    assert losses == pytest.approx(case["losses"], rel=1e-5, abs=1e-5)
    assert float((output - oracles.tensor(case["output"])).abs().max()) < 1e-5
    state = {name: oracles.tensor(array) for name, array in case["state"].items()}
    floats = {name: values for name, values in state.items() if ".float_" in name}
    assert floats
    for name, values in floats.items():
        assert torch.allclose(net.get_parameter(name.replace("float_", "")), values, atol=3e-5)


@pytest.mark.slow
def test_what_is_emulated_is_where_we_differ(compat: Path) -> None:
    """Without it the cases with rounded inputs, or with SYMMETRIC weights, differ, and no others."""
    oracles = Oracles.read(compat)
    for number in NUMBERS:
        case = oracles.cases["aware"][number]
        _, losses, output = trained(oracles, number, as_distiller=False)
        ranges = "Range" in case["class"]
        inputs = ranges and case["args"].get("quantize_inputs", True)
        symmetric = ranges and case["args"].get("mode", "SYMMETRIC") == "SYMMETRIC"
        close = float((output - oracles.tensor(case["output"])).abs().max()) < 1e-5
        assert close or inputs or symmetric
        if not (inputs or symmetric):
            assert losses == pytest.approx(case["losses"], abs=1e-5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        y = y + self.b(y)
        return self.out(torch.cat([y, F.relu(y)], 1))


EXAMPLE = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),)


def points(**arguments: Any) -> set[tuple[str, int]]:
    quantizer = QuantAwareTrainRangeLinearQuantizer("q", 8, 8, **arguments)
    return {(point.name, point.argument) for point, _ in quantizer.plan(Residual(), EXAMPLE).activations}


def test_sums_and_what_goes_into_them_are_rounded_unless_it_is_told_not_to() -> None:
    assert points(quantize_residuals=False) == {("relu_0", RESULT), ("relu_1", RESULT)}
    assert points() >= {("relu_0", RESULT), ("add_0", RESULT), ("add_0", 1), ("cat_0", RESULT)}


def test_inputs_have_bits_of_their_own() -> None:
    plan = QuantAwareTrainRangeLinearQuantizer("q", 4, 4, num_bits_inputs=8).plan(Residual(), EXAMPLE)
    assert [said.args["bits"] for said in plan.inputs] == [8]
    assert not QuantAwareTrainRangeLinearQuantizer("q", 4, 4, quantize_inputs=False).plan(Residual(), EXAMPLE).inputs


def test_per_channel_weights_have_an_axis() -> None:
    plan = QuantAwareTrainRangeLinearQuantizer("q", 8, 4, per_channel_wts=True).plan(Residual(), EXAMPLE)
    assert plan.weights["a.weight"].args["axis"] == 0


def test_collaborative_filtering_rounds_products_and_linear_layers() -> None:
    plan = NCFQuantAwareTrainQuantizer("q", 8, 8).plan(Residual(), EXAMPLE)
    assert {point.name for point, _ in plan.activations} == {"a", "b", "out", "relu_0", "relu_1", "cat_0"}
    assert plan.inputs == ()
    assert all(said.kind == TrackedRange.NAME for _, said in plan.activations)


def test_modes() -> None:
    assert checked_modes("SYMMETRIC") == (Mode.SYMMETRIC, Mode.ASYMMETRIC_UNSIGNED)
    assert checked_modes("SYMMETRIC", None) == (Mode.SYMMETRIC, Mode.SYMMETRIC)
    both = {"weights": "SYMMETRIC_RESTRICTED", "activations": "ASYMMETRIC_SIGNED"}
    assert checked_modes(both) == (Mode.SYMMETRIC_RESTRICTED, Mode.ASYMMETRIC_SIGNED)
    for wrong in ("SYM", {"weights": "SYMMETRIC"}, 3):
        with pytest.raises(ConfigError):
            checked_modes(wrong)
    with pytest.raises(ConfigError, match="ema_decay"):
        QuantAwareTrainRangeLinearQuantizer("q", ema_decay=1.0)
