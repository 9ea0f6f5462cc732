"""Early exits of residual networks for 32x32 images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from raydistill.models import create, example_input
from tests.models.conftest import Meta
from tests.models.norms import shuffle_norms

pytestmark = pytest.mark.slow


def test_what_distiller_prints_of_its_residual_networks(meta: Meta) -> None:
    assert meta.count("resnet20_cifar") == 270_896
    assert meta.count("resnet56_cifar") == 851_504
    assert len(meta.weights("resnet1202_cifar_earlyexit")) == 1202 + 2 + 1


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
