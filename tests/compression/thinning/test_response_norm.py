"""Hidden channels behind a global response norm go, and what stays is as it was."""

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import ResponseNormKind
from raydistill.compression.structure import Thinned, replay
from raydistill.compression.thinning import reshape_like, thin
from raydistill.compression.thinning.coupling import couplings


class ResponseNorm(nn.Module):
    """Channels last; x + bias + weight * x * g / (mean of g + eps)."""

    layer_kind = ResponseNormKind()

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width)), 0.3

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().sum((1, 2), keepdim=True).sqrt()
        return x + self.bias + self.weight * x * size / (size.mean(-1, keepdim=True) + self.eps)


class Net(nn.Module):
    """(B, H, W, 3) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.grn, self.down = nn.Linear(3, 8), nn.GELU(), ResponseNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.grn(self.act(self.up(x)))).mean((1, 2))


GONE = torch.tensor([1, 4, 6])


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_channels_of_zeros_go_and_their_biases_are_taken_up(net: Net, maps: Tensor) -> None:
    net.up.weight[GONE] = 0
    net.up.bias[GONE] = 0
    before, larger = net(maps), torch.randn(1, 9, 7, 3)
    before_larger = net(larger)
    report = thin(net, None, maps)
    assert report.removed == {"up": 3}
    assert net.grn.weight.shape == (5,)
    assert net.grn.eps == pytest.approx(0.3 * 8 / 5)
    torch.testing.assert_close(net(maps), before, rtol=0, atol=1e-5)
    torch.testing.assert_close(net(larger), before_larger, rtol=0, atol=1e-5)  # of another size, too


@torch.no_grad()
def test_a_channel_that_is_not_zero_at_the_norm_stays(net: Net, maps: Tensor) -> None:
    net.up.weight[GONE] = 0  # its bias is left, so the norm counts a constant
    net.down.weight[:, GONE] = 0
    report = thin(net, None, maps)
    assert not report.removed
    assert net.up.out_features == 8
    assert "grn counts the channel" in report.kept[0].reason


@torch.no_grad()
def test_a_channel_that_nobody_reads_but_the_norm_stays(net: Net, maps: Tensor) -> None:
    net.down.weight[:, GONE] = 0
    assert not thin(net, None, maps).removed
    assert net.up.out_features == 8


@torch.no_grad()
def test_what_is_pruned_together_has_the_bias_before_the_norm(net: Net, maps: Tensor) -> None:
    (coupling,) = couplings(net, maps).couplings
    weights = dict(net.named_parameters())
    keep = torch.ones(8)
    keep[GONE] = 0
    masks = coupling.expand(keep, {each.weight: weights[each.weight] for each in coupling.slices})
    assert masks["up.bias"].tolist() == keep.tolist()
    assert thin(net, masks, maps).removed == {"up": 3}


@torch.no_grad()
def test_the_record_gives_a_fresh_network_the_shapes_and_eps(net: Net, maps: Tensor) -> None:
    net.up.weight[GONE] = 0
    net.up.bias[GONE] = 0
    report = thin(net, None, maps)
    states = [change.to_state() for change in report.changes]
    fresh = replay(Net().eval(), [Thinned.from_state(state) for state in states])
    fresh.load_state_dict(net.state_dict())
    assert fresh.grn.eps == pytest.approx(0.3 * 8 / 5)
    assert torch.equal(fresh(maps), net(maps))


@torch.no_grad()
def test_shapes_alone_give_a_fresh_network_the_eps(net: Net, maps: Tensor) -> None:
    net.up.weight[GONE] = 0
    net.up.bias[GONE] = 0
    before = net(maps)
    thin(net, None, maps)
    fresh = Net().eval()
    change = reshape_like(fresh, net.state_dict())
    for other in (fresh, replay(Net().eval(), [Thinned.from_state(change.to_state())])):
        other.load_state_dict(net.state_dict())
        assert other.grn.eps == pytest.approx(0.3 * 8 / 5)
        assert torch.equal(other(maps), net(maps))
        torch.testing.assert_close(other(maps), before, rtol=0, atol=1e-5)


def test_timms_norm_is_known() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    net = timm.create_model("convnextv2_atto", depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), num_classes=3).eval()
    images = torch.randn(1, 3, 32, 32)
    block = net.stages[0].blocks[0].mlp
    with torch.no_grad():
        for module in net.modules():
            if type(module).__name__ == "GlobalResponseNorm":
                module.weight.normal_()
                module.bias.normal_()
        block.fc1.weight[:5] = 0
        block.fc1.bias[:5] = 0
        before = net(images)
        thin(net, None, images)
        assert len(block.fc1.weight) == 11
        torch.testing.assert_close(net(images), before, rtol=0, atol=1e-5)


class WrittenIn(nn.Module):
    """Channels first, its eps in the code, its tensors as they are multiplied."""

    layer_kind = ResponseNormKind(eps=0.3)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().sum((2, 3), keepdim=True).sqrt()
        return x + self.bias + self.weight * x * size / (size.mean(1, keepdim=True) + 0.3)


@torch.no_grad()
def test_an_eps_that_is_written_into_the_code_follows_too() -> None:
    def made() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU(), WrittenIn(8), nn.Conv2d(8, 5, 1)).eval()

    net, maps = made(), 0.1 * torch.randn(2, 3, 4, 4)
    net[0].weight[GONE] = 0
    net[0].bias[GONE] = 0
    before, weight = net(maps), net[2].weight
    report = thin(net, None, maps)
    assert report.removed == {"0": 3}
    assert net[2].weight is weight
    assert weight.shape == (1, 5, 1, 1)
    torch.testing.assert_close(net(maps), before, rtol=0, atol=1e-6)
    by_shapes, replayed = made(), replay(made(), [Thinned.from_state(each.to_state()) for each in report.changes])
    reshape_like(by_shapes, net.state_dict())
    for fresh in (by_shapes, replayed):
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(fresh(maps), net(maps))
    net[0].weight[0] = net[0].bias[0] = 0  # once more
    before = net(maps)
    assert thin(net, None, maps).removed == {"0": 1}
    torch.testing.assert_close(net(maps), before, rtol=0, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_the_norm_of_transformers_is_known() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [4, 6], "depths": [1, 1], "num_stages": 2, "patch_size": 2, "image_size": 16}
    net = transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(num_labels=3, **sizes)).eval()
    images = torch.randn(1, 3, 16, 16)
    block = net.convnextv2.encoder.stages[0].layers[0]
    for parameter in net.parameters():
        parameter.normal_(0, 0.3)
    block.pwconv1.weight[:5] = 0
    block.pwconv1.bias[:5] = 0
    before = net(images).logits
    assert "convnextv2.encoder.stages.0.layers.0.pwconv1" in couplings_of(net, images)
    thin(net, None, images)
    assert len(block.pwconv1.weight) == 11
    assert block.grn.weight.shape == (1, 1, 1, 11)
    torch.testing.assert_close(net(images).logits, before, rtol=0, atol=1e-5)


def couplings_of(net: nn.Module, images: Tensor) -> set[str]:
    """By the first layer that writes each; all that is beside one is as wide."""
    found = couplings(net, images).couplings
    sizes = dict(net.named_parameters())
    for each in found:
        for one in (*each.norms, *each.shifts, *each.biases):
            assert one.of(sizes[one.weight]).shape == (each.count, 1)
    return {each.name for each in found}
