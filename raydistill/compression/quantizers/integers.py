"""A settled network that is written with whole numbers: what rounds is told in operators of the language it is in.

Then a forward pass of the network calls the language's operators in place of rounding floats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """The grid of an activation as plain numbers."""

    scale: float
    zero_point: int
    low: int
    high: int


class Language(Protocol):
    """The operators that whole numbers are told with."""

    def activation(self, values: Tensor, step: Step) -> Tensor:
        """Values rounded to a grid, as floats again."""

    def weight(self, numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        """What whole numbers (int8 or uint8) stand for. scale (float32), zero_point (of the numbers' type): one value
        each, or one for each channel, those being dimension `axis`."""


class Spoken:
    """A part of a network that can be told so."""

    spoken: Language | None = None
    """The language it is told in; None where it just computes."""

    def prepare(self, model: nn.Module) -> None:
        """Keep as plain values what cannot be computed while a graph is drawn."""

    def forget(self) -> None:
        """Keep it no longer."""


@contextlib.contextmanager
def written_in(model: nn.Module, spoken: Language) -> Iterator[None]:
    """While it lasts settled parts of the network speak this language, those that fit into 8 bits."""
    parts = [part for part in model.modules() if isinstance(part, Spoken)]
    try:
        for part in parts:
            part.prepare(model)
            part.spoken = spoken
        yield
    finally:
        for part in parts:
            part.spoken = None
            part.forget()


def of_8_bits(low: int, high: int) -> torch.dtype | None:
    """The type of 8 bits that holds these numbers; None: they need more."""
    if low >= -128 and high <= 127:
        return torch.int8
    return torch.uint8 if low >= 0 and high <= 255 else None


def of_4_bits(low: int, high: int) -> bool:
    """Whether 4 bits hold these numbers, signed or not."""
    return (low >= -8 and high <= 7) or (low >= 0 and high <= 15)
