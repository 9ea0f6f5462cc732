"""A checkpoint's network as it is taken away: thinned, folded, with what is needed to say that it is still the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.analysis.network import Network, read_network
from raydistill.compression.copying import copy_of
from raydistill.compression.deployment import Deployment, deploy, noise
from raydistill.compression.quantizers import quantization_of
from raydistill.compression.sparsity import sparsity
from raydistill.compression.structure import structure_state
from raydistill.errors import ConfigError, Fault
from raydistill.training.checkpoint import without_training
from raydistill.training.inputs import batch_axis

REFERENCE_SAMPLES = 8
"""How many samples the formats are compared on."""


@dataclass(frozen=True)
class Deployed:
    """network: masked, as it was trained. model: as it is delivered; of several outputs it gives the first, or the
    logits. inputs: reference samples; batch_axes: of each, where the samples lie. outputs: what the masked network
    gives for them."""

    network: Network
    model: nn.Module
    deployment: Deployment
    sparsity: float
    inputs: tuple[Tensor, ...]
    batch_axes: tuple[int, ...]
    outputs: Tensor

    @property
    def classes(self) -> list[str]:
        found: list[str] = list(self.network.content.get("classes", []))
        return found

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """As `Preprocessing.to_plain`; None of what reads no images."""
        found: Mapping[str, Any] | None = self.network.content.get("preprocessing")
        return found

    @property
    def input_names(self) -> tuple[str, ...]:
        """In every format that has names."""
        if len(self.inputs) > 1:
            return tuple(f"input_{index}" for index in range(len(self.inputs)))
        return ("images" if self.preprocessing is not None else "input",)

    @property
    def output_name(self) -> str:
        return "logits" if self.classes else "output"

    @property
    def network_itself(self) -> nn.Module:
        """The model without what chooses one of its outputs."""
        return _network_of(self.model)

    @property
    def rounded(self) -> bool:
        """Whether it computes with rounded numbers."""
        held = quantization_of(self.network_itself)
        return held is not None and held.enabled

    def batch(self, rows: int) -> tuple[Tensor, ...]:
        """So many samples: the reference ones, over and over."""
        found = []
        for value, axis in zip(self.inputs, self.batch_axes, strict=True):
            times = -(-rows // value.shape[axis])
            found.append(torch.cat([value] * times, dim=axis).narrow(axis, 0, rows).contiguous())
        return tuple(found)

    def checkpoint(self) -> dict[str, Any]:
        """The content of a checkpoint of what is delivered."""
        content = without_training(self.network.content)
        structure = (*self.network.structure, *self.deployment.changes)
        state = self.network_itself.state_dict()
        return {**content, "model": state, "scheduler": {}, "history": [], "structure": structure_state(structure)}


def deployed(
    checkpoint: str | Path,
    arch: str | None = None,
    inputs: Sequence[Tensor] | None = None,
    example: Callable[[int], tuple[Any, ...]] | None = None,
) -> Deployed:
    """Read a checkpoint, thin its network and fold its batch norms.

    arch: what the user calls it (see `checkpoint.load_model`). inputs: reference samples; None: noise of the shape it
    was trained on. example: gives inputs of so many samples; None: as the checkpoint or its architecture says.

    Raises:
        CheckpointError, ConfigError: it cannot be used.
    """
    network = read_network(Path(checkpoint), arch)
    example = example or network.example_input
    one, two = example(1), example(2)
    if not all(isinstance(value, Tensor) for value in one):
        raise ConfigError(Fault(str(checkpoint), "is of a network whose inputs are not all tensors"))
    axes = tuple(_axis(a, b, str(checkpoint)) for a, b in zip(one, two, strict=True))
    samples = tuple(map(noise, example(REFERENCE_SAMPLES))) if inputs is None else tuple(inputs)
    with torch.no_grad():
        output = network.model(*samples)
    single = first_of(output)
    model = copy_of(network.model)
    done = deploy(model, one)
    if single is not output:
        model = FirstOutput(model).eval()
    return Deployed(network, model, done, sparsity(network.model)[0], samples, axes, single)


class FirstOutput(nn.Module):
    """A network that gives one tensor: the logits of what it gives, or the first part."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return first_of(self.network(*inputs))


def first_of(output: Any) -> Tensor:
    """Raises ConfigError where there is no tensor to be found."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        logits: Tensor = output.logits
        return logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    way_out = "wrap it in a module that gives a tensor"
    raise ConfigError(Fault("export", "the network must give a tensor, or several", type(output).__name__, way_out))


def _network_of(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, FirstOutput) else model


def _axis(one: Tensor, two: Tensor, where: str) -> int:
    axis = batch_axis(one, two)
    if axis is None:
        shapes = [tuple(one.shape), tuple(two.shape)]
        raise ConfigError(Fault(where, "is of a network whose inputs do not show where samples lie", shapes))
    return axis
