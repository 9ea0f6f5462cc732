from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raydistill.compression.masks import MaskSet, pruned_count, smallest_mask
from raydistill.errors import CheckpointError


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
