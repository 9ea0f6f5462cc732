"""The menu: names, a user's own factory, example inputs, and what is said when one is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from raydistill.compression.early_exit import exits
from raydistill.errors import ConfigError
from raydistill.models import check_input, create, default_num_classes, example_input, names
from raydistill.models.menu import OWN
from tests.models.conftest import Meta


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path) -> str:
    source = (
        "from torch import nn\n"
        "def net(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))\n"
        "def pretrained(num_classes=6, pretrained='no'):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, len(pretrained)))\n"
        "def wrong(num_classes):\n    return 'no module'\n"
        "value = 3\n"
    )
    (tmp_path / "own_models_of_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_models_of_test"


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


def deep(name: str) -> bool:
    return any(depth in name for depth in ("56", "101", "110", "152"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if deep(name) else [])
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


def test_default_classes(own: str) -> None:
    expected = {"resnet20_cifar": 10, "mobilenet": 1000, "vit_b_16": 1000, "word_lang_model_large": 33_278}
    assert {name: default_num_classes(name) for name in expected} == expected
    assert default_num_classes(f"{own}:pretrained") == 6
    for arch in (f"{own}:net", f"{own}:value"):
        with pytest.raises(ConfigError, match="does not say how many classes"):
            default_num_classes(arch)
    with pytest.raises(ConfigError, match=r"--arch: unknown model.*did you mean 'resnet50'\?"):
        default_num_classes("resnet51", "--arch")


@pytest.mark.parametrize(
    ("arch", "args", "given", "shape"),
    [
        ("resnet56_cifar", {}, None, (2, 3, 32, 32)),
        ("alexnet", {}, None, (2, 3, 224, 224)),
        ("preact_resnet18", {}, None, (2, 3, 224, 224)),
        ("inception_v3", {}, None, (2, 3, 299, 299)),
        ("vit_b_16", {"image_size": 64}, None, (2, 3, 64, 64)),
        ("maxvit_t", {"input_size": (224, 448)}, None, (2, 3, 224, 448)),
        ("resnet50", {}, (3, 32, 40), (2, 3, 32, 40)),
        ("{own}:net", {}, [3, 8, 8], (2, 3, 8, 8)),
    ],
)
def test_example_images(own: str, arch: str, args: dict, given: tuple | None, shape: tuple) -> None:
    state = torch.get_rng_state()
    (images,) = example_input(arch.format(own=own), args, 2, given)
    assert images.shape == shape
    assert images.dtype == torch.float32
    assert float(images.std()) == pytest.approx(1, abs=0.2)
    assert torch.equal(images, example_input(arch.format(own=own), args, 2, given)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_example_tokens_are_words_of_the_vocabulary() -> None:
    (tokens,) = example_input("word_lang_model", batch=4, num_classes=9, dataset_shape=(3, 32, 32))
    assert tokens.shape == (35, 4)
    assert tokens.dtype == torch.int64
    assert set(tokens.flatten().tolist()) == set(range(9))
    assert create("word_lang_model", 9)(tokens)[0].shape == (35, 4, 9)
    (turned,) = example_input("decoder_lm", batch=4, num_classes=9)
    assert turned.shape == (4, 35)
    assert create("decoder_lm", 9, {"width": 8, "heads": 2})(turned).shape == (4, 35, 9)


def test_an_example_for_a_model_nothing_is_known_of(own: str) -> None:
    with pytest.raises(ConfigError, match=r"shape of the images .* not known; name a dataset"):
        example_input(f"{own}:net")


@pytest.mark.parametrize("arch", ["resnet18", "vgg11_bn_cifar", "mobilenet_025", "densenet121", "swin_t", "googlenet"])
@pytest.mark.parametrize("side", [32, 64])
def test_models_that_pool_take_images_of_other_sizes(meta: Meta, arch: str, side: int) -> None:
    model = meta(arch, 10)
    images = example_input(arch, batch=2, dataset_shape=(3, side, side))[0].to("meta")
    assert model(images).shape == (2, 10)


@pytest.mark.parametrize(("arch", "side"), [("inception_v3", 32), ("vit_b_16", 32), ("simplenet_cifar", 64)])
def test_images_that_a_model_cannot_take_are_one_line(meta: Meta, arch: str, side: int) -> None:
    model = meta(arch, 10)
    bad = [tensor.to("meta") for tensor in example_input(arch, dataset_shape=(3, side, side))]
    with pytest.raises(
        ConfigError, match=rf"'{arch}' does not take inputs of shape \(1, 3, {side}, {side}\)"
    ) as caught:
        check_input(model, bad, arch)
    assert "\n" not in str(caught.value)
    check_input(model, [tensor.to("meta") for tensor in example_input(arch)], arch)


def test_checking_an_input_leaves_the_model_as_it_was() -> None:
    model = create("resnet20_cifar", 10)
    model.layer1.eval()
    check_input(model, example_input("resnet20_cifar"), "resnet20_cifar")
    assert model.training
    assert not model.layer1[0].bn1.training
    assert float(model.bn1.running_mean.abs().max()) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
