"""Where the whole cannot be followed, what can be is thinned by itself: nothing but zeros goes, and they do go."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.masks import MaskSet
from raydistill.compression.structure import replay
from raydistill.compression.thinning import thin, untraceable
from raydistill.compression.thinning.pieces import pieces
from tests.compression.thinning.conftest import relative, unsettled, zeroed

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def convs(*widths: int) -> nn.Sequential:
    layers = [nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


class Picks(nn.Module):
    """Gives as many rows as there are positions whose first channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.levels = convs(3, 8, 6), nn.ModuleDict({"a": convs(6, 8, 4)})
        self.head = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        self.single = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> list[Tensor]:
        found = self.levels["a"](self.features(images)).movedim(1, -1).flatten(0, 2)
        return [self.single(self.head(found[found[:, 0] >= found[:, 0].mean()]))]


def pruned() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = unsettled(Picks())
    filters = {
        "features.0.0": [0, 2, 5],
        "features.1.0": [1],
        "levels.a.0.0": range(4),
        "head.0": [3, 4],
        "single": [0],
    }
    return model, zeroed(model, filters)


@pytest.mark.slow
def test_each_module_that_can_be_followed_is_one() -> None:
    model, _ = pruned()
    assert [piece.name for piece in pieces(model, IMAGES)] == ["features", "levels.a", "head"]
    assert untraceable(model, IMAGES) == ""
    whole = convs(3, 4, 5)
    assert [piece.name for piece in pieces(whole.eval(), IMAGES)] == [""]


@pytest.mark.slow
@pytest.mark.parametrize("held", ["masks", "mapping", "weights alone"])
def test_what_is_zero_inside_them_goes_and_the_outputs_stay(held: str) -> None:
    model, masks = pruned()
    fresh, before = copy_of(model), copy_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(IMAGES)[0].sum().backward()
    optimizer.step()
    model.load_state_dict(before.state_dict())
    if held == "masks":
        given: object = MaskSet(model)
        for name, mask in masks.items():
            given.set(name, mask)  # type: ignore[attr-defined]
    else:
        given = dict(masks) if held == "mapping" else None
    report = thin(model, given, IMAGES, optimizer)  # type: ignore[arg-type]
    assert (
        dict(report.removed) == {"features.0.0": 2, "levels.a.0.0": 3, "head.0": 2} or sum(report.removed.values()) >= 7
    )
    assert model.features[0][0].out_channels == 8 - report.removed["features.0.0"]  # type: ignore[index,union-attr]
    assert model.features[1][0].weight.shape[:2] == (6, model.features[0][0].out_channels)  # type: ignore[index,union-attr]
    assert relative(before(IMAGES)[0], model(IMAGES)[0]) < 1e-5
    reasons = {kept.weight: kept.reason for kept in report.kept if kept.structure == "filters"}
    assert reasons["single.weight"] == "is in a part that cannot be traced"
    assert reasons["features.1.0.weight"] == "an output of features"
    for parameter, state in optimizer.state.items():
        assert state["momentum_buffer"].shape == parameter.shape
    if held == "masks":
        assert given["features.0.0.weight"].shape == model.features[0][0].weight.shape  # type: ignore[index,union-attr]
    replay(fresh, report.changes, "structure")
    assert {name: value.shape for name, value in fresh.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


class Shares(Picks):
    """Its head's first layer is used outside of it too."""

    def forward(self, images: Tensor) -> list[Tensor]:
        (found,) = super().forward(images)
        return [found, self.head[0](torch.ones(1, 4))]


class Ties(Picks):
    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Linear(4, 16, bias=False)
        self.tied.weight = self.head[0].weight  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Shares, Ties])
def test_what_others_use_too_is_none(kind: type[Picks]) -> None:
    model = unsettled(kind())
    assert [piece.name for piece in pieces(model, IMAGES)] == ["features", "levels.a"]


class Crops(Picks):
    """Uses an operator that reads memory where boxes say, wherever that is."""

    def forward(self, images: Tensor) -> list[Tensor]:
        (found,) = super().forward(images)
        crops = self.crop(images, torch.tensor([[0.0, 1, 1, 5, 5]]).expand(len(found), 5))
        return [found, crops]

    def __init__(self) -> None:
        super().__init__()
        self.crop = Crop()


class Crop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        from torchvision.ops import roi_align

        return self.after(roi_align(self.before(images), boxes, 2))


def test_what_uses_operators_of_others_is_none() -> None:
    pytest.importorskip("torchvision")
    assert [piece.name for piece in pieces(unsettled(Crops()), IMAGES)] == ["features", "levels.a", "head"]


@pytest.mark.slow
def test_a_detectors_backbone_and_heads() -> None:
    pytest.importorskip("torchvision")
    from raydistill.compression.deployment import deploy
    from raydistill.compression.summaries import total_macs
    from raydistill.models.detector import detector

    torch.manual_seed(0)
    model = detector(3, "fasterrcnn_mobilenet_v3_large_320_fpn", min_size=64, max_size=64).eval()
    image = (torch.rand(1, 3, 64, 64),)
    assert [piece.name for piece in pieces(copy_of(model), image)] == [
        "backbone", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor",
    ]  # fmt: skip
    for name in ("backbone.body.6.block.0.0", "backbone.body.13.block.0.0", "roi_heads.box_head.fc6"):
        weight = model.get_submodule(name).weight
        weight.data[: weight.shape[0] // 2] = 0  # type: ignore[index,operator]
    masked = copy_of(model)
    done = deploy(model, image)
    assert done.removed > 6_000_000
    assert model.roi_heads.box_head.fc6.out_features == 512  # type: ignore[union-attr]
    assert total_macs(model, image) < total_macs(masked, image)
    with torch.no_grad():
        (expected,), (found,) = masked(image[0]), model(image[0])
        features = masked.backbone(image[0]), model.backbone(image[0])  # type: ignore[operator]
    assert len(expected["boxes"]) > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-3 if name == "boxes" else 1e-5, rtol=1e-5)
    for name, value in features[0].items():
        assert relative(value, features[1][name]) < 1e-5
