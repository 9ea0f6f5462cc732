"""One tensor: logits, or whatever else has a row for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.export.outputs.base import Output, Runner, Wrapped, parts

AGREES = 1e-4
"""What an output may differ by, of the largest output where that is above 1."""

AGREES_ROUNDED = 0.05
"""The same of a quantized network: a value between two numbers goes either way with the last bit of a float, and what
follows goes with it."""


class OneTensor:
    NAME: ClassVar[str] = "tensor"
    BATCHED: ClassVar[bool] = True

    def fits(self, output: object) -> bool:
        return first_of(output) is not None

    def delivered(self, network: nn.Module) -> nn.Module:
        return FirstOutput(network).eval()

    def input_names(self, count: int, of_images: bool) -> tuple[str, ...]:
        if count > 1:
            return tuple(f"input_{index}" for index in range(count))
        return ("images" if of_images else "input",)

    def input_shape(self, value: Tensor, batch: int | None) -> tuple[int | None, ...]:
        return tuple(None if axis == batch else size for axis, size in enumerate(value.shape))

    def output_names(self, output: Output, has_classes: bool) -> tuple[str, ...]:
        return ("logits" if has_classes else "output",)

    def called(self, network: str, given: str, outputs: Sequence[str]) -> str:
        return f"{outputs[0]} = {network}({given})"

    def output_shapes(self, output: Output, rows: int) -> tuple[tuple[int | None, ...], ...]:
        (found,) = parts(output)
        return (tuple(None if size == rows and axis == 0 else size for axis, size in enumerate(found.shape)),)

    def difference(self, found: Output, wanted: Output) -> float:
        (one,), (other,) = parts(found), parts(wanted)
        if one.shape != other.shape:
            raise ConfigError(Fault("output", f"its output must have the shape {tuple(other.shape)}", tuple(one.shape)))
        return float((one.float() - other.float()).abs().max()) if other.numel() else 0.0

    def may_differ(self, rounded: bool, largest: float) -> float:
        return AGREES_ROUNDED * largest if rounded else AGREES * max(1.0, largest)

    def said(self, difference: float) -> str:
        return f"outputs differ by {difference:.1e} at most"

    def running(self, run: Runner) -> nn.Module:
        return _Running(run)


class FirstOutput(Wrapped):
    """A network that gives one tensor: the logits of what it gives, or the first part.

    The first input has a name, for whoever traces networks of one input by their signature, as MLflow does.
    """

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return first_of(self.network(first, *others))


class _Running(nn.Module):
    def __init__(self, run: Runner) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Any) -> Output:
        if not all(isinstance(value, Tensor) for value in inputs):
            rule = "the task carries a state from batch to batch, which an exported network does not take"
            raise ConfigError(Fault("--split", rule, ABSENT, "compare outputs alone: --split none"))
        return self.run([value.cpu() for value in inputs])


def first_of(output: object) -> Tensor:
    """Raises ConfigError where there is no tensor to be found."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    way_out = "wrap it in a module that gives a tensor"
    raise ConfigError(Fault("export", "the network must give a tensor, or several", type(output).__name__, way_out))
