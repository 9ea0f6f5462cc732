"""torchvision's classifiers under their names: counts as torchvision publishes them, shapes, auxiliary heads."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision

from raydistill.compression.early_exit import exits
from raydistill.models import create, example_input, names
from raydistill.models.menu import OWN
from tests.models.conftest import Meta

ALL = sorted(torchvision.models.list_models(module=torchvision.models))
# torchvision works their widths out with tensors, which takes real memory; the largest wants 2.6 GB.
REGNETS = [name for name in ALL if name.startswith("regnet")]
# What the published number of parameters counts besides the model that `create` makes by default.
COUNTED_WITH = {"inception_v3": {"aux_logits": True}, "vit_h_14": {"image_size": 518}}
ONE_A_FAMILY = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "wide_resnet50_2",
]


def published_parameters(name: str) -> int:
    return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def test_every_classifier_of_torchvision_is_on_the_menu() -> None:
    assert len(ALL) > 70
    assert set(names()) == {*ALL, *OWN}
    assert not {*ALL} & {*OWN}
    assert not [name for name in names() if "rcnn" in name or "quantized" in name or name.startswith("fcn")]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in ONE_A_FAMILY else pytest.mark.slow
        )  # the others of a family all take time
        for name in ALL
        if name not in REGNETS
    ],
)
def test_it_has_the_published_number_of_parameters(meta: Meta, name: str) -> None:
    model = meta(name, **COUNTED_WITH.get(name, {}))
    assert sum(p.numel() for p in model.parameters()) == published_parameters(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regnet_x_400mf", "regnet_y_400mf"])
def test_regnets(name: str) -> None:
    model = create(name, 1000).eval()
    assert sum(p.numel() for p in model.parameters()) == published_parameters(name)
    with torch.no_grad():
        assert model(*example_input(name, dataset_shape=(3, 64, 64))).shape == (1, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_it_takes_its_example_and_gives_the_classes_asked_for(meta: Meta, name: str) -> None:
    (images,) = example_input(name, batch=2)
    with torch.no_grad():
        assert meta(name, 7)(images.to("meta")).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("googlenet", 96), ("inception_v3", 299)])
def test_auxiliary_heads_only_where_asked_for(name: str, side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.device("meta"):
            plain = create(name, 7)
            wanted = create(name, 7, {"aux_logits": True, "init_weights": False})
    images = torch.zeros(2, 3, side, side, device="meta")
    assert plain(images).shape == (2, 7)
    assert not [key for key, _ in plain.named_parameters() if key.lower().startswith("aux")]
    output = wanted(images)
    assert isinstance(output, tuple)
    assert len(output) > 1
    assert exits(output) == (output.logits,)
    assert wanted.eval()(images).shape == (2, 7)
