from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.errors import ConfigError
from raydistill.tasks.detection.evaluate import detection_loss, precision

THERE = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1])}


def said(boxes: list[list[float]], labels: list[int], scores: list[float]) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "mean", "at_50"),
    [
        (said([[0, 0, 10, 10]], [1], [0.9]), 1.0, 1.0),
        # IoU 6.2 / 10: found at the thresholds 0.5, 0.55 and 0.6 of ten
        (said([[0, 0, 6.2, 10]], [1], [0.9]), 0.3, 1.0),
        (said([[0, 0, 10, 10]], [2], [0.9]), 0.0, 0.0),
        # a surer wrong box stands before it: precision 1 / 2 wherever it is found
        (said([[30, 30, 40, 40], [0, 0, 10, 10]], [1, 1], [0.9, 0.5]), 0.5, 0.5),
    ],
)
def test_precision_is_what_one_works_out_by_hand(found: dict[str, torch.Tensor], mean: float, at_50: float) -> None:
    assert precision([(found, THERE)]) == {
        "map": pytest.approx(mean, abs=1e-4),
        "map_50": pytest.approx(at_50, abs=1e-4),
    }


def test_the_loss_is_the_sum_of_what_the_network_gives() -> None:
    class Two(nn.Module):
        def forward(self, images: object, targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
            assert "iscrowd" not in targets[0]
            return {"box": torch.tensor(1.5), "label": torch.tensor(2.0)}

    target = {**THERE, "iscrowd": torch.tensor([0])}
    assert float(detection_loss(Two(), ([torch.zeros(3, 4, 4)], [target]))) == 3.5
    with pytest.raises(ConfigError, match=r"must give a mapping of losses.*got 'list'"):
        detection_loss(lambda images, targets: [], ([], []))
