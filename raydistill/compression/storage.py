"""A network's tensors as they are stored: floats at their own width, settled quantized weights by their bits.

Beside a quantized weight NAME, which is left out, stand ``NAME.numbers`` (uint8, each number less the lowest in as few
bits as its grid needs, the first in the lowest bits) and ``NAME.layout`` (int64: the lowest number, the distance of two
neighbours, the bits of each, then the shape). With zeros left out ``NAME.kept`` is a bit an element (uint8, the first
in the lowest bit), and the numbers are those of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.frozen import FrozenWeight, frozen_weight
from raydistill.compression.quantizers.grid import of_groups
from raydistill.compression.quantizers.network import weight_prefix
from raydistill.errors import ABSENT, CheckpointError, Fault

NUMBERS, LAYOUT, KEPT = ".numbers", ".layout", ".kept"
_MOST_VALUES = 1 << 34


def stored(model: nn.Module, state: Mapping[str, Tensor] | None = None, zeros: bool = True) -> dict[str, Tensor]:
    """state: the tensors of the network that are kept, by their names; None: its parameters and buffers. zeros: False
    leaves those of quantized weights out where that makes them smaller."""
    if state is None:
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = {}
    for name, tensor in state.items():
        frozen = frozen_weight(model, name)
        found.update({name: tensor} if frozen is None else _packed(name, tensor, frozen, zeros))
    return found


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def restored(packed: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state that `stored` was given; scales and zero points of weights stand in it.

    Raises:
        CheckpointError: numbers and layout do not belong together.
    """
    return assembled(packed, (LAYOUT, NUMBERS, KEPT), lambda name: _values(name, packed), where)


def assembled(
    packed: Mapping[str, Tensor], endings: Sequence[str], build: Callable[[str], Tensor], where: str
) -> dict[str, Tensor]:
    """A state of which some tensors are written in parts, each under the tensor's name and an ending.

    endings: the first is of a part that each of those has. build: gives the tensor of a name.

    Raises:
        CheckpointError: the parts of one do not belong together.
    """
    names = [name.removesuffix(endings[0]) for name in packed if name.endswith(endings[0])]
    parts = {name + ending for name in names for ending in endings}
    state = {name: tensor for name, tensor in packed.items() if name not in parts}
    for name in names:
        try:
            state[name] = build(name)
        except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
            raise CheckpointError(Fault(where, f"is damaged: '{name}' ({error})", ABSENT, "export it again")) from error
    return state


def pack_bits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Whole numbers from 0 to 2^width - 1, one after another in a row of bytes, the first in the lowest bits."""
    bits = (numbers.reshape(-1, 1).astype(np.uint32) >> np.arange(width, dtype=np.uint32)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def unpack_bits(packed: np.ndarray, width: int, count: int) -> np.ndarray:
    """What `pack_bits` was given, `count` numbers of it.

    Raises:
        ValueError: there are not as many.
    """
    if len(packed) != math.ceil(width * count / 8):
        raise ValueError(f"{len(packed)} bytes do not hold {count} numbers of {width} bits")
    bits = np.unpackbits(packed, count=width * count, bitorder="little").reshape(count, width)
    return (bits.astype(np.int64) << np.arange(width)).sum(1)


def _packed(name: str, weight: Tensor, frozen: FrozenWeight, zeros: bool) -> dict[str, Tensor]:
    numbers = frozen.numbers(weight).cpu().numpy()
    zero = np.broadcast_to(frozen.grid(weight).zero_point.cpu().numpy(), numbers.shape).astype(np.int64)
    whole = _in_bits(numbers, frozen.low, frozen.high)
    kept = numbers != zero
    some = _in_bits(numbers[kept], frozen.low, frozen.high)
    bits = np.packbits(kept.reshape(-1), bitorder="little")
    if not zeros and len(some[0]) + len(bits) < len(whole[0]):
        return {**_tensors(name, *some, numbers.shape), name + KEPT: torch.from_numpy(bits)}
    return _tensors(name, *whole, numbers.shape)


def _in_bits(numbers: np.ndarray, low: int, high: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The numbers in a row of bytes, and their layout: every second number where only those are used."""
    shifted = numbers.astype(np.int64) - low
    step = 2 if shifted.size and not (shifted % 2).any() and high - low > 1 else 1
    width = max(1, ((high - low) // step).bit_length())
    return pack_bits(shifted // step, width), (low, step, width)


def _tensors(name: str, packed: np.ndarray, layout: tuple[int, int, int], shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {name + NUMBERS: torch.from_numpy(packed), name + LAYOUT: torch.tensor([*layout, *shape])}


def _values(name: str, packed: Mapping[str, Tensor]) -> Tensor:
    low, step, width, *shape = packed[name + LAYOUT].tolist()
    count = math.prod(shape)
    if not 1 <= width <= 32 or not 0 <= count <= _MOST_VALUES or any(size < 0 for size in shape):
        raise ValueError("its layout has no meaning")
    own = weight_prefix(name)
    columns = shape[1] if len(shape) > 1 else 1
    scale, zero_point = (of_groups(packed[f"{own}.{part}"], columns) for part in ("scale", "zero_point"))
    numbers = zero_point.expand(shape).reshape(-1).numpy().astype(np.int64)
    kept = np.ones(count, dtype=bool)
    if name + KEPT in packed:
        kept = np.unpackbits(packed[name + KEPT].numpy(), count=count, bitorder="little").astype(bool)
    numbers[kept] = unpack_bits(packed[name + NUMBERS].numpy(), width, int(kept.sum())) * step + low
    return (torch.from_numpy(numbers).view(shape).float() - zero_point) * scale
