"""A thinned network made again from its factory, the record of what was done, and its saved tensors."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.structure import Selection, Thinned, replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.errors import CheckpointError
from raydistill.models import MENU
from tests.compression.thinning.conftest import relative, unsettled


def pruned(arch: str, share: float, seed: int) -> nn.Module:
    """The same filters of all layers of a width are zero, and some channels, so that sums lose some too."""
    torch.manual_seed(seed)
    model = unsettled(MENU[arch]())
    common = torch.rand(4096) < share
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.data.index_fill_(0, common[: len(module.weight)].nonzero().flatten(), 0)
            module.weight.data.index_fill_(1, (torch.rand(module.weight.shape[1]) < 0.1).nonzero().flatten(), 0)
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data[common[: len(module.bias)]] = 0.0
            module.weight.data[common[: len(module.bias)]] = 0.0
    return model


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        *(("simplenet_cifar", 32), ("resnet20_cifar", 32), ("preact_resnet20_cifar", 32), ("vgg11_bn_cifar", 32)),
        ("mobilenet", 64),
    ],
)
def test_it_is_made_again_from_its_factory(arch: str, size: int, exact: bool) -> None:
    model = pruned(arch, 0.4, 0)
    images = torch.randn(2, 3, size, size)
    structure = [*thin(model, None, images[:1], exact=exact).changes]
    assert structure[0].outputs
    assert structure[0].inputs
    saved = through_a_file({"model": model.state_dict(), "structure": structure_state(structure)})
    assert structure_from(saved["structure"]) == tuple(structure)

    torch.manual_seed(1)
    fresh = MENU[arch]().eval()
    parameters, before = list(fresh.parameters()), copy.deepcopy(fresh.state_dict())
    assert replay(fresh, structure_from(saved["structure"])) is fresh
    assert all(one is other for one, other in zip(parameters, fresh.parameters(), strict=True))
    for name, module in fresh.named_modules():  # the fresh values of what stayed, in numpy
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            rows, columns = (
                side[name].kept if name in side else range(before[f"{name}.weight"].shape[dim])
                for dim, side in enumerate((structure[0].outputs, structure[0].inputs))
            )
            if getattr(module, "groups", 1) > 1:  # depthwise: its only column stays
                columns = range(1)
            expected = before[f"{name}.weight"].numpy()[np.ix_(rows, columns)]
            assert np.array_equal(module.weight.detach().numpy(), expected)
    fresh.load_state_dict(saved["model"], strict=True)
    assert torch.equal(fresh(images), model(images))
    assert repr(fresh) == repr(model)


@pytest.mark.slow
def test_a_network_that_was_thinned_twice_went_through_two_changes() -> None:
    model = pruned("resnet20_cifar", 0.3, 0)
    images = torch.randn(2, 3, 32, 32)
    structure = [*thin(model, None, images[:1]).changes]
    conv, norm = model.layer1[0].conv1, model.layer1[0].bn1
    conv.weight.data[-2:] = norm.weight.data[-2:] = norm.bias.data[-2:] = 0.0
    expected = model(images).detach()
    structure.extend(thin(model, None, images[:1]).changes)
    assert relative(expected, model(images)) < 1e-5
    assert structure[1].outputs["layer1.0.conv1"].width == len(structure[0].outputs["layer1.0.conv1"].kept)
    fresh = replay(MENU["resnet20_cifar"]().eval(), structure)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))


class Every(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.PReLU(8)),
            *(nn.ConvTranspose2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        )


@pytest.mark.slow
def test_layers_without_tensors_transposed_and_grouped_ones() -> None:
    torch.manual_seed(0)
    model = unsettled(Every())
    model[0].weight.data[[1, 5]] = model[0].bias.data[[1, 5]] = 0.0
    model[3].weight.data[:, [0, 3]] = 0.0
    model[5].weight.data[[0, 6]] = 0.0
    images = torch.randn(1, 3, 6, 6)
    expected = model(images).detach()
    (change,) = thin(model, None, images).changes
    assert relative(expected, model(images)) < 1e-5
    assert change.outputs["1"] == Selection(8, (0, 2, 3, 4, 6, 7))
    assert change.outputs["3"] == change.inputs["5"] == Selection(6, (1, 2, 4, 5))
    fresh = replay(Every().eval(), [change])
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))
    assert fresh[1].num_features == 6
    assert fresh[2].num_parameters == 6


def test_nothing_removed_is_no_change() -> None:
    torch.manual_seed(0)
    assert thin(unsettled(Every()), None, torch.randn(1, 3, 6, 6)).changes == ()
    assert not Thinned({}, {})
    assert Thinned({"0": Selection(3, (1,))}, {})


GOOD = {
    "change": "thinned",
    "outputs": {"0": {"width": 8, "kept": [0, 2]}},
    "inputs": {"3": {"width": 8, "kept": [0, 2]}},
}


def with_output(layer: str, width: Any, kept: Any) -> list[Any]:
    return [{**GOOD, "outputs": {layer: {"width": width, "kept": kept}}}]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({}, "structure: must be a list of changes, got {}"),
        ([3], "structure: must be a list of changes, got [3]"),
        ([{"change": "thined"}], "structure[0].change: is not known, got 'thined'; did you mean 'thinned'?"),
        ([{"change": None}], "structure[0].change: is not known, got None"),
        ([{"change": "thinned"}], "structure[0].outputs: must map layers to what stayed, got None"),
        ([{**GOOD, "inputs": {3: {}}}], "structure[0].inputs: must map layers to what stayed"),
        (with_output("0", 8, [2, 0]), "structure[0].outputs.0: must keep positions from 0 to 7, sorted, each once"),
        (with_output("0", 8, [0, 0]), "must keep positions from 0 to 7, sorted, each once, got [0, 0]"),
        (with_output("0", 8, [-1, 0]), "must keep positions from 0 to 7, sorted, each once"),
        (with_output("0", 8, [7, 8]), "must keep positions from 0 to 7, sorted, each once"),
        (with_output("0", 8, []), "must keep positions from 0 to 7, sorted, each once"),
        (with_output("0", 8, [0.5]), "must have a width and a list of the positions kept"),
        (with_output("0", 8, [True]), "must have a width and a list of the positions kept"),
        (with_output("0", 8, [2**80]), "must have a width and a list of the positions kept"),
        (with_output("0", True, [0]), "must have a width and a list of the positions kept"),
        (with_output("0", 8, torch.tensor([[0]])), "must have a width and a list of the positions kept"),
        (with_output("0", 8, torch.tensor([0.0])), "must have a width and a list of the positions kept"),
        (with_output("0", 7, [0]), "structure[0].outputs.0: must be of 8 channels, got 7"),
        (with_output("00", 8, [0]), "structure[0].outputs.00: the model has no such layer; did you mean '0'?"),
        (with_output("4", 8, [0]), "the model's layer of this name cannot lose channels there, got 'ReLU'"),
        (with_output("", 8, [0]), "the model's layer of this name cannot lose channels there, got 'Every'"),
        (with_output("5", 8, [0, 1, 4]), "structure[0].outputs.5: must keep as many in each group, got [2, 1]"),
        (
            [{**GOOD, "inputs": {"1": {"width": 8, "kept": [0]}}}],
            "structure[0].inputs.1: the model's layer of this name cannot lose channels there, got 'InstanceNorm2d'",
        ),
    ],
)
def test_what_does_not_fit_is_a_line_and_changes_nothing(state: Any, line: str) -> None:
    model = Every()
    before = repr(model)
    with pytest.raises(CheckpointError) as caught:
        replay(model, structure_from(state))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert repr(model) == before
    replay(model, structure_from([GOOD]))
    assert model[0].out_channels == 2


def test_a_depthwise_conv_has_no_inputs_of_its_own_to_lose() -> None:
    state = [{"change": "thinned", "outputs": {}, "inputs": {"0": {"width": 4, "kept": [0]}}}]
    with pytest.raises(CheckpointError, match="cannot lose channels there"):
        replay(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), structure_from(state))


class Scored(nn.Module):
    """Numbers that its code reads, and a parameter outside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.scale, self.ready = 4, 0.5, True
        self.table = nn.Parameter(torch.arange(12.0).view(4, 3))


def with_numbers(**changes: Any) -> list[Any]:
    return [{"change": "thinned", "outputs": {}, "inputs": {}, "attributes": {"0": changes}}]


def with_table(name: str = "0.table", dim: Any = 0, width: int = 4) -> list[Any]:
    entry = {"dim": dim, "width": width, "kept": [1, 3]}
    return [{"change": "thinned", "outputs": {}, "inputs": {}, "tables": {name: entry}}]


def test_numbers_of_modules_and_parameters_outside_layers_are_made_again() -> None:
    model = nn.Sequential(Scored())
    replay(model, structure_from(with_numbers(heads=[4, 1], scale=[0.5, 1e-9])))
    replay(model, structure_from(with_table()))
    assert (model[0].heads, model[0].scale, model[0].table.tolist()) == (1, 1e-9, [[3, 4, 5], [9, 10, 11]])


@pytest.mark.parametrize(
    ("state", "line"),
    [
        *(
            (with_numbers(heads=[4, after]), "0.heads: must be a number of the module's that goes down from 4")
            for after in (4, 5, 0, -1)
        ),
        (with_numbers(heads=[3, 2]), "must be a number of the module's that goes down from 3, got 4"),
        *(
            (with_numbers(scale=[0.5, after]), "0.scale: must be a number of the module's that goes down from")
            for after in (0.0, -0.5)
        ),
        (with_numbers(nosuch=[4, 2]), "attributes.0.nosuch: must be a number of the module's"),
        (with_numbers(forward=[4, 2]), "attributes.0.forward: must be a number of the module's"),
        *(
            (with_numbers(heads=pair), "attributes: must map modules to names of numbers, before and after")
            for pair in ([4], [4, 2.0], [True, False], ["4", "2"], [4.0, float("nan")], [float("inf"), 1.0], 4)
        ),
        (with_numbers(), "attributes: must map modules to names of numbers, before and after"),
        ([{**with_numbers()[0], "attributes": {"1": {"heads": [4, 2]}}}], "the model has no such module"),
        (with_table("0.tabel"), "tables.0.tabel: must be a parameter with 4 entries in dimension 0"),
        (with_table(width=5), "must be a parameter with 5 entries in dimension 0, got (4, 3)"),
        (with_table(dim=2), "must be a parameter with 4 entries in dimension 2, got (4, 3)"),
        *((with_table(dim=dim), "tables.0.table.dim: must be a dimension") for dim in (-1, 64, True, 0.0, None)),
    ],
)  # fmt: skip
def test_numbers_and_parameters_that_do_not_fit_are_a_line_and_change_nothing(state: Any, line: str) -> None:
    model = nn.Sequential(Scored())
    with pytest.raises(CheckpointError) as caught:
        replay(model, structure_from(state))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (model[0].heads, model[0].scale, model[0].table.shape) == (4, 0.5, (4, 3))


def test_what_stays_is_written_down_and_comes_back_with_numbers_and_tables() -> None:
    """Rows 1 and 3 and column 0 of the first layer go, a number of the network's own code and a table follow."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
            self.heads, self.scale = 4, 0.5
            self.table = nn.Parameter(torch.arange(8.0).view(2, 4))

    model = Own()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    leaving = {("first", False): torch.tensor([3, 1]), ("first", True): torch.tensor([0]),
               ("last", True): torch.tensor([1, 3])}  # fmt: skip
    made = Thinned.of(model, leaving)
    assert made.outputs == {"first": Selection(4, (0, 2))}
    assert made.inputs == {"first": Selection(3, (1, 2)), "last": Selection(4, (0, 2))}
    change = Thinned(made.outputs, made.inputs, {"": {"heads": (4, 2), "scale": (0.5, 0.7)}},
                     {"table": (1, Selection(4, (0, 2)))})  # fmt: skip
    (again,) = structure_from(through_a_file(structure_state([change])))
    assert again == change
    assert "attributes" not in made.to_state()
    assert "tables" not in made.to_state()
    again.apply(model)
    assert torch.equal(model.first.weight, before["first.weight"][[0, 2]][:, [1, 2]])
    assert torch.equal(model.first.bias, before["first.bias"][[0, 2]])
    assert torch.equal(model.last.weight, before["last.weight"][:, [0, 2]])
    assert model.table.tolist() == [[0, 2], [4, 6]]
    assert (model.heads, model.scale, model.first.out_features, model.first.in_features) == (2, 0.7, 2, 2)
    under = change.under(lambda name: f"part.{name}" if name else "part")
    assert set(under.outputs) == {"part.first"}
    assert set(under.inputs) == {"part.first", "part.last"}
    assert (set(under.attributes), set(under.tables)) == ({"part"}, {"part.table"})
    assert change.sides()["last"][0] is None
    assert change.sides()["last"][1].tolist() == [0, 2]  # type: ignore[union-attr]
    for attributes, tables, said in (
        (
            {"": {"heads": (3, 2)}},
            {},
            r"x\.attributes\.\.heads: must be a number of the module's that goes down from 3",
        ),
        ({"": {"heads": (2, 2)}}, {}, "goes down from 2"),
        ({"": {"heads": (2, 0)}}, {}, "goes down from 2"),
        ({"": {"scale": (0.7, 0.0)}}, {}, "goes down from 0.7"),
        ({"": {"none": (1, 1)}}, {}, "goes down from 1"),
        ({"other": {}}, {}, r"x\.attributes\.other: the model has no such module"),
        (
            {},
            {"table": (1, Selection(3, (0,)))},
            r"x\.tables\.table: must be a parameter with 3 entries in dimension 1",
        ),
        ({}, {"table": (2, Selection(2, (0,)))}, "must be a parameter with 2 entries in dimension 2"),
        ({}, {"gone": (0, Selection(2, (0,)))}, "must be a parameter with 2 entries in dimension 0"),
    ):
        with pytest.raises(CheckpointError, match=said):
            Thinned({}, {}, attributes, tables).apply(model, "x")
