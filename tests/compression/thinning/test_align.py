from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raydistill import models
from raydistill.compression import build
from raydistill.compression.masks import MaskSet
from raydistill.compression.thinning import thin
from raydistill.schedule import load_schedule
from tests.compression.thinning.conftest import zeroed

IMAGE = torch.zeros(1, 3, 8, 8)


class Sum(nn.Module):
    """Two convs of 4 filters whose outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.left(x) + self.right(x)).mean((2, 3)))


def pruned(left: list[int], right: list[int]) -> tuple[Sum, MaskSet]:
    torch.manual_seed(0)
    model = Sum()
    with torch.no_grad():  # L1 norms by filter: 3, 6, 9, 12 and 108, 81, 54, 27
        model.left.weight.copy_(torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 3, 1, 1))
        model.right.weight.copy_(torch.arange(4.0, 0.0, -1.0).view(4, 1, 1, 1).expand(4, 3, 3, 3))
    masks = MaskSet(model)
    for name, mask in zeroed(model, {"left": left, "right": right}).items():
        masks.set(name, mask)
    return model, masks


def test_terms_pruned_each_by_itself_lose_the_filters_of_least_norm_in_total() -> None:
    model, masks = pruned([0, 1], [2, 3])  # in total 108, 81, 9 and 12 are left: 2 and 3 go
    report = thin(model, masks, IMAGE, align_sums=True)
    assert report.removed == {"left": 2, "right": 2}
    assert model.left.weight.tolist() == torch.zeros(2, 3, 1, 1).tolist()
    assert model.right.weight.amax((1, 2, 3)).tolist() == [4.0, 3.0]
    assert masks["left.weight"].eq(1).all()  # its filters 0 and 1 may be trained again
    assert report.drift > 0
    assert [(k.weight, k.structure, k.count) for k in report.kept if k.structure == "filters"] == [
        ("left.weight", "filters", 2)
    ]


@pytest.mark.parametrize("right", [[2], [0, 1, 2]])
def test_terms_of_different_sparsity_are_left_alone(right: list[int]) -> None:
    model, masks = pruned([0, 1], right)
    common = len({0, 1} & set(right))
    report = thin(model, masks, IMAGE, align_sums=True)
    assert report.removed == ({"left": common, "right": common} if common else {})
    assert report.drift < 1e-5


def test_without_being_asked_only_what_all_terms_have_lost_goes() -> None:
    model, masks = pruned([0, 1], [1, 2])
    report = thin(model, masks, IMAGE)
    assert report.removed == {"left": 1, "right": 1}
    assert model.left.weight.amax((1, 2, 3)).tolist() == [0.0, 3.0, 4.0]


@pytest.mark.slow
def test_a_schedule_file_reaches_the_macs_of_its_own_comment(compat: Path) -> None:
    torch.manual_seed(0)
    model = models.create("resnet20_cifar", 10)
    x = torch.randn(1, 3, 32, 32)

    def macs() -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(x)
        return counter.get_total_flops() // 2

    assert macs() == 40_813_184
    spec = load_schedule(compat / "distiller_schedules" / "agp-pruning" / "resnet20_filters.schedule_agp_4.yaml")
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), (x,))
    active = {
        epoch
        for scheduled in scheduler.scheduled
        if scheduled.spec.kind in ("pruner", "extension")
        for epoch in scheduled.spec.active_epochs()
    }
    for epoch in sorted(active):
        scheduler.on_epoch_begin(epoch)
    assert macs() == 24_723_776
    # What the masks leave to training: the comment's 78,776 of 130,544 weights.
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 1}
    masked = sum(int((scheduler.masks[name] == 0).sum()) for name in scheduler.masks.names())
    assert (sum(sizes.values()), sum(sizes.values()) - masked) == (130_544, 78_776)
