"""Recurrent layers keep their widths; what is before and behind them is thinned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from raydistill.compression.deployment import deploy
from raydistill.compression.summaries import total_macs
from raydistill.compression.thinning import thin

pytestmark = pytest.mark.slow


class Sequence(nn.Module):
    """Convs, a recurrent layer over the columns of an image, and a hidden linear layer behind it."""

    def __init__(self, recurrent: nn.Module, width: int = 16, packed: bool = False) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.recurrent, self.packed = recurrent, packed
        self.hidden, self.out = nn.Linear(width, 12), nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        steps = self.c2(self.c1(images).relu()).relu().mean(2).transpose(1, 2)
        if isinstance(self.recurrent, nn.RNNCellBase):
            state = None
            for step in steps.unbind(1):
                state = self.recurrent(step, state)
            last = state[0] if isinstance(state, tuple) else state
        elif self.packed:
            lengths = torch.full((len(images),), steps.shape[1])
            output, _ = self.recurrent(pack_padded_sequence(steps, lengths, batch_first=True))
            last = pad_packed_sequence(output, batch_first=True)[0][:, -1]
        else:
            last = self.recurrent(steps)[0][:, -1]
        return self.out(self.hidden(last).relu())


KINDS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: Sequence(nn.GRU(16, 16, batch_first=True)),
    "LSTM": lambda: Sequence(nn.LSTM(16, 16, batch_first=True)),
    "RNN": lambda: Sequence(nn.RNN(16, 16, batch_first=True)),
    "deep, both ways": lambda: Sequence(nn.GRU(16, 16, 2, batch_first=True, bidirectional=True), 32),
    "packed": lambda: Sequence(nn.GRU(16, 16, batch_first=True), packed=True),
    "GRUCell": lambda: Sequence(nn.GRUCell(16, 16)),
    "LSTMCell": lambda: Sequence(nn.LSTMCell(16, 16)),
    "RNNCell": lambda: Sequence(nn.RNNCell(16, 16)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_around_it_is_thinned(kind: str) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    with torch.no_grad():
        for layer, count in ((model.c1, 4), (model.c2, 8), (model.hidden, 6)):
            layer.weight[:count] = 0
            layer.bias[:count] = 0
    images = torch.randn(2, 3, 8, 8)
    expected = model(images).detach()
    report = thin(model, None, images[:1])
    assert model.c1.weight.shape == (4, 3, 3, 3)
    assert model.c2.weight.shape == (16, 4, 3, 3)  # the recurrent layer's inputs stay
    assert model.hidden.weight.shape[0] == 6
    torch.testing.assert_close(model(images), expected)
    assert any("reaches recurrent, which is" in str(kept) for kept in report.kept)


def test_the_cost_of_a_pruned_one_is_not_that_of_the_dense_one() -> None:
    model = KINDS["GRU"]().eval()
    image = torch.zeros(1, 3, 8, 8)
    dense = total_macs(model, image)
    with torch.no_grad():
        model.c1.weight[:4] = 0
        model.c1.bias[:4] = 0
    deploy(model, (image,))
    assert dense - total_macs(model, image) == 64 * 4 * 27 + 16 * 16 * 4 * 9


def test_what_shifted_windows_reach_stays_and_the_rest_goes() -> None:
    from torchvision.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    model = SwinTransformer(
        patch_size=[4, 4], embed_dim=16, depths=[2], num_heads=[2], window_size=[4, 4], num_classes=10
    ).eval()
    with torch.no_grad():
        model.features[1][0].mlp[0].weight[:10] = 0
        model.features[1][0].mlp[3].weight[:3] = 0
    images = torch.randn(1, 3, 32, 32)
    expected = model(images).detach()
    report = thin(model, None, images)
    assert model.features[1][0].mlp[0].weight.shape == (54, 16)
    assert model.features[1][0].mlp[3].weight.shape == (16, 54)
    assert any("reaches norm, which normalizes over channels" in str(kept) for kept in report.kept)
    torch.testing.assert_close(model(images), expected)
