"""Weights of any sparsity in little room: of each tensor a bit an element, and the values that are not zero.

The layout is that of the ``sparse-bitmask`` format of compressed-tensors (its releases before 0.15 read and write it):
a safetensors file with, for a tensor NAME, ``NAME.compressed`` (values, in the order of the elements), ``NAME.bitmask``
(uint8, the first element in the lowest bit; each row of the last dimension begins a new byte) and ``NAME.shape``
(int64). Tensors that would not get smaller are kept whole, under their own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from raydistill.compression.storage import assembled, restored, stored
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.rebuilt import CONFIG, read_weights, rebuilt, use_rebuilt, write_config
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE = "model.bitmask.safetensors"
_VALUES, _BITS, _SHAPE = ".compressed", ".bitmask", ".shape"


class Bitmask(Format):
    NAME: ClassVar[str] = "bitmask"
    RUNTIME: ClassVar[str] = "torch"
    ABOUT: ClassVar[str] = "weights with their zeros left out, for storage and transfer"

    def check(self, where: str) -> None:
        return

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        write_config(network, folder)
        packed = pack(stored(network.network_itself, network.checkpoint()["model"], zeros=False))
        write_atomically(folder / _FILE, save(packed, {"format": "pt", "sparsity": "sparse-bitmask"}))
        return (_FILE, CONFIG)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        path = folder / _FILE
        return rebuilt(folder, restored(unpack(read_weights(path), str(path)), str(path)), str(path), manifest, arch)

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        return use_rebuilt(manifest, self.NAME)


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.contiguous()
        values = tensor[tensor != 0]
        bits = (
            torch.from_numpy(np.packbits((tensor != 0).numpy(), axis=-1, bitorder="little")) if tensor.dim() else None
        )
        small = bits is not None and values.numel() * values.element_size() + bits.numel() < _bytes(tensor)
        if small and bits is not None:
            shape = torch.tensor(tensor.shape, dtype=torch.int64)
            packed |= {name + _VALUES: values, name + _BITS: bits, name + _SHAPE: shape}
        else:
            packed[name] = tensor.clone()  # safetensors wants no two that share memory
    return packed


def unpack(packed: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What `pack` was given.

    Raises:
        CheckpointError: bits and values do not belong together.
    """
    return assembled(packed, (_BITS, _VALUES, _SHAPE), lambda name: _unpacked(name, packed), where)


def _unpacked(name: str, packed: Mapping[str, Tensor]) -> Tensor:
    shape = tuple(packed[name + _SHAPE].tolist())
    values, bits = packed[name + _VALUES], packed[name + _BITS].numpy()
    if tuple(bits.shape) != (*shape[:-1], -(-shape[-1] // 8)):
        raise ValueError("the bits are of another shape")
    mask = np.unpackbits(bits, axis=-1, count=shape[-1], bitorder="little").astype(bool)
    if int(mask.sum()) != values.numel():
        raise ValueError(f"{int(mask.sum())} bits and {values.numel()} values")
    tensor = torch.zeros(shape, dtype=values.dtype)
    tensor[torch.from_numpy(mask)] = values
    return tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
