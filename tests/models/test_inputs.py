"""Examples of what networks take, and what they cannot take."""

from __future__ import annotations

import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.models import check_input, create, default_num_classes, example_input
from tests.models.conftest import Meta


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


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet18", "vgg11_bn_cifar", "mobilenet_025", "densenet121", "swin_t", "googlenet"])
@pytest.mark.parametrize("side", [32, 64])
def test_models_that_pool_take_images_of_other_sizes(meta: Meta, arch: str, side: int) -> None:
    model = meta(arch, 10)
    images = example_input(arch, batch=2, dataset_shape=(3, side, side))[0].to("meta")
    assert model(images).shape == (2, 10)


@pytest.mark.slow
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
