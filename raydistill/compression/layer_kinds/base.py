"""What pruning, thinning, counting and statistics ask of a kind of layer; here the answers where nothing is known.

A *row* is an output channel (a filter of a conv, an output of a linear layer), a *column* an input channel. A layer
that keeps channels apart (a batch norm, PReLU, a depthwise conv) carries each *through*: what it holds for one is its
row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

Cut = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerKind:
    """One kind of layer. It holds no layer: each question is asked with the module it is about.

    One that multiplies by a weight with rows and columns is a `WeightedKind`.

    norm: it normalizes each channel, or each group of channels, by itself. batch_norm: over the batch, so that a layer
        before it can take up its scale. recurrent: it runs over time. cell: by one step
        a call, what it gives is its state. embedding: its inputs are indices.
    counts_all: it divides by a mean over all channels, so that only one that it reads as zero can go.
    counted: its multiply-accumulates are one row of a summary, under its name and class.
    whole: why its channels are never taken out (completes "reaches NAME, ..."); empty where they can be.
    weight: the name of its weight; out_dim, in_dim: that one's dimensions of rows and of columns.
    numbers: names of its whole numbers that go down with the heads or units of its block; None: whichever fit.
    block: it is no layer: what it holds beside its layers (a table, a scale for each head) is for its own code.
    """

    norm: bool = False
    batch_norm: bool = False
    counts_all: bool = False
    recurrent: bool = False
    cell: bool = False
    embedding: bool = False
    counted: bool = False
    block: bool = False
    whole: str = ""
    numbers: tuple[str, ...] | None = None
    weight: str = "weight"
    out_dim: int = 0
    in_dim: int = 1

    def rows(self, module: nn.Module) -> int:
        """How many output channels the layer has."""
        raise NotImplementedError(f"{type(module).__name__}: nothing is known of its channels")

    def columns(self, module: nn.Module) -> int:
        """How many input channels the layer has."""
        return self.rows(module)

    def groups(self, module: nn.Module) -> int:
        """In how many groups rows read columns; a row reads those of its own group only."""
        del module
        return 1

    def together(self, module: nn.Module) -> int:
        """How many neighbouring channels it normalizes together: they can only go together."""
        del module
        return 1

    def is_depthwise(self, module: nn.Module) -> bool:
        """Whether it has one filter a channel, each reading its own channel only."""
        del module
        return False

    def keeps_apart(self, module: nn.Module) -> bool:
        """Whether a channel of the output depends on the same one of the input only (or, where several are normalized
        `together`, on these), and its own entries of tensors."""
        return self.norm or self.is_depthwise(module)

    def may_be_cut(self, module: nn.Module) -> bool:
        """Whether rows and columns can be taken out of this very layer."""
        del module
        return True

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        """Whether a record of a thinning may take columns (else rows) out of this layer."""
        return not is_column and self.keeps_apart(module)

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        """The dimension of the channels in an output of `dims` dimensions, counted from the end (negative)."""
        del module, dims
        return -3

    def pads_with_zeros(self, module: nn.Module) -> bool:
        """Whether the borders see fewer taps, so that a constant channel adds something else there."""
        del module
        return False

    def adds_evenly(self, module: nn.Module) -> bool:
        """Whether a constant channel adds the same at every position away from the borders."""
        del module
        return True

    def bias_of(self, module: nn.Module) -> Tensor | None:
        """What is added to each row, shape (rows,); None where nothing is."""
        bias: Tensor | None = getattr(module, "bias", None)
        return bias

    def zero_rows(self, module: nn.Module) -> Tensor:
        """Which rows are zero as a whole (bool, one a row); of a norm: which channels it scales by zero."""
        return torch.zeros(self.rows(module), dtype=torch.bool)

    def zero_columns(self, module: nn.Module) -> Tensor:
        """Which columns are zero as a whole (bool, one a column)."""
        return torch.zeros(self.columns(module), dtype=torch.bool)

    @property
    def bias_name(self) -> str:
        """What `bias_of` is called in the module."""
        return "bias"

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        """The tensors that a quantizer rounds, by their name in the module; the dimension of their channels, None where
        all of it has one range.
        """
        del module
        return {"weight": None} if self.embedding else {}

    def cuts(self, module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
        """For each tensor of a layer, by its name there, the function that keeps these rows and columns (sorted int64
        indices; None: all). The same function cuts what has the tensor's shape: masks, gradients, momenta.
        """
        del keep_columns
        if keep_rows is None:
            return {}
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return {name: partial(select, along(tensor), keep_rows) for name, tensor in own if one_each(tensor)}

    def factors(self, module: nn.Module, share: float) -> dict[str, float]:
        """What its tensors are taken times where it had `share` times the rows that stay, by their names in the
        module."""
        del module, share
        return {}

    def number(self, module: nn.Module, name: str) -> object:
        """What a module holds under this name, or has written into its code; None where neither. "SETTINGS.NAME": what
        an object that it holds does, such as the config of its network."""
        settings, _, own = name.rpartition(".")
        held = vars(module).get(settings) if settings else module
        found: object = getattr(held, "__dict__", {}).get(own)
        return found

    def moved_numbers(self, module: nn.Module, share: float) -> dict[str, tuple[float, float]]:
        """Its numbers that are others where it had `share` times the rows that stay: before and after."""
        del module, share
        return {}

    def before_cut(self, module: nn.Module, stays: Mapping[str, Tensor]) -> None:
        """Make ready for layers of this module to lose rows or columns. stays: by the name of such a layer in it, the
        rows that it keeps, of those that lose some."""

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        """Set the widths a layer knows of itself (``out_channels``, ``num_features``, ...) to those of its tensors.

        rows: how many there are, for a layer that has no tensor to tell.
        """

    def heads(self, module: nn.Module) -> tuple[Tensor, Tensor, Tensor, str, Tensor] | None:
        """Of attention in one layer: its own rows of queries, keys and values, (heads, width of a head) each; the name
        of the layer inside it that mixes heads, and that layer's columns, (heads, width of a value)."""
        del module
        return None

    def attributes(self, module: nn.Module) -> str:
        """What a summary says of the layer beside its class; empty if nothing."""
        del module
        return ""

    def macs(self, module: nn.Module, inputs: Tensor, output: Tensor) -> int | None:
        """Multiply-accumulates of one call, from its first input and its output, biases not counted.

        None: what torch's FLOP counter sees inside. A layer with a kernel of its own, which the counter does not know,
        has to say.
        """
        del module, inputs, output
        return None

    def samples(self, module: nn.Module, inputs: Tensor, outputs: Tensor, points: int) -> tuple[Tensor, Tensor] | None:
        """(input patch, output) pairs of one forward pass: (samples, columns * taps), (samples, rows), so that the
        second is the first times the weight, plus the bias. None: they cannot be had of this layer.

        points: how many positions of each map are drawn, uniformly from torch's global CPU generator.
        """
        del module, inputs, outputs, points
        return None

    def patches(self, module: nn.Module, inputs: Tensor) -> Tensor | None:
        """All that each row is multiplied by in one forward pass: (groups, samples, columns of a group * taps), in the
        order of the weight's own elements, rows first. None: it cannot be had of this layer."""
        del module, inputs
        return None

    def multiplies(self, module: nn.Module) -> tuple[str, ...]:
        """The weights, by their names in the module, of which `reads` tells what they are multiplied by."""
        del module
        return ()

    def reads(self, module: nn.Module, weight: str, arguments: Sequence[object], named: Mapping[str, object]) -> Tensor:
        """What the rows of one of these are multiplied by in a call with these arguments, as `patches` has it."""
        raise NotImplementedError(f"{type(module).__name__}: nothing is known of what {weight} reads")


def select(dim: int, keep: Tensor, tensor: Tensor) -> Tensor:
    """These positions of a dimension, on the tensor's device."""
    return tensor.index_select(dim, keep.to(tensor.device))


def put_number(module: nn.Module, name: str, value: float) -> None:
    """Set what `LayerKind.number` tells. Settings may be shared with others: the module has its own from then on."""
    settings, _, own = name.rpartition(".")
    if not settings:
        setattr(module, name, value)
        return
    held = copy.copy(getattr(module, settings))
    setattr(held, own, value)
    setattr(module, settings, held)


def one_each(tensor: Tensor) -> bool:
    """Whether it has one entry a channel, of more than one, whatever dimensions of one entry are around them."""
    return 1 < tensor.numel() == max(tensor.shape, default=0)


def along(tensor: Tensor) -> int:
    """The dimension of the channels of a tensor with one entry a channel."""
    return max(range(tensor.dim()), key=lambda dim: tensor.shape[dim])


def set_sizes(module: nn.Module, sizes: Mapping[str, int]) -> None:
    """Set those attributes of a module that have a name."""
    for attribute, size in sizes.items():
        if attribute:
            setattr(module, attribute, size)
