from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raydistill.tasks.classification.evaluate import evaluate

CPU = torch.device("cpu")


class Echo(nn.Module):
    """Gives back its input as logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return images


def test_figures_are_those_of_a_count_by_hand() -> None:
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5], [1.0, 9, 2, 3, 4, 5], [0.0, 5, 4, 3, 2, 1]])
    labels = torch.tensor([0, 0, 0])  # right; wrong and sixth of six; wrong and sixth
    model = Echo().train()
    result = evaluate(model, [(logits[:2], labels[:2]), (logits[2:], labels[2:])], "validation", CPU)
    assert result.metrics["top1"] == pytest.approx(1 / 3)
    assert result.metrics["top5"] == pytest.approx(1 / 3)
    by_hand = [math.log(sum(math.exp(v) for v in row)) - row[0] for row in logits.tolist()]
    assert result.metrics["loss"] == pytest.approx(sum(by_hand) / 3)
    assert (result.samples, result.split, model.training) == (3, "validation", True)


def test_fewer_than_five_classes_count_all_as_top5() -> None:
    result = evaluate(Echo(), [(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))], "test", CPU)
    assert (result.metrics["top1"], result.metrics["top5"]) == (0.0, 1.0)
