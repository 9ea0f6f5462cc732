"""Early exits of resnet50."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from raydistill.models import create


@pytest.mark.slow
def test_early_exits_of_resnet50_stand_on_torchvisions_network() -> None:
    torch.manual_seed(4)
    model = create("resnet50_earlyexit", 5).eval()
    plain = torchvision.models.resnet50(num_classes=5).eval()
    added = plain.load_state_dict(model.state_dict(), strict=False)
    assert not added.missing_keys
    assert {name.split(".")[0] for name in added.unexpected_keys} == {
        "conv1_exit0",
        "conv2_exit0",
        "conv1_exit1",
        "fc_exit0",
        "fc_exit1",
    }
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        exit0, exit1, last = model(images)
        assert torch.allclose(last, plain(images), atol=1e-5)
        x = plain.layer1(plain.maxpool(plain.relu(plain.bn1(plain.conv1(images)))))
        y = F.avg_pool2d(x, 7, stride=1)
        y = F.conv2d(y, model.conv1_exit0.weight, model.conv1_exit0.bias, stride=2, padding=3)
        y = F.conv2d(y, model.conv2_exit0.weight, model.conv2_exit0.bias, stride=2, padding=3)
        y = F.avg_pool2d(y, 7, stride=1)
        assert y.numel() == 147 * 4
        assert torch.allclose(exit0, F.linear(y.flatten(1), model.fc_exit0.weight, model.fc_exit0.bias), atol=1e-5)
        y = F.conv2d(plain.layer2(x), model.conv1_exit1.weight, model.conv1_exit1.bias, stride=2, padding=3)
        y = F.avg_pool2d(y, 7, stride=1)
        assert y.numel() == 192 * 4
        assert torch.allclose(exit1, F.linear(y.flatten(1), model.fc_exit1.weight, model.fc_exit1.bias), atol=1e-5)
