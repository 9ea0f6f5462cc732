"""Summaries as a user would write them: how large the weights of each layer are; and some that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Norm:
    weight: str
    shape: tuple[int, ...]
    norm: float
    largest: float | None


def norms(model: nn.Module, example_input: tuple[Any, ...]) -> list[Norm]:
    assert model(*example_input).dim() == 2
    named = [(name, weight.detach()) for name, weight in model.named_parameters() if weight.dim() > 1]
    return [Norm(name, tuple(w.shape), float(w.norm()), float(w.abs().max())) for name, w in named] + [
        Norm("total", (), sum(float(weight.norm()) for _, weight in named), None)
    ]


def none(model: nn.Module, example_input: tuple[Any, ...]) -> list[Norm]:
    return []


def words(model: nn.Module, example_input: tuple[Any, ...]) -> str:
    return "fine"


def fails(model: nn.Module, example_input: tuple[Any, ...]) -> list[Norm]:
    raise KeyError("fc9")
