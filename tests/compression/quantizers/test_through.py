"""Gradients that go through rounding."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.quantizers.through import learned_clip, through


def gradient(of: torch.Tensor, result: torch.Tensor) -> list[float]:
    (result * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert of.grad is not None
    return of.grad.tolist()


def test_they_pass_as_if_nothing_had_been_rounded() -> None:
    values = torch.tensor([-1.2, 0.4, 0.6, 2.2], requires_grad=True)
    result = through(values, values.detach().round())
    assert result.tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert gradient(values, result) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("elements", [1, 4])
def test_nothing_passes_where_values_were_clipped(elements: int) -> None:
    """Ends of one element are what a CPU reads; of several as on other devices, which it would wait for."""
    values = torch.tensor([-1.2, 0.0, 0.6, 2.0], requires_grad=True)
    ends = torch.zeros(elements), torch.full((elements,), 2.0)
    result = through(values, values.detach().clamp(0, 2).round(), *ends)
    assert gradient(values, result) == [0.0, 2.0, 3.0, 0.0]


def test_a_learned_clip_moves_with_what_it_clips() -> None:
    values = torch.tensor([-1.2, 0.4, 2.0, 2.2], requires_grad=True)
    highest = torch.tensor([2.0], requires_grad=True)
    result = learned_clip(values, values.detach().clamp(0, 2).round(), highest)
    assert gradient(values, result) == [0.0, 2.0, 0.0, 0.0]
    assert highest.grad is not None
    assert highest.grad.tolist() == [7.0]


def test_without_gradients_nothing_is_recorded() -> None:
    values = torch.tensor([0.4, 0.6], requires_grad=True)
    rounded = values.detach().round()
    with torch.no_grad():
        assert through(values, rounded) is rounded
        assert learned_clip(values, rounded, values) is rounded
