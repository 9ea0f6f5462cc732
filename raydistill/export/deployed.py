"""A checkpoint's network as it is taken away: thinned, folded, with what is needed to say that it is still the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from raydistill.export.outputs import Output, OutputKind, Wrapped, kind_of_output, parts
from raydistill.export.outputs.detections import scenes
from raydistill.training.checkpoint import without_training
from raydistill.training.inputs import batch_axis

REFERENCE_SAMPLES = 8
"""How many samples the formats are compared on."""

_FINDS_NOTHING = "it finds nothing in the reference images: hold it against images with raydistill verify"


@dataclass(frozen=True)
class Deployed:
    """network: masked, as it was trained. model: as it is delivered; it gives an `Output` of its kind. inputs:
    reference samples; batch_axes: of each, where the samples lie, None where it takes one at a time. outputs: what the
    masked network gives for them."""

    network: Network
    model: nn.Module
    deployment: Deployment
    sparsity: float
    inputs: tuple[Tensor, ...]
    batch_axes: tuple[int | None, ...]
    outputs: Output
    kind: OutputKind

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
        return self.kind.input_names(len(self.inputs), self.preprocessing is not None)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.kind.output_names(self.outputs, bool(self.classes))

    @property
    def network_itself(self) -> nn.Module:
        """The model without what chooses one of its outputs."""
        return self.model.network if isinstance(self.model, Wrapped) else self.model

    @property
    def rounded(self) -> bool:
        """Whether it computes with rounded numbers."""
        held = quantization_of(self.network_itself)
        return held is not None and held.enabled

    def batch(self, rows: int) -> tuple[Tensor, ...]:
        """So many samples: the reference ones, over and over; one, where the network takes no more."""
        found = []
        for value, axis in zip(self.inputs, self.batch_axes, strict=True):
            if axis is None:
                found.append(value)
                continue
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
    axes: tuple[int | None, ...] = tuple(_axis(a, b, str(checkpoint)) for a, b in zip(one, two, strict=True))
    with torch.no_grad():
        output = network.model(*map(noise, one))
    kind = kind_of_output(output)
    model = copy_of(network.model)
    done = deploy(model, one)
    masked = network.model
    if not isinstance(output, Tensor):
        model, masked = kind.delivered(model), kind.delivered(masked)
    if inputs is not None:
        choices = iter([tuple(inputs)])
    elif kind.BATCHED:
        choices = iter([tuple(map(noise, example(REFERENCE_SAMPLES)))])
    else:
        choices = ((image,) for image in scenes(*one[0].shape[-2:]))
    axes = axes if kind.BATCHED else (None,)
    for samples in choices:
        with torch.no_grad():
            outputs = masked(*samples)
        if any(map(torch.numel, parts(outputs))):
            break
    else:
        done = replace(done, notes=(*done.notes, _FINDS_NOTHING))
    return Deployed(network, model, done, sparsity(network.model)[0], samples, axes, outputs, kind)


def _axis(one: Tensor, two: Tensor, where: str) -> int:
    axis = batch_axis(one, two)
    if axis is None:
        shapes = [tuple(one.shape), tuple(two.shape)]
        raise ConfigError(Fault(where, "is of a network whose inputs do not show where samples lie", shapes))
    return axis
