"""Formats that hold weights: the network is built again from what its factory is called, and takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.export.formats.base import Runner
from raydistill.export.outputs import Output
from raydistill.files import write_atomically
from raydistill.training.checkpoint import model_of

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

CONFIG = "config.json"
"""Beside the weights: architecture, arguments and changes."""

_KEPT = ("num_classes", "sizes", "image_shape")


def write_config(network: Deployed, folder: Path) -> None:
    content = network.checkpoint()
    run = {key: content["run"][key] for key in ("arch", "model_args")}
    said = {"run": run, **{key: content[key] for key in _KEPT if key in content}, "structure": content["structure"]}
    write_atomically(folder / CONFIG, json.dumps(said, default=_plain, indent=1) + "\n")


def rebuilt(folder: Path, state: Mapping[str, Tensor], where: str, manifest: Manifest, arch: str | None) -> Runner:
    """The network of `CONFIG` with these weights.

    Raises:
        CheckpointError, ConfigError: they do not fit, or it cannot be built here.
    """
    path = folder / CONFIG
    try:
        said = json.loads(path.read_bytes())
        content = {**said, "model": dict(state), "run": {**said["run"], "model_args": dict(said["run"]["model_args"])}}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        rule = f"does not say how the network is built ({error})"
        raise CheckpointError(Fault(str(path), rule, ABSENT, "export it again")) from error
    return run_in_torch(model_of(content, where, arch), manifest)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(Fault(str(path), f"cannot be read ({error})", ABSENT, "export it again")) from error


def use_rebuilt(manifest: Manifest, form: str) -> tuple[str, ...]:
    """Lines of Python that run it, in the folder."""
    return (
        "from raydistill.export import load",
        f'network = load(".", "{form}"{own_arch(manifest)})',
        f"{', '.join(port.name for port in manifest.outputs)} = network(({manifest.inputs[0].name},))",
    )


def own_arch(manifest: Manifest) -> str:
    """The argument by which a user names a factory of their own."""
    return f', arch="{manifest.arch}"' if ":" in manifest.arch else ""


def run_in_torch(model: torch.nn.Module, manifest: Manifest) -> Runner:
    delivered = manifest.kind.delivered(model)

    def run(inputs: Sequence[Tensor]) -> Output:
        with torch.no_grad():
            output: Output = delivered(*inputs)
        return output

    return run


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain value")
