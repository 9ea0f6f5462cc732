"""Each weight of a trained network is rounded up or down as its layer's output wants it, not to the nearer number.

Nagel et al. 2020 (AdaRound, arXiv 2004.10568): a soft choice for each weight is learned, layer by layer, on what the
layer reads in the quantized network and gave in the float one (section 3.3), and hardens as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raydistill.compression.floats import as_floats
from raydistill.compression.layer_kinds import weighted
from raydistill.compression.quantizers.grid import Grid
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.statistics import Batches
from raydistill.compression.quantizers.watch import Place, computed, given, watching
from raydistill.compression.quantizers.weights import LearnedRounding

_LOW, _HIGH = -0.1, 1.1
"""The sigmoid is stretched over these, so that 0 and 1 are reached (equation 23)."""
_WARM = 0.2
"""Of the steps in which nothing hardens."""
_BETA = (20.0, 2.0)
_POINTS = 16
"""Positions of a map that are taken of each sample."""


@dataclass(frozen=True)
class Learning:
    """How rounding is learned. steps: of Adam for each layer; rate: its learning rate; weight: of what hardens the
    choices, where rounding to the nearest has an error of 1, whatever the layer's size; rows: of the layer's inputs in
    a step. most: rows that are kept of the calibration data."""

    steps: int = 1000
    rate: float = 0.01
    weight: float = 1.0
    rows: int = 256
    most: int = 8192


@dataclass(frozen=True)
class Learned:
    """One layer's rounding. before, after: its output's mean square error, rounded to the nearest and as learned.
    moved: weights that are not rounded to the nearest."""

    weight: str
    before: float
    after: float
    moved: int


def learn_rounding(
    weight: Tensor,
    grid: Grid,
    layer: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    outputs: Tensor,
    learning: Learning,
    generator: torch.Generator,
) -> Tensor:
    """Which weights are rounded up from the number below (bool, of the weight's shape).

    layer: what it gives of (a weight, inputs). inputs, outputs: samples in dimension 0; what the layer reads, and what
    it should give. A weight of zero stays zero.
    """
    scaled = (weight / grid.scale).detach()
    below, rest = torch.floor(scaled), scaled - torch.floor(scaled)
    choice = torch.logit(((rest - _LOW) / (_HIGH - _LOW)).clamp(1e-4, 1 - 1e-4)).requires_grad_()
    fixed = weight == 0
    optimizer = torch.optim.Adam([choice], learning.rate)
    warm = int(learning.steps * _WARM)
    with torch.no_grad():
        scale = (layer(grid.nearest(weight), inputs) - outputs).square().flatten(1).sum(1).mean().clamp(min=1e-12)
    for step in range(learning.steps):
        rows = torch.randint(len(inputs), (min(learning.rows, len(inputs)),), generator=generator).to(inputs.device)
        soft = (torch.sigmoid(choice) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
        numbers = (below + soft + grid.zero_point).clamp(grid.low, grid.high)
        off = layer((numbers - grid.zero_point) * grid.scale, inputs[rows]) - outputs[rows]
        loss = off.square().flatten(1).sum(1).mean() / scale
        if step >= warm:
            done = (step - warm) / max(learning.steps - warm, 1)
            beta = _BETA[1] + 0.5 * (_BETA[0] - _BETA[1]) * (1 + torch.cos(torch.tensor(done * torch.pi)))
            loss = loss + learning.weight * (1 - (2 * soft - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    up = (torch.sigmoid(choice) * (_HIGH - _LOW) + _LOW) >= 0.5
    return (up & ~fixed).detach()


def round_adaptively(
    model: nn.Module, held: Quantization, batches: Batches, learning: Learning | None = None, seed: int = 0
) -> Iterator[Learned]:
    """Layer by layer, in the order in which they run, of a network that is quantized; yields what each gained.

    batches: calibration data. Its weights' quantizers are `LearnedRounding` from then on: `plan.plan_of` has them.
    Weights that several layers share, and those that have no layer of their own, stay as they are.
    """
    learning = learning or Learning()
    generator = torch.Generator().manual_seed(seed)
    for name, place in rounded_layers(model, held, batches):
        module = model.get_submodule(place[0])
        weight = model.get_parameter(name).detach()
        attribute = name.rpartition(".")[2]
        own: Any = held.weight(name)
        grid = own.grid(weight)
        with as_floats(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _, outputs = _samples(model, place, module, batches, learning.most)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the same positions of each map
            inputs, _ = _samples(model, place, module, batches, learning.most)
        layer = _function(module, attribute, inputs)
        with torch.enable_grad():
            up = learn_rounding(weight, grid, layer, inputs, outputs, learning, generator)
        kept = own.kept_grid(weight)
        made = LearnedRounding(own.bits, grid.low, grid.high, list(kept.scale.shape), list(weight.shape))
        made = made.to(weight.device)
        made.take(kept, up)
        with torch.no_grad():
            errors = [float((layer(each(weight), inputs) - outputs).square().mean()) for each in (grid.nearest, made)]
        if errors[1] > errors[0]:  # on few samples the soft optimum may harden badly
            made.take(kept, (torch.round(weight / grid.scale) > torch.floor(weight / grid.scale)) & (weight != 0))
            errors[1] = errors[0]
        held.replace_weight(name, made)
        nearest = grid.numbers(weight)
        yield Learned(name, errors[0], errors[1], int((nearest != made.numbers(weight)).sum()))


def rounded_layers(model: nn.Module, held: Quantization, batches: Batches) -> list[tuple[str, Place]]:
    """The rounded weights of layers that run once, and where, in their order."""
    owners = {}
    for name in held.weight_names():
        path, _, attribute = name.rpartition(".")
        kind = weighted(model.get_submodule(path))
        if kind is not None and attribute == kind.weight:
            owners[path] = name
    ran: list[Place] = []
    with watching(model, lambda place, arguments, result: ran.append(place)), torch.no_grad():
        for inputs in batches():
            model(*inputs)
            break
    found = [(owners[place[0]], place) for place in ran if place[0] in owners and place[1] not in ("attribute",)]
    shared = {name for name, _ in found if sum(other == name for other, _ in found) > 1}
    tied = {id(parameter) for parameter in _more_than_once(model)}
    return [(name, place) for name, place in found if name not in shared and id(model.get_parameter(name)) not in tied]


def _more_than_once(model: nn.Module) -> list[nn.Parameter]:
    seen: dict[int, int] = {}
    parameters = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    for parameter in parameters:
        seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    return [parameter for parameter in parameters if seen[id(parameter)] > 1]


@torch.no_grad()
def _samples(model: nn.Module, place: Place, module: nn.Module, batches: Batches, most: int) -> tuple[Tensor, Tensor]:
    """What a layer reads and gives: as rows of patches where its kind knows them, else as it is."""
    read: list[Tensor] = []
    gave: list[Tensor] = []
    kind = weighted(module)
    assert kind is not None

    def see(at: Place, arguments: Any, result: Any) -> None:
        output = given(result)
        if at != place or output is None:
            return
        inputs = computed(arguments)[0]
        pair = kind.samples(module, inputs, output, _POINTS) or (inputs, output)
        read.append(pair[0])
        gave.append(pair[1])

    with watching(model, see):
        for inputs in batches():
            model(*inputs)
            if sum(len(rows) for rows in read) >= most:
                break
    return torch.cat(read)[:most], torch.cat(gave)[:most]


def _function(module: nn.Module, attribute: str, inputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """What the layer gives of a weight and of such inputs."""
    kind = weighted(module)
    bias = kind.bias_of(module) if kind is not None else None
    if inputs.dim() == 2 and kind is not None and kind.out_dim == 0:
        return lambda weight, rows: nn.functional.linear(
            rows, weight.flatten(1), None if bias is None else bias.detach()
        )
    plain = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def layer(weight: Tensor, rows: Tensor) -> Tensor:
        result: Tensor = functional_call(module, {**plain, attribute: weight}, (rows,))
        return result

    return layer
