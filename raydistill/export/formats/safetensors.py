"""Weights as a safetensors file, and a module of plain PyTorch that takes them, where the network can be written so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import nn

from raydistill.compression.storage import restored, stored
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.rebuilt import CONFIG, read_weights, rebuilt, use_rebuilt, write_config
from raydistill.export.outputs import parts
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE, _SOURCE = "model.safetensors", "network.py"
_KNOWN = {"inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree", "getattr"}
_MODULES = ("math", "operator")
_AGREES = 1e-4
_CHECK_S = 120.0
_ALONE = f"""
import sys
sys.path.insert(0, sys.argv[1])
import torch
from safetensors.torch import load_file, save_file
from {_SOURCE.removesuffix(".py")} import Network
network = Network()
network.load_state_dict(load_file(sys.argv[1] + "/{_FILE}"))
given = load_file(sys.argv[2])
inputs = [given[str(index)] for index in range(len(given))]
with torch.no_grad():
    save_file({{"output": network.eval()(*inputs).contiguous()}}, sys.argv[3])
"""


class Safetensors(Format):
    NAME: ClassVar[str] = "safetensors"
    RUNTIME: ClassVar[str] = "torch"
    ABOUT: ClassVar[str] = "weights, and a module of plain PyTorch that takes them where there can be one"

    def check(self, where: str) -> None:
        return

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        write_config(network, folder)
        state = stored(network.network_itself, network.checkpoint()["model"])
        # a copy of each: safetensors wants no two that share memory
        write_atomically(
            folder / _FILE, save({name: t.clone().contiguous() for name, t in state.items()}, {"format": "pt"})
        )
        source = plain_source(network.model)
        if source:
            write_atomically(folder / _SOURCE, source)
            if not _works_alone(network, folder):
                (folder / _SOURCE).unlink()
        return tuple(name for name in (_FILE, CONFIG, _SOURCE) if (folder / name).exists())

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        path = folder / _FILE
        return rebuilt(folder, restored(read_weights(path), str(path)), str(path), manifest, arch)

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name, output = manifest.inputs[0].name, manifest.output.name
        if _SOURCE in manifest.file_names:
            return (
                "from network import Network; from safetensors.torch import load_file",
                f'network = Network().eval(); network.load_state_dict(load_file("{_FILE}"))',
                f"{output} = network({name})",
            )
        return use_rebuilt(manifest, self.NAME)


def plain_source(model: nn.Module) -> str:
    """A Python file with a class ``Network`` that computes the same from the same state dict with torch alone; "" where
    torch.fx cannot follow the model, or where it has layers or tensors that are not torch's."""
    try:
        graph = torch.fx.symbolic_trace(model)
        for node in graph.graph.nodes:
            node.type = None  # annotations name classes that the file does not know
        code = graph.graph.python_code("self")
    except Exception:  # a model may refuse to be followed in any way
        return ""
    layers: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            return ""
        if node.op == "call_module":
            layer = graph.get_submodule(str(node.target))
            text = repr(layer)
            if getattr(nn, type(layer).__name__, None) is not type(layer) or "\n" in text:
                return ""
            layers[str(node.target)] = f"nn.{text}"
    if not set(layers) >= {name.rpartition(".")[0] for name in model.state_dict()}:
        return ""
    if "pytree" in code.src or not set(code.globals) <= _KNOWN | set(_MODULES):
        return ""
    imports = "".join(f"import {name}\n" for name in _MODULES if name in code.globals)
    lines = [f"            {name!r}: {layer}," for name, layer in layers.items()]
    freed = re.compile(r"; +(?:\w+ = )+None\b")  # torch.fx lets go of each tensor after its last use
    body = [f"    {freed.sub('', line)}" for line in code.src.strip().splitlines() if line.strip()]
    return _TEMPLATE.format(imports=imports, layers="\n".join(lines), forward="\n".join(body))


_TEMPLATE = '''"""The network in plain PyTorch; its weights are those of model.safetensors."""

{imports}import torch
from torch import device, inf, nan, nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers = {{
{layers}
        }}
        for name, layer in layers.items():
            *path, last = name.split(".")
            owner = self
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.add_module(last, layer)

{forward}
'''


def _works_alone(network: Deployed, folder: Path) -> bool:
    """Whether the written module gives the network's outputs in a process of its own, without raydistill."""
    given, found = folder / ".inputs.safetensors", folder / ".output.safetensors"
    try:
        save_file({str(index): value.contiguous() for index, value in enumerate(network.inputs)}, given)
        done = subprocess.run(  # nosec B603 - this interpreter, and what was written a moment ago
            [sys.executable, "-I", "-c", _ALONE, str(folder), str(given), str(found)],
            capture_output=True, timeout=_CHECK_S, cwd=folder, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        if done.returncode:
            return False
        output = load_file(found)["output"]
        (wanted,) = parts(network.outputs)
        return bool((output - wanted).abs().max() <= _AGREES * wanted.abs().max().clamp(min=1.0))
    except (OSError, subprocess.TimeoutExpired, SafetensorError, RuntimeError):
        return False
    finally:
        for path in (given, found):
            path.unlink(missing_ok=True)
