"""The mean of what each layer gives is the float network's again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.bias_correction import channel_sums, correct_biases
from raydistill.compression.floats import as_floats
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.errors import ConfigError

X = torch.randn(128, 3, 6, 6, generator=torch.Generator().manual_seed(0)) + 1.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.plain, self.fc = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.plain(F.relu(self.deep(F.relu(self.conv(x))))))
        return self.fc(y.mean((2, 3)))


def quantized() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    PostTrainLinearQuantizer("q", None, 3).find(model, (X[:1],), None).carry_out(model)
    return model


@pytest.mark.slow
@torch.no_grad()
def test_means_are_those_of_floats_and_the_network_is_nearer() -> None:
    model = quantized()
    with as_floats():
        expected = model(X)
    before = (model(X) - expected).square().mean()
    taken = correct_biases(model, lambda: [(X[:50],), (X[50:],)])
    assert set(taken) == {"conv", "deep", "fc"}
    assert min(taken.values()) > 0
    after = model(X)
    assert torch.allclose(after.mean(0), expected.mean(0), atol=1e-5)
    assert float((after - expected).square().mean()) < 0.6 * float(before)


@torch.no_grad()
def test_by_hand_for_one_layer() -> None:
    model = nn.Sequential(nn.Linear(2, 1)).eval()
    model[0].weight.data.copy_(torch.tensor([[1.0, 0.4]]))
    model[0].bias.data.zero_()
    quantizer = PostTrainLinearQuantizer("q", None, 2, mode="SYMMETRIC_RESTRICTED")
    quantizer.find(model, (torch.ones(1, 2),), None).carry_out(model)  # 0.4 is rounded to 0
    correct_biases(model, lambda: [(torch.tensor([[1.0, 1.0], [1.0, 3.0]]),)])
    assert float(model[0].bias) == pytest.approx(0.4 * 2.0)


def test_sums_of_channels() -> None:
    total, count = channel_sums(torch.arange(12.0).view(2, 3, 2), -2)
    assert total.tolist() == [0 + 1 + 6 + 7, 2 + 3 + 8 + 9, 4 + 5 + 10 + 11]
    assert count == 4


def test_a_float_network_has_nothing_to_correct() -> None:
    with pytest.raises(ConfigError, match="is for a quantized network"):
        correct_biases(Net(), lambda: [(X,)])
