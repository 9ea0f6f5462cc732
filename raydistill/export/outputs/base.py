"""What is asked of a kind of output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor, nn

Output: TypeAlias = Tensor | tuple[Tensor, ...]
"""One tensor, or several that a kind has names for."""

Runner = Callable[[Sequence[Tensor]], Output]
"""Positional inputs to the output, on the CPU, in a format's own runtime."""


class Wrapped(nn.Module):
    """A network that gives what counts of its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class OutputKind(Protocol):
    """How networks that give such outputs are called, delivered and compared.

    NAME: in a manifest. BATCHED: whether samples lie along an axis of the inputs; else there is one at a time.
    """

    NAME: ClassVar[str]
    BATCHED: ClassVar[bool]

    def fits(self, output: object) -> bool:
        """Whether what a network gave is of this kind."""

    def delivered(self, network: nn.Module) -> nn.Module:
        """The network as it is delivered: positional tensors to an `Output`."""

    def input_names(self, count: int, of_images: bool) -> tuple[str, ...]:
        """Of the inputs, in formats that have names."""

    def input_shape(self, value: Tensor, batch: int | None) -> tuple[int | None, ...]:
        """Of an input, None where any size will do. batch: where its samples lie."""

    def output_names(self, output: Output, has_classes: bool) -> tuple[str, ...]:
        """Of the outputs, in formats that have names."""

    def called(self, network: str, given: str, outputs: Sequence[str]) -> str:
        """A line of Python that calls the network itself, a name, with an input of a name."""

    def output_shapes(self, output: Output, rows: int) -> tuple[tuple[int | None, ...], ...]:
        """Of each output, None where any size will do. rows: samples that it was given."""

    def difference(self, found: Output, wanted: Output) -> float:
        """How far two outputs are apart; NaN where one is no number.

        Raises:
            ConfigError: they have other shapes.
        """

    def may_differ(self, rounded: bool, largest: float) -> float:
        """What `difference` may be. rounded: of a quantized network. largest: value that the masked network gives."""

    def said(self, difference: float) -> str:
        """A difference in words."""

    def running(self, run: Runner) -> nn.Module:
        """An exported network in the place of one of torch's, as a task calls it."""


def parts(output: Output) -> tuple[Tensor, ...]:
    """Its tensors."""
    return (output,) if isinstance(output, Tensor) else output


def together(values: Sequence[Tensor]) -> Output:
    """The output of so many tensors."""
    return values[0] if len(values) == 1 else tuple(values)
