"""LSQ as a quantizer of a schedule: what it rounds, signs, groups of the optimizer, thinning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers import LSQQuantizer, detach
from raydistill.compression.structure import Quantized, Selection, Thinned
from raydistill.compression.structure.cut import cut
from raydistill.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        both = torch.cat([y + F.gelu(self.other(y)), F.max_pool2d(y, 1)], 1)
        return self.fc(both.mean((2, 3)))


EXAMPLE = (torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)),)


def planned(**arguments: Any) -> dict[tuple[str, int], tuple[int, bool]]:
    plan = LSQQuantizer("q", **{"bits_activations": 3, "bits_weights": 3, **arguments}).plan(Net(), EXAMPLE)
    return {(at.name, at.argument): (said.args["bits"], said.args["signed"]) for at, said in plan.activations}


def test_what_cannot_be_negative_has_no_sign() -> None:
    found = planned()
    assert found[("relu_0", -1)] == (3, False)
    assert found[("gelu_0", -1)] == (3, True)
    assert found[("add_0", -1)] == (3, True)
    assert found[("cat_0", -1)] == (3, True)
    assert set(planned(quantize_residuals=False)) == {("relu_0", -1), ("gelu_0", -1)}
    assert planned(overrides={"gelu_0": {"bits_activations": 8}})[("gelu_0", -1)] == (8, True)


def test_weights_biases_and_inputs() -> None:
    quantizer = LSQQuantizer(
        "q", 4, 3, 8, per_channel_wts=True, num_bits_inputs=8, overrides={"fc": {"bits_weights": 8}}
    )
    plan = quantizer.plan(Net(), EXAMPLE)
    assert dict(plan.weights["conv.weight"].args) == {"bits": 3, "axis": 0, "channels": 6}
    assert dict(plan.weights["fc.weight"].args) == {"bits": 8, "axis": 0, "channels": 4}
    assert plan.weights["fc.bias"].kind == "linear"
    assert [dict(said.args) for said in plan.inputs] == [{"bits": 8, "signed": True}]
    assert LSQQuantizer("q", 4, 3, quantize_inputs=False).plan(Net(), EXAMPLE).inputs == ()
    assert LSQQuantizer("q", bits_weights=3).plan(Net(), EXAMPLE).activations == ()


def test_steps_are_a_group_of_the_optimizers_own() -> None:
    assert LSQQuantizer("q", 4, 4).optimizer_settings() == {"weight_decay": 0.0}
    assert LSQQuantizer("q", 4, 4, step_decay=0.1).optimizer_settings() == {"weight_decay": 0.1}
    assert LSQQuantizer("q", 4, 4, step_decay=None).optimizer_settings() == {}
    with pytest.raises(ConfigError, match="step_decay"):
        LSQQuantizer("q", 4, 4, step_decay=-1.0)
    with pytest.raises(ConfigError, match="bits_weights: must be a whole number from 2"):
        LSQQuantizer("q", 4, 1)


@pytest.mark.slow
def test_training_moves_the_steps_and_makes_the_rounding_error_less() -> None:
    """A step that is far too wide for what is rounded comes down by its own gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16, bias=False))
    wanted = net[0].weight.detach().clone()
    held = LSQQuantizer("q", None, 4).plan(net, (torch.ones(1, 16),)).carry_out(net)
    steps = held.weight("0.weight").steps
    steps.begin(torch.full((1,), 0.5))
    optimizer = torch.optim.SGD(held.learned(), 0.01)
    losses = []
    for _ in range(300):
        loss = (net(torch.eye(16)) - wanted.T).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    best = min(
        float((torch.round(wanted / step).clamp(-8, 7) * step - wanted).square().sum())
        for step in torch.linspace(0.005, 0.2, 400)
    )
    assert losses[0] > 20 * best
    assert losses[-1] < 1.2 * best


def test_a_channels_step_goes_with_it_and_the_change_can_be_made_again() -> None:
    model = Net()
    change = Quantized(LSQQuantizer("q", None, 3, per_channel_wts=True).plan(model, EXAMPLE))
    change.apply(model)
    held = model.quantization
    steps = held.weight("conv.weight").steps
    steps.begin(torch.arange(1.0, 7.0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    steps.size.grad = torch.arange(6.0)
    optimizer.step()
    before = steps.size.detach().clone()
    stays = torch.tensor([0, 2, 5])
    done = cut(model, {"conv": (stays, None), "other": (None, stays)}, optimizer)
    assert torch.equal(steps.size, before[stays])
    assert torch.equal(optimizer.state[steps.size]["momentum_buffer"], torch.tensor([0.0, 2.0, 5.0]))
    assert torch.equal(done["quantization.weights.conv/weight.steps.size"](before), before[stays])
    assert held.weight("conv.weight").described()["channels"] == 3
    assert len(held.weight("other.weight").steps.size) == 6
    fresh = Net()
    kept = Selection(6, (0, 2, 5))
    for again in (change, Thinned({"conv": kept}, {"other": kept})):
        again.apply(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.quantization.weight("conv.weight").steps.size, steps.size)
    detach(model)
    assert not any("quantization" in name for name, _ in model.named_parameters())
