from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.tasks import Loading
from raydistill.tasks.detection import Detection
from tests.tasks.detection.shapes import write

CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path: Path) -> Detection:
    return Detection(str(write(tmp_path / "x", {"train": 10, "val": 5})), masks=True)


def test_a_mirrored_image_has_its_boxes_and_masks_mirrored(task: Detection) -> None:
    lefts = set()
    for epoch in range(3):
        for images, targets in task.feed("train", Loading(CPU, 4)).epoch(epoch):
            for image, target in zip(images, targets, strict=True):
                for (left, top, right, bottom), label, mask in zip(
                    target["boxes"].int().tolist(), target["labels"].tolist(), target["masks"], strict=True
                ):
                    inside = image[:, top:bottom, left:right]
                    assert set((inside * 255).round().int().flatten().tolist()) == {{1: 240, 2: 10}[label]}
                    assert int(mask.sum()) == (right - left) * (bottom - top)
                    assert bool(mask[top:bottom, left:right].all())
                    lefts.add(left > 18)
    assert lefts == {False, True}


def test_train_is_shuffled_by_seed_and_epoch_and_others_are_not(task: Detection) -> None:
    def order(split: str, seed: int, epoch: int) -> list[float]:
        feed = task.feed(split, Loading(CPU, 4, seed))
        return [float(target["boxes"].sum()) for _, targets in feed.epoch(epoch) for target in targets]

    assert order("train", 0, 0) == order("train", 0, 0)
    assert len({tuple(order("train", seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order("test", 0, 0) == order("test", 3, 5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_ranks_share_each_batch(task: Detection, split: str) -> None:
    def seen(rank: int, world: int) -> list[list[float]]:
        feed = task.feed(split, Loading(CPU, 4, ranks=Ranks(rank, world)))
        return [[float(target["boxes"].sum()) for target in targets] for _, targets in feed.epoch(2)]

    whole = seen(0, 1)
    for rank in (0, 1):
        assert seen(rank, 2) == [batch[rank::2] for batch in whole if batch[rank::2]]
