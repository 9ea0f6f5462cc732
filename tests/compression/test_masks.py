from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raydistill.compression.masks import MaskSet, largest_of_each_group, mask_of_smallest, pruned_count, smallest_mask
from raydistill.compression.structure import Dropped, StructureChange
from raydistill.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    ("level", "size", "count"),
    [
        (0.5, 5, 2),
        (0.99, 10, 9),
        (0.29, 100, 29),
        (0.0, 7, 0),
        (0.7, 10, 7),
        (1e-6, 1000, 0),
        (0.3, 450, 135),
        (0.1, 3, 0),
    ],
)
def test_a_level_between_two_whole_numbers_floors(level: float, size: int, count: int) -> None:
    assert pruned_count(level, size) == count


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2000), st.data())
def test_a_whole_number_of_weights_is_pruned_exactly(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, size))
    assert pruned_count(count / size, size) == count


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0, 0.999))
def test_exactly_the_count_is_pruned_and_nothing_kept_is_smaller_than_what_is_pruned(
    values: list[int], level: float
) -> None:
    scores = torch.tensor(values, dtype=torch.float32)  # few values: ties everywhere
    mask = smallest_mask(scores, level)
    assert int((mask == 0).sum()) == int(level * len(values) + 1e-9)
    if 0 < int((mask == 0).sum()) < len(values):
        assert scores[mask == 0].max() <= scores[mask == 1].min()


def test_zero_weights_to_prune_prunes_none_even_if_all_are_equal() -> None:
    assert smallest_mask(torch.zeros(9), 0.1).eq(1).all()
    assert smallest_mask(torch.zeros(9), 0.0).eq(1).all()


def test_all_equal_weights_are_pruned_up_to_the_target_only() -> None:
    assert int((smallest_mask(torch.ones(3, 3), 0.5) == 0).sum()) == 4


class TestMaskSet:
    def test_only_masked_parameters_are_touched_in_one_fused_call(
        self, model: nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []
        fused = torch._foreach_mul_
        monkeypatch.setattr(torch, "_foreach_mul_", lambda *lists: calls.append(len(lists[0])) or fused(*lists))
        masks = MaskSet(model)
        masks.apply()
        assert calls == []
        keep = torch.ones(10, 4)
        keep[3:] = 0
        masks.set("fc.weight", keep)
        before = model.conv.weight.detach().clone()
        masks.apply()
        assert calls == [1]
        assert model.fc.weight[3:].eq(0).all()
        assert model.fc.weight[:3].ne(0).all()
        assert torch.equal(model.conv.weight, before)

    def test_state_survives_a_round_trip_and_another_model_is_refused(self, model: nn.Module) -> None:
        masks = MaskSet(model)
        masks.set("conv.weight", (torch.rand(4, 3, 3, 3) > 0.5).float())
        other = MaskSet(model)
        other.load_state_dict(masks.state_dict())
        assert torch.equal(other["conv.weight"], masks["conv.weight"])
        with pytest.raises(CheckpointError, match=r"masks.conv.weight: the model has no weight"):
            MaskSet(nn.Linear(2, 2)).load_state_dict(masks.state_dict())

    def test_masks_fit_channels_last_weights(self, model: nn.Module) -> None:
        model.to(memory_format=torch.channels_last)
        keep = (torch.rand(4, 3, 3, 3) > 0.5).float()
        masks = MaskSet(model)
        masks.set("conv.weight", keep)
        masks.apply()
        assert torch.equal(model.conv.weight == 0, keep == 0)
        assert masks["conv.weight"].stride() == model.conv.weight.stride()

    def test_a_mask_that_scales_keeps_its_scale_in_a_saved_state(self, model: nn.Module) -> None:
        masks = MaskSet(model)
        scaled = torch.tensor([0.0, 2.0, 1.0, 0.5]).view(4, 1, 1, 1).expand(4, 3, 3, 3)
        masks.set("conv.weight", scaled, forward_only=True)
        masks.set("fc.weight", torch.ones(10, 4))
        state = masks.state_dict()
        assert state["fc.weight"].dtype == torch.bool
        masks.set("conv.weight", torch.ones(4, 3, 3, 3))  # the state is a copy
        other = MaskSet(model)
        other.load_state_dict(state, ["conv.weight"])
        assert torch.equal(other["conv.weight"], scaled)
        assert other.forward_only() == ["conv.weight"]
        before = model.conv.weight.detach().clone()
        other.apply()
        assert torch.equal(model.conv.weight, before)
        other.load_state_dict(state)
        assert other.forward_only() == []


def test_masks_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    assert [mask_of_smallest(scores, count).tolist() for count in range(5)] == [
        [[1, 1], [1, 1]], [[1, 0], [1, 1]], [[1, 0], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]],
    ]  # fmt: skip
    assert smallest_mask(scores.double(), 0.5).dtype == torch.float64
    groups = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 5.0, 6.0]])
    assert largest_of_each_group(groups, 2, 4).tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    assert largest_of_each_group(groups, 1, 2).tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    assert pruned_count(2.0, 3) == 3


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0, 2.0]]))
            self.b.weight.copy_(torch.tensor([[3.0, 4.0]]))


LEFT = torch.tensor([[1.0, 0.0]])


def test_masks_of_the_forward_pass_and_what_the_weights_were() -> None:
    model = TwoLayers()
    masks = MaskSet(model)
    assert (masks.names(), "a.weight" in masks) == ((), False)
    masks.set("a.weight", LEFT, forward_only=True)
    masks.set("b.weight", LEFT)
    assert (masks.names(), "a.weight" in masks) == (("a.weight", "b.weight"), True)
    masks.apply()
    assert (model.a.weight.tolist(), model.b.weight.tolist()) == ([[1, 2]], [[3, 0]])
    names = ("a.weight", "gone.weight")
    masks.mask_for_forward(names, keep_copies=True)
    assert model.a.weight.tolist() == [[1, 0]]
    masks.restore_copies(names)
    assert model.a.weight.tolist() == [[1, 2]]
    with torch.no_grad():
        model.a.weight.fill_(7.0)
    masks.restore_copies(names)  # there is none left
    assert model.a.weight.tolist() == [[7, 7]]
    masks.mask_for_forward(names, keep_copies=False)
    masks.restore_copies(names)
    assert model.a.weight.tolist() == [[7, 0]]
    model.a.weight.grad = torch.ones(1, 2)
    masks.mask_gradients(["a.weight", "b.weight"])  # the second has no gradient
    assert model.a.weight.grad.tolist() == [[1, 0]]
    masks.set("a.weight", None)
    model.a.weight.grad = torch.ones(1, 2)
    masks.mask_gradients(["a.weight"])
    assert model.a.weight.grad.tolist() == [[1, 1]]
    assert (masks.names(), masks.forward_only()) == (("b.weight",), [])
    masks.set("a.weight", LEFT, forward_only=True)
    masks.set("a.weight", LEFT)
    assert masks.forward_only() == []
    assert masks.sparsity() == {"b.weight": 0.5, "a.weight": 0.5}


def test_changes_are_counted_and_a_saved_state_takes_the_place_of_all() -> None:
    model = TwoLayers()
    masks = MaskSet(model)
    counts = [masks.changes]
    masks.set("a.weight", LEFT)
    counts.append(masks.changes)
    masks.set("a.weight", None)
    counts.append(masks.changes)
    masks.load_state_dict({"b.weight": LEFT})
    counts.append(masks.changes)
    masks.load_state_dict({})
    counts.append(masks.changes)
    masks.rebind(model, {})
    counts.append(masks.changes)
    assert counts == sorted(set(counts)), "it rises each time"
    masks.load_state_dict({"b.weight": LEFT.bool()})
    masks.load_state_dict({"a.weight": LEFT})
    assert masks.names() == ("a.weight",)
    masks.apply()
    assert (model.a.weight.tolist(), model.b.weight.tolist()) == ([[1, 0]], [[3, 4]])


def test_parameters_that_were_replaced_or_moved_are_followed_and_masked() -> None:
    model = TwoLayers()
    masks = MaskSet(model)
    masks.set("a.weight", LEFT, forward_only=True)
    masks.set("b.weight", LEFT)
    masks.follow(model)
    assert model.b.weight.tolist() == [[3, 4]], "nothing was replaced, so nothing is applied yet"
    model.b.weight = nn.Parameter(torch.tensor([[5.0, 6.0]]))
    model.a.weight.data = torch.tensor([[7.0, 8.0]])
    masks.follow(model)
    assert masks.parameter("b.weight") is model.b.weight
    assert (model.a.weight.tolist(), model.b.weight.tolist()) == ([[7, 8]], [[5, 0]])
    assert masks.forward_only() == ["a.weight"]
    masks.mask_for_forward(["a.weight"], keep_copies=False)
    assert model.a.weight.tolist() == [[7, 0]]
    model.c = nn.Linear(2, 1, bias=False)
    masks.follow(model, ["c.weight"])
    masks.set("c.weight", LEFT)
    masks.apply()
    assert model.c.weight[0, 1] == 0
    del model.c
    with pytest.raises(ConfigError, match=r"c.weight: is gone from the model"):
        masks.follow(model)
    masks.set("c.weight", None)
    masks.follow(model)
    with pytest.raises(ConfigError, match=r"c.weight: is gone from the model"):
        masks.follow(model, ["c.weight"])
    model.b.weight = nn.Parameter(torch.zeros(1, 3))
    with pytest.raises(ConfigError, match=r"b.weight: is of shape \(1, 3\)"):
        masks.follow(model)


def test_a_model_that_was_cut_has_other_masks_and_those_who_listen_are_told() -> None:
    model, told = TwoLayers(), []
    masks = MaskSet(model)
    masks.listeners.append(told.append)
    masks.set("a.weight", LEFT, forward_only=True)
    masks.set("b.weight", LEFT, forward_only=True)
    masks.mask_for_forward(["a.weight"], keep_copies=True)
    model.a = nn.Linear(1, 1, bias=False)
    cut = StructureChange(Dropped({"a": "nothing"}), {})
    masks.rebind(model, {"a.weight": torch.zeros(1, 1)}, cut)
    assert told == [cut]
    assert (masks.names(), masks.forward_only()) == (("a.weight",), ["a.weight"])
    before = model.a.weight.detach().clone()
    masks.restore_copies(["a.weight"])  # of another shape
    assert torch.equal(model.a.weight, before)
    masks.rebind(model, {})
    masks.rebind(model, {}, StructureChange(Dropped({}), {}))
    assert told == [cut]
    masks.set("b.weight", LEFT)
    masks.apply()
    assert model.b.weight.tolist() == [[3, 0]]
