"""The menu: names, a user's own factory, example inputs, and what is said when one is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from raydistill.compression.early_exit import exits
from raydistill.errors import ConfigError
from raydistill.models import create, default_num_classes, example_input, names
from raydistill.models.menu import OWN
from tests.models.conftest import Meta


def test_the_names_that_distillers_users_know() -> None:
    depths = (20, 32, 44, 56, 110)
    expected = {
        "simplenet_cifar",
        "plain20_cifar",
        "plain20_cifar_nobn",
        "resnet1202_cifar_earlyexit",
        *(f"resnet{d}_cifar{end}" for d in depths for end in ("", "_earlyexit")),
        *(f"preact_resnet{d}_cifar{end}" for d in depths for end in ("", "_conv_ds")),
        *(f"vgg{d}{end}_cifar" for d in (11, 13, 16, 19) for end in ("", "_bn")),
        *(f"preact_resnet{d}" for d in (18, 34, 50, 101, 152)),
        *(f"mobilenet{end}" for end in ("", "_075", "_050", "_025")),
        "alexnet_bn",
        "resnet50_earlyexit",
        "resnext101_32x4d",
        *(f"word_lang_model{end}" for end in ("", "_medium", "_large")),
        "decoder_lm",
        "mlp",
        "neumf",
    }
    assert expected == OWN.keys()
    assert expected <= set(names())
    assert names() == sorted(names())


UNCLASSED = {"mlp", "neumf"}
"""They classify nothing."""


def takes_long(name: str) -> bool:
    """Deep ones, and recurrent ones: torch takes these apart step by step on the meta device."""
    return any(part in name for part in ("44", "50", "56", "101", "110", "152", "word_lang"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if takes_long(name) else [])
        for name in sorted(set(OWN) - {"resnet1202_cifar_earlyexit"} - UNCLASSED)
    ],
)
def test_every_own_model_gives_the_classes_asked_for(meta: Meta, name: str) -> None:
    images = example_input(name, batch=2, num_classes=7)
    with torch.no_grad():
        output = meta(name, 7)(*(tensor.to("meta") for tensor in images))
    if isinstance(output, list):
        assert len(output) > 1
        assert all(logits.shape == (2, 7) for logits in output)
    expected = (35, 2, 7) if name.startswith("word") else (2, 35, 7) if name == "decoder_lm" else (2, 7)
    assert exits(output)[-1].shape == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simplenet_cifar", "plain20_cifar", "vgg11_cifar", "preact_resnet20_cifar"])
def test_a_model_on_the_cpu_takes_its_example(name: str) -> None:
    torch.manual_seed(0)
    logits = create(name, 7)(*example_input(name, batch=2))
    assert bool(logits.isfinite().all())
    assert float(logits.detach().std()) > 1e-3


@pytest.mark.slow
def test_importing_the_models_does_not_import_torchvision_and_a_known_name_does_neither() -> None:
    code = (
        "import sys, raydistill.models as models\n"
        "models.create('resnet20_cifar', 10), models.example_input('preact_resnet18')\n"
        "assert 'torchvision' not in sys.modules\n"
        "models.create('squeezenet1_1', 10)\n"
        "assert 'torchvision' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_users_factory_gets_classes_and_arguments(own: str) -> None:
    model = create(f"{own}:net", 5, {"width": 9})
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert model[1].out_features == 9
    assert create(f"{own}:pretrained", 5, {"pretrained": "mine"})[1].out_features == 4


@pytest.mark.parametrize(
    ("arch", "args", "words"),
    [
        ("simplenet_cifr", {}, ["model.arch", "unknown model", "did you mean 'simplenet_cifar'?"]),
        ("resnet5o", {}, ["unknown model", "did you mean 'resnet50'?"]),
        ("efficientnet_b9", {}, ["unknown model", "did you mean 'efficientnet_b"]),
        ("simplenet_cifar", {"widht": 3}, ["num_classes", "widht"]),
        ("preact_resnet20_cifar", {"conv_downsampel": 3}, ["did you mean 'conv_downsample'?"]),
        ("resnet18", {"widht": 3}, ["refuses its arguments", "widht"]),
        ("resnet18", {"weights": "DEFAULT"}, ["'weights' is not for the model; use 'pretrained'"]),
        ("vit_b_32", {"image_size": 33}, ["refuses its arguments", "indivisible"]),
        ("{own}:net", {"widht": 3}, ["(num_classes, width)", "did you mean 'width'?"]),
        ("{own}:net", {"num_classes": 3}, ["num_classes from the dataset"]),
        ("{own}:net", {"width": "four"}, ["refuses its arguments"]),
        ("{own}:net", {"pretrained": True}, ["(num_classes, width)", "pretrained"]),
        ("{own}:wrong", {}, ["must return a torch.nn.Module", "'str'"]),
        ("{own}:value", {}, ["callable"]),
        ("{own}:nett", {}, ["did you mean 'net'?"]),
        ("no_such_module_at_all:net", {}, ["cannot import", "PYTHONPATH"]),
    ],
)
def test_a_wrong_model_is_one_line_with_a_way_out(own: str, arch: str, args: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        create(arch.format(own=own), 10, args)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_network_for_a_table_gets_its_sizes_from_the_data() -> None:
    model = create("mlp", None, {"widths": [3]}, sizes={"inputs": 4, "outputs": 2, "users": 9})
    assert [tuple(weight.shape) for weight in model.parameters()] == [(3, 4), (3,), (2, 3), (2,)]
    (features,) = example_input("mlp", {"inputs": 4}, batch=5)
    assert model(features).shape == (5, 2)
    assert torch.equal(model(features), model.out(torch.relu(model.layers[0](features))))
    assert default_num_classes("mlp") is None
    assert create("mlp", None)(*example_input("mlp", batch=2)).shape == (2, 1)
    with pytest.raises(ConfigError, match=r"'mlp' gets inputs from the data, 4, got 5; leave it out"):
        create("mlp", None, {"inputs": 5}, sizes={"inputs": 4})
    with pytest.raises(
        ConfigError, match=r"mlp\(widths\): must be whole numbers from 1 up, one a hidden layer, got \[0\]"
    ):
        create("mlp", None, {"widths": [0]})
