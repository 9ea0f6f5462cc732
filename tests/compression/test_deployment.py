"""What is deployed gives what the masked network gave."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.deployment import Deployment, deploy, noise, tensors
from raydistill.compression.structure import Folded, replay
from raydistill.models import MENU
from tests.compression.structure.test_thinned import pruned
from tests.compression.thinning.conftest import relative, unsettled


def norms_of(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "size", "left"),
    [
        ("resnet20_cifar", 32, 0),
        ("vgg11_bn_cifar", 32, 0),
        ("mobilenet", 64, 0),
        ("simplenet_cifar", 32, 0),
        # each block's first norm reads a sum, and so does the last one of all: 9 + 1; the stem's conv is read twice
        ("preact_resnet20_cifar", 32, 10),
    ],
)
@torch.no_grad()
def test_it_is_smaller_and_gives_the_same(arch: str, size: int, left: int) -> None:
    model = pruned(arch, 0.4, 0).eval()
    before, norms = copy.deepcopy(model), norms_of(model)
    images = torch.randn(2, 3, size, size)
    done = deploy(model, (images[:1],))
    assert relative(model(images), before(images)) < 1e-4
    assert norms_of(model) == left
    assert done.folded == norms - left
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in before.parameters())
    assert f"{done.removed:,} parameters removed that were zero as a whole" in done.lines

    fresh = replay(MENU[arch]().eval(), done.changes)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))


class TwoReaders(nn.Module):
    """What the conv gives is added to what its norm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.norm(maps) + maps


class TwoVisits(TwoReaders):
    """The norm follows the conv at one time, and something else at another."""

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(images)).relu())


class GivesBoth(TwoReaders):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        maps = self.conv(images)
        return maps, self.norm(maps)


class OtherAxis(nn.Module):
    """Linear layers over the last dimension, a norm over the one before, which is as long."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, rows: Tensor) -> Tensor:
        return self.norm(self.linear(rows))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (TwoReaders(), (2, 3, 6, 6)),
        (TwoVisits(), (2, 3, 6, 6)),
        (GivesBoth(), (2, 3, 6, 6)),
        (OtherAxis(), (2, 4, 3)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), (2, 3, 6, 6)),
    ],
)
@torch.no_grad()
def test_a_norm_that_cannot_be_folded_stays(model: nn.Module, shape: tuple[int, ...]) -> None:
    unsettled(model).eval()
    inputs = torch.randn(shape)
    before = model(inputs)
    done = deploy(model, (inputs,))
    assert done.changes == ()
    after = model(inputs)
    for a, b in zip(
        after if isinstance(after, tuple) else (after,), before if isinstance(before, tuple) else (before,), strict=True
    ):
        assert torch.equal(a, b)


def test_what_cannot_be_traced_is_said() -> None:
    class Refuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images: Tensor) -> Tensor:
            if images.shape[0] == 1:
                raise ValueError("one image is not enough")
            result: Tensor = self.norm(self.conv(images))
            return result

    model = Refuses()
    model.conv.weight.data[0] = 0.0
    done = deploy(model, (torch.zeros(1, 3, 6, 6),))
    assert done.changes == ()
    assert [note.partition(":")[0] for note in done.notes] == ["not thinned", "batch norms are not folded"]
    assert all("one image is not enough" in note for note in done.notes)


def test_a_network_without_dead_structure_and_norms_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    before = dict(model.named_parameters())
    done = deploy(model, (torch.zeros(1, 8),))
    assert done.lines == ("nothing to remove or to fold",)
    assert all(model.get_parameter(name) is parameter for name, parameter in before.items())


class NormThenAct(nn.BatchNorm2d):
    """A batch norm with an activation of its own, as timm's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.PReLU(channels)

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.act(super().forward(maps))
        return result


class ActThenNorm(NormThenAct):
    def forward(self, maps: Tensor) -> Tensor:
        return nn.BatchNorm2d.forward(self, self.act(maps))


@pytest.mark.parametrize(("norm", "left"), [(NormThenAct, 0), (ActThenNorm, 1)])
@torch.no_grad()
def test_of_a_norm_with_an_activation_that_stays(norm: type[NormThenAct], left: int) -> None:
    """One that is not what is folded stays as it is, and others are folded."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()

    model = unsettled(make())
    fresh = make()
    inputs = torch.randn(2, 3, 8, 8)
    before = model(inputs)
    done = deploy(model, (inputs,))
    assert relative(before, model(inputs)) < 1e-5
    assert (done.folded, norms_of(model), done.notes) == (2 - left, left, ())
    replay(fresh, done.changes)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(inputs), model(inputs))


def test_all_that_a_network_gives_is_compared() -> None:
    one, other, third = torch.ones(1), torch.zeros(2), torch.arange(3)
    given = (one, {"boxes": [other], "count": 3, "name": "x"}, [[third], None])
    assert [id(tensor) for tensor in tensors(given)] == [id(one), id(other), id(third)]
    assert tensors(one)[0] is one
    assert tensors(3) == []


def folded(model: nn.Module, *inputs: Tensor) -> Deployment:
    """What is done to a model whose norms are unsettled; its outputs stay."""
    torch.manual_seed(0)
    unsettled(model).eval()
    with torch.no_grad():
        expected = tensors(model(*inputs))
        done = deploy(model, inputs)
        for one, other in zip(tensors(model(*inputs)), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    return done


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 6, 6)),
        ((nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4)), (2, 3, 6)),
        ((nn.Linear(3, 4), nn.BatchNorm1d(4)), (5, 3)),
        ((nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)), (2, 3, 2, 2, 2)),
    ],
)
def test_a_norm_behind_a_layer_of_its_channels_is_folded(layers: tuple[nn.Module, ...], shape: tuple[int, ...]) -> None:
    done = folded(nn.Sequential(*layers), torch.randn(shape))
    assert (done.folded, done.removed, done.rounded, done.notes) == (1, 0, 0, ())
    assert done.lines == ("1 batch norm folded",)
    assert [type(change) for change in done.changes] == [Folded]


def test_two_norms_are_told_as_several_and_outputs_of_every_form_are_compared() -> None:
    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
            self.norm_a, self.norm_b = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> dict[str, Any]:
            a = self.norm_a(self.a(x))
            return {"a": a, "rest": [self.norm_b(self.b(x)), (a > 0, None)], "none": x[:0]}

    done = folded(Forms(), torch.randn(5, 3))
    assert done.lines == ("2 batch norms folded",)
    found = tensors({"a": torch.ones(1), "b": [torch.zeros(2), (torch.ones(3),)], "c": "text", "d": None})
    assert [tensor.numel() for tensor in found] == [1, 2, 3]


def test_noise_is_ever_the_same_and_numbers_of_things_are_kept() -> None:
    words = torch.tensor([3, 1])
    assert noise(words) is words
    assert noise("text") == "text"
    given = torch.zeros(2, 3, dtype=torch.float64)
    assert torch.equal(noise(given), noise(given))
    assert (noise(given).dtype, noise(given).shape) == (torch.float64, given.shape)
    assert noise(given).unique().numel() == 6


def test_what_is_zero_as_a_whole_goes_and_is_counted() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), Residual(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        model[1].inner.weight.zero_()
        model[1].inner.bias.zero_()
        model[2].weight[1] = model[2].bias[1] = 0
    x = torch.randn(6, 3)
    expected, before = model(x).detach(), sum(p.numel() for p in model.parameters())
    done = deploy(model, (x,))
    torch.testing.assert_close(model(x), expected)
    assert done.removed == before - sum(p.numel() for p in model.parameters()) == 20 + (4 + 1 + 2)
    assert done.lines == ("27 parameters removed that were zero as a whole", "1 block gone that did nothing: 1")
    assert len(done.changes) == 2
    columns = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    columns[1].weight.data[:, 2] = 0
    assert deploy(columns, (x,)).removed == 3 + 1 + 2


def test_a_scale_of_zero_is_looked_for_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    unsettled(model).eval()
    model[1].weight.data[2] = 0
    model[1].bias.data[2] = -1.0  # behind the ReLU it is zero
    x = torch.randn(6, 3)
    expected = model(x).detach()
    done = deploy(model, (x,))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert done.removed > 0
    assert model[0].out_features == 3
