"""Plain, pre-activation, early-exit and VGG networks for 32x32 images, against hand-worked counts and functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.models import create, example_input
from tests.models.conftest import Meta


def norm(x: Tensor, bn: nn.Module) -> Tensor:
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def shuffle_norms(model: nn.Module) -> None:
    """Statistics and scales that are not 0 and 1, so that a forgotten batch norm shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)


# 432 + 6 * 2304 + (4608 + 5 * 9216) + (18432 + 5 * 36864) + 640 by hand, and what Distiller prints of plain20.
@pytest.mark.parametrize("arch", ["plain20_cifar", "plain20_cifar_nobn", "preact_resnet20_cifar"])
def test_twenty_layers_without_projections_have_268336_weights(meta: Meta, arch: str) -> None:
    assert meta.count(arch) == 432 + 6 * 2304 + (4608 + 5 * 9216) + (18432 + 5 * 36864) + 640 == 268_336


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depths_and_projections_of_the_residual_networks(meta: Meta, depth: int) -> None:
    n = (depth - 2) // 6
    stages = 2 * n * 2304 + (4608 + (2 * n - 1) * 9216) + (18432 + (2 * n - 1) * 36864)
    without = 432 + stages + 640
    projections = 16 * 32 + 32 * 64
    assert meta.count(f"preact_resnet{depth}_cifar") == without
    assert meta.count(f"preact_resnet{depth}_cifar_conv_ds") == without + projections
    assert meta.count(f"resnet{depth}_cifar") == without + projections
    assert meta.count(f"resnet{depth}_cifar_earlyexit") == without + projections + 16_000


def test_what_distiller_prints_of_its_residual_networks(meta: Meta) -> None:
    assert meta.count("resnet20_cifar") == 270_896
    assert meta.count("resnet56_cifar") == 851_504
    assert len(meta.weights("resnet1202_cifar_earlyexit")) == 1202 + 2 + 1


def test_plain20_is_its_functions_one_after_the_other() -> None:
    torch.manual_seed(4)
    for arch in ("plain20_cifar", "plain20_cifar_nobn"):
        model = create(arch, 10).eval()
        shuffle_norms(model)
        x = images = torch.randn(2, 3, 32, 32)
        convolutions = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 19
        for name, conv in convolutions:
            x = F.conv2d(x, conv.weight, stride=2 if name in ("layer2.0.conv1", "layer3.0.conv1") else 1, padding=1)
            if "nobn" not in arch:
                x = norm(x, model.get_submodule(name.replace("conv", "bn")))
            x = x.clamp(min=0)
        assert x.shape == (2, 64, 8, 8)
        assert torch.allclose(model(images), F.linear(x.mean((2, 3)), model.fc.weight, model.fc.bias), atol=1e-4)


@pytest.mark.parametrize("arch", ["preact_resnet20_cifar", "preact_resnet20_cifar_conv_ds"])
def test_a_preact_block_that_halves_the_resolution(arch: str) -> None:
    torch.manual_seed(5)
    model = create(arch, 10).eval()
    shuffle_norms(model)
    block = model.layer2[0]
    x = torch.randn(2, 16, 8, 8)
    preact = norm(x, block.pre_bn).clamp(min=0)
    inner = norm(F.conv2d(preact, block.conv1.weight, stride=2, padding=1), block.bn).clamp(min=0)
    inner = F.conv2d(inner, block.conv2.weight, padding=1)
    if arch.endswith("conv_ds"):
        shortcut = F.conv2d(preact, block.downsample.weight, stride=2)
    else:  # each 2x2 square's mean, between eight empty channels and eight more; not pre-activated
        shortcut = torch.zeros(2, 32, 4, 4)
        shortcut[:, 8:24] = x.reshape(2, 16, 4, 2, 4, 2).mean((3, 5))
    assert torch.allclose(block(x), inner + shortcut, atol=1e-5)
    same = model.layer2[1]
    y = torch.randn(2, 32, 4, 4)
    inner = norm(F.conv2d(norm(y, same.pre_bn).clamp(min=0), same.conv1.weight, padding=1), same.bn).clamp(min=0)
    assert torch.allclose(same(y), F.conv2d(inner, same.conv2.weight, padding=1) + y, atol=1e-5)


def test_a_preact_network_takes_odd_sizes_and_ends_in_norm_and_relu() -> None:
    torch.manual_seed(6)
    model = create("preact_resnet20_cifar", 10).eval()
    shuffle_norms(model)
    images = torch.randn(2, 3, 21, 21)
    x = model.layer3(model.layer2(model.layer1(F.conv2d(images, model.conv1.weight, padding=1))))
    assert x.shape == (2, 64, 6, 6)
    features = norm(x, model.final_bn).clamp(min=0).mean((2, 3))
    assert torch.allclose(model(images), F.linear(features, model.fc.weight, model.fc.bias), atol=1e-5)


@pytest.mark.parametrize("blocks", [3, 5])
def test_an_early_exit_changes_nothing_of_the_network(blocks: int) -> None:
    torch.manual_seed(7)
    arch = f"resnet{6 * blocks + 2}_cifar"
    plain, early = create(arch, 7).eval(), create(f"{arch}_earlyexit", 7).eval()
    shuffle_norms(plain)
    added = early.load_state_dict(plain.state_dict(), strict=False)
    assert added.missing_keys == ["layer1.2.relu2.branch_net.2.weight", "layer1.2.relu2.branch_net.2.bias"]
    assert not added.unexpected_keys
    images = torch.randn(2, 3, 32, 32)
    first, last = early(images)
    assert torch.equal(last, plain(images))
    x = plain.layer1[2](plain.layer1[1](plain.layer1[0](plain.relu(plain.bn1(plain.conv1(images))))))
    pooled = x[:, :, :30, :30].reshape(2, 16, 10, 3, 10, 3).mean((3, 5)).reshape(2, 1600)
    branch = early.layer1[2].relu2.branch_net[2]
    assert torch.allclose(first, F.linear(pooled, branch.weight, branch.bias), atol=1e-5)


def test_both_exits_train_the_layers_they_share() -> None:
    model = create("resnet20_cifar_earlyexit", 10)
    first, last = model(*example_input("resnet20_cifar_earlyexit", batch=2))
    (first.logsumexp(1).sum() * 0.3 + last.logsumexp(1).sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for n, p in model.named_parameters() if n != "fc.bias")


# 9 * (sum of in * out of its convolutions) + 512 * 10, worked by hand from table 1 of the paper
@pytest.mark.parametrize(("depth", "weights"), [(11, 9_222_848), (13, 9_407_168), (16, 14_715_584), (19, 20_024_000)])
def test_vgg_has_the_papers_convolutions_and_one_classifier(meta: Meta, depth: int, weights: int) -> None:
    model = meta(f"vgg{depth}_cifar")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == depth - 3
    assert meta.count(f"vgg{depth}_cifar") == weights
    with_norms = meta(f"vgg{depth}_bn_cifar")
    assert meta.count(f"vgg{depth}_bn_cifar") == weights
    norms = [m for m in with_norms.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [m.out_channels for m in convolutions]


def test_vgg16_layers_stand_where_the_schedules_say_and_compute_as_functions() -> None:
    torch.manual_seed(8)
    model = create("vgg16_cifar", 10).eval()
    positions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [i for i, m in enumerate(model.features) if isinstance(m, nn.Conv2d)] == positions
    x = images = torch.randn(2, 3, 32, 32)
    for i in positions:
        x = F.conv2d(x, model.features[i].weight, model.features[i].bias, padding=1).clamp(min=0)
        if i in (2, 7, 14, 21, 28):
            x = F.max_pool2d(x, 2)
    assert x.shape == (2, 512, 1, 1)
    expected = F.linear(x.flatten(1), model.classifier.weight, model.classifier.bias)
    assert torch.allclose(model(images), expected, atol=1e-5)
