from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from raydistill.compression.structure import Thinned, replay
from raydistill.compression.thinning import reshape_like, thin
from raydistill.errors import CheckpointError
from tests.compression.thinning.conftest import unsettled, zeroed

IMAGE = torch.zeros(1, 3, 8, 8)


def net(classes: int = 4, size: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.PReLU(6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ConvTranspose2d(6, 5, 1),
        nn.InstanceNorm2d(5, affine=True),
        nn.Conv2d(5, 8, 1),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.Flatten(),
        nn.Linear(6 * size * size, classes),
    )


@pytest.fixture
def thinned() -> nn.Sequential:
    torch.manual_seed(0)
    model = unsettled(net())
    for layer in (0, 3):
        model[layer].bias.data.zero_()
    model[1].bias.data[[1, 2]] = model[1].running_mean[[1, 2]] = 0.0
    # dim 1 of a transposed conv's weight is its outputs
    zeroed(model, {"0": [1, 2], "6": [0, 4], "7": [2, 5]}, {"4": [0]})
    report = thin(model, None, IMAGE)
    assert set(report.removed) == {"0", "3", "4", "6", "7"}
    return model


@pytest.mark.slow
def test_a_fresh_model_takes_the_shapes_from_the_saved_tensors_alone(thinned: nn.Sequential) -> None:
    model = net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    changed = reshape_like(model, thinned.state_dict())
    assert {"0", "1", "3"} <= set(changed.outputs)
    assert "9" in changed.inputs
    assert "9" not in changed.outputs
    other = replay(net(), [changed])
    assert {n: t.shape for n, t in other.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}
    model.load_state_dict(thinned.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x), thinned(x))
    assert repr(model) == repr(thinned)
    assert model[3].groups == model[3].in_channels == 4
    assert (model[7].groups, model[7].in_channels, model[7].out_channels) == (2, 6, 4)
    model.train()(x).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, thinned[0].weight)


@pytest.mark.slow
def test_shapes_that_are_there_already_change_nothing(thinned: nn.Sequential) -> None:
    assert reshape_like(copy.deepcopy(thinned), thinned.state_dict()) == Thinned({}, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("9.weight", (3, 256)),  # another number of classes, with its bias
        ("0.weight", (4, 3, 5, 5)),  # another kernel
        ("0.weight", (4, 3, 3)),
        ("6.weight", (9, 4, 1, 1)),  # wider than it was built
        ("1.running_var", (3,)),
        ("1.bias", (3,)),  # not what the rest of its layer has
        ("7.weight", (3, 3, 1, 1)),  # two groups cannot have three filters
        ("3.weight", (4, 2, 3, 3)),
    ],
)
def test_what_thinning_does_not_do_is_another_architecture(
    thinned: nn.Sequential, name: str, shape: tuple[int, ...]
) -> None:
    state = {**thinned.state_dict(), name: torch.zeros(shape)}
    if name == "9.weight":
        state["9.bias"] = torch.zeros(3)
    model = net()
    before = repr(model)
    with pytest.raises(CheckpointError, match=r"c.pt: '\d.\w+' must have shape .* choose its architecture or dataset"):
        reshape_like(model, state, "c.pt")
    assert repr(model) == before
    assert model[0].weight.shape == (6, 3, 3, 3)


def test_another_image_size_or_number_of_classes_is_not_taken_for_thinning() -> None:
    with pytest.raises(CheckpointError, match=r"'9.weight' must have shape \(4, 384\), got \(4, 216\)"):
        reshape_like(net(), net(size=6).state_dict())
    with pytest.raises(CheckpointError, match=r"'9.weight' must have shape \(4, 384\), got \(3, 384\)"):
        reshape_like(net(), net(classes=3).state_dict())


def chain() -> nn.Sequential:
    """Everything that can be narrower, none of it called: rows 6 and 8 may shrink, with what reads them."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 1, groups=2),
        nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(4, 5, 1), nn.Linear(5, 2),
    )  # fmt: skip


def narrow() -> dict[str, torch.Tensor]:
    """What is left with 4 channels of 6, 6 of 8, and 1 of 4."""
    shapes = {
        "0.weight": (4, 3, 3, 3), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "1.running_mean": (4,),
        "1.running_var": (4,), "2.weight": (4, 1, 3, 3), "2.bias": (4,), "3.weight": (6, 2, 1, 1), "3.bias": (6,),
        "4.weight": (6, 1, 2, 2), "4.bias": (1,), "5.weight": (5, 1, 1, 1),
    }  # fmt: skip
    return {**chain().state_dict(), **{name: torch.rand(shape) for name, shape in shapes.items()}}


def test_every_kind_of_layer_takes_the_shapes_and_says_which_positions_stand_for_them() -> None:
    model, state = chain(), narrow()
    parameters = dict(model.named_parameters())
    changed = reshape_like(model, {**state, "another": torch.zeros(9)})
    model.load_state_dict(state)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert {name: (each.width, each.kept) for name, each in changed.outputs.items()} == {
        "0": (6, (0, 1, 2, 3)), "1": (6, (0, 1, 2, 3)), "2": (6, (0, 1, 2, 3)), "3": (8, (0, 1, 2, 4, 5, 6)),
        "4": (4, (0,)),
    }  # fmt: skip
    assert {name: (each.width, each.kept) for name, each in changed.inputs.items()} == {
        "3": (6, (0, 1, 3, 4)), "4": (8, (0, 1, 2, 3, 4, 5)), "5": (4, (0,)),
    }  # fmt: skip
    assert (model[1].num_features, model[2].groups, model[3].in_channels, model[4].in_channels) == (4, 4, 4, 6)
    assert reshape_like(model, state) == Thinned({}, {})


@pytest.mark.parametrize(
    ("other", "odd"),
    [
        ({"0.weight": (4, 3, 5, 3)}, "0.weight"),  # another kernel
        ({"0.weight": (4, 3, 3)}, "0.weight"),
        ({"0.weight": (0, 3, 3, 3), "0.bias": (0,)}, "0.weight"),  # something stays
        ({"5.weight": (5, 9, 1, 1)}, "5.weight"),  # wider than it was built
        ({"1.running_var": (3,)}, "1.weight"),  # not what the rest of its layer has
        ({"0.bias": (3,)}, "0.weight"),
        ({"3.weight": (5, 2, 1, 1), "3.bias": (5,)}, "3.weight"),  # two groups cannot have five filters
        ({"2.weight": (4, 1, 2, 3)}, "2.weight"),
        ({"6.weight": (1, 5), "6.bias": (1,)}, "6.weight"),  # the network's outputs stay
        ({"4.weight": (6, 2, 2, 2)}, "4.weight"),  # in dim 1 it has its rows
    ],
)
def test_shapes_that_thinning_does_not_leave_are_told_by_name_and_nothing_changes(
    other: dict[str, tuple[int, ...]], odd: str
) -> None:
    model = chain()
    state = {**narrow(), **{name: torch.zeros(shape) for name, shape in other.items()}}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"^c.pt: '{odd}' must have shape .* choose its architecture or dataset"):
        reshape_like(model, state, "c.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_narrower_last_layer_is_only_thinned_where_another_of_its_kind_reads_as_many() -> None:
    listed_last = nn.Sequential(nn.Linear(4, 2), nn.Linear(6, 4))  # called the other way round
    state = {"0.weight": torch.zeros(2, 3), "1.weight": torch.zeros(3, 6), "1.bias": torch.zeros(3)}
    changed = reshape_like(listed_last, state)
    assert (set(changed.outputs), set(changed.inputs)) == ({"1"}, {"0"})
    with pytest.raises(CheckpointError, match=r"'1.weight' must have shape \(4, 6\), got \(3, 6\)"):
        reshape_like(nn.Sequential(nn.Linear(5, 2), nn.Linear(6, 4)), {**state, "0.weight": torch.zeros(2, 4)})
    with pytest.raises(CheckpointError, match=r"'weight' must have shape"):
        reshape_like(nn.Linear(3, 2), {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)})
    one = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3))
    cut = reshape_like(one, {"0.weight": torch.zeros(1, 3), "1.weight": torch.zeros(3, 1)})
    assert cut.outputs["0"].kept == cut.inputs["1"].kept == (0,)


class Attention(nn.Module):
    """(B, T, 12) to the same; the code runs with any of its heads that divide the width."""

    def __init__(self, heads: int = 6, width: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(12, width) for _ in range(3))
        self.proj = nn.Linear(width, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.7)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def test_numbers_that_shapes_do_not_tell_are_named_in_one_line() -> None:
    model = nn.Sequential(Attention())
    with pytest.warns(UserWarning, match=r"^c.pt: shapes do not tell .*, got '0.heads = 6'; load it .* or set them$"):
        reshape_like(model, nn.Sequential(Attention(3, 6)).state_dict(), "c.pt")
    norm = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8, affine=False), nn.Conv2d(8, 2, 1))
    narrow = {"0.weight": torch.zeros(4, 3, 1, 1), "0.bias": torch.zeros(4), "2.weight": torch.zeros(2, 4, 1, 1)}
    with pytest.warns(UserWarning, match="1.num_groups = 4"):
        reshape_like(norm, narrow)


def test_numbers_that_cannot_be_wrong_without_an_error_are_not_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reshape_like(nn.Sequential(Attention()), nn.Sequential(Attention(2, 4)).state_dict())  # 6 of 4 cannot be
        bottleneck = Attention(2, 16)
        bottleneck.q, bottleneck.k = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3)
        narrow = {
            **bottleneck.state_dict(), "q.weight": torch.zeros(8, 3, 1, 1), "q.bias": torch.zeros(8),
            "k.weight": torch.zeros(16, 8, 3, 3),
        }  # fmt: skip
        reshape_like(bottleneck, narrow)


def test_a_width_that_passes_norms_over_channels_needs_its_record() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    narrow = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)).state_dict()
    with pytest.raises(CheckpointError, match=r"'1.weight' must have .* or a checkpoint with the record of what was"):
        reshape_like(model, narrow)
