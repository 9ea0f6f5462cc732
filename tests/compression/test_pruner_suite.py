"""One suite for every pruner of the menu, over weights of a convolution and of a matrix."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.pruners import MENU, Moment, Pruner
from raydistill.compression.rates import PolicyTime

AGP = {"initial_sparsity": 0.1, "final_sparsity": 0.5}
LEVEL = {"desired_sparsity": 0.5}
FILTERS = {"group_type": "Filters", "weights": ["conv.weight"]}
CONV, BOTH = ["conv.weight"], ["conv.weight", "fc.weight"]
# class: arguments, and the fraction of zeros each weight must have at the end (None: it follows from the data)
CASES: dict[str, tuple[dict[str, Any], float | None]] = {
    "AutomatedGradualPruner": ({**AGP, "weights": BOTH}, 0.5),
    "SparsityLevelParameterPruner": ({"levels": {"conv.weight": 0.5, "fc.weight": 0.5}}, 0.5),
    "MagnitudeParameterPruner": ({"thresholds": {"*": 0.5}}, None),
    "SensitivityPruner": ({"sensitivities": {"conv.weight": 0.5, "fc.weight": 0.7}}, None),
    "SplicingPruner": (
        {"sensitivities": {"*": 0.2}, "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1, "sensitivity_multiplier": 0.1},
        None,
    ),
    "BaiduRNNPruner": ({"q": 0.5, "ramp_epoch_offset": 2, "ramp_slope_mult": 2, "weights": BOTH}, None),
    "StructureParameterPruner": (
        {"reg_regims": {"conv.weight": [0.8, "2D"], "fc.weight": [0.8, "Rows"]}, "threshold_criteria": "Mean_Abs"},
        None,
    ),
    "L1RankedStructureParameterPruner": ({**LEVEL, "group_type": "Channels", "weights": BOTH}, 0.5),
    "L2RankedStructureParameterPruner": ({**LEVEL, **FILTERS}, 0.5),
    "L1RankedStructureParameterPruner_AGP": (
        {**AGP, "group_type": "Blocks", "weights": BOTH, "kwargs": {"block_shape": [2, 2, 1, 1]}},
        0.5,
    ),
    "L2RankedStructureParameterPruner_AGP": ({**AGP, "group_type": "Rows", "weights": ["fc.weight"]}, 0.5),
    "RandomLevelStructureParameterPruner": ({**FILTERS, "sparsity_range": [0.2, 0.6]}, None),
    **{
        f"{kind}{suffix}": ({**(AGP if suffix else LEVEL), **FILTERS}, None if kind.startswith("Bernoulli") else 0.5)
        for kind in (
            "ActivationAPoZRankedFilterPruner",
            "ActivationMeanRankedFilterPruner",
            "GradientRankedFilterPruner",
            "RandomRankedFilterPruner",
            "BernoulliFilterPruner",
        )
        for suffix in ("", "_AGP")
    },
    "FMReconstructionChannelPruner": ({**LEVEL, "group_type": "Channels", "weights": CONV}, 0.5),
    "RankedPruner": ({"final_sparsity": 0.5, "weights": BOTH, "rate": "linear", "ranking": "taylor"}, 0.5),
    "NMPruner": ({"weights": BOTH, "n": 2, "m": 4}, 0.5),
    "CoupledPruner": ({"final_sparsity": 0.5, "weights": BOTH}, 0.5),
    "WandaPruner": ({"levels": {"conv.weight": 0.5, "fc.weight": 0.5}}, 0.5),
    "SparseGPTPruner": ({"levels": {"conv.weight": 0.5, "fc.weight": 0.5}}, 0.5),
    "LotteryTicketPruner": ({"weights": BOTH, "fraction": 0.5}, 1 - 0.5**3),
}
FIRST, LAST = PolicyTime(0, 0, 4, 1), PolicyTime(3, 0, 4, 1)


def weights(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {"conv.weight": torch.randn(8, 8, 3, 3).to(dtype), "fc.weight": torch.randn(12, 16).to(dtype)}


def moment(pruner: Pruner, of: dict[str, Tensor], when: PolicyTime = LAST, masks: dict | None = None) -> Moment:
    generator = torch.Generator().manual_seed(9)
    shape = {
        "gradients": lambda w: w.shape,
        "movement": lambda w: w.shape,
        "apoz": lambda w: w.shape[:1],
        "mean": lambda w: w.shape[:1],
        "squares": lambda w: (1, w[0].numel()),
    }.get(pruner.evidence)
    evidence = {} if shape is None else {n: torch.rand(shape(w), generator=generator).to(w) for n, w in of.items()}
    if pruner.evidence == "products":  # of inputs that go together
        sizes = {n: w[0].numel() for n, w in of.items()}
        common = torch.randn(300, 1, generator=generator)
        read = {n: torch.randn(300, size, generator=generator) + common for n, size in sizes.items()}
        evidence = {n: (x.T @ x).double().unsqueeze(0) for n, x in read.items()}
    return Moment(when, masks or {}, evidence)


class Net(nn.Module):
    """The convolution's eight filters of two positions each are the matrix's inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(8, 8, 3), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1))


def bound(name: str, **change: Any) -> Pruner:
    pruner = MENU[name]("p", **{**CASES[name][0], **change})
    pruner.bind(Net(), (torch.randn(1, 8, 3, 4),))
    return pruner


def decide(name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **change: Any) -> tuple[Pruner, dict, dict]:
    pruner = bound(name, **change)
    of = {key: weight for key, weight in weights(seed, dtype).items() if key in pruner.select(weights())}
    torch.manual_seed(5)
    return pruner, of, pruner.masks(of, moment(pruner, of))


def test_every_pruner_is_in_this_suite() -> None:
    assert set(CASES) == set(MENU) - {"BlockPruner"}, "it takes all of a weight or nothing: see pruners/test_blocks"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_have_shape_device_and_dtype_of_their_weights(name: str, dtype: torch.dtype) -> None:
    _, of, masks = decide(name, dtype=dtype)
    assert set(masks) == set(of)
    for key, mask in masks.items():
        assert (mask.shape, mask.dtype, mask.device) == (of[key].shape, dtype, of[key].device)
        assert not mask.requires_grad
        if not name.startswith("Bernoulli"):
            assert set(mask.unique().tolist()) == {0.0, 1.0}, "prunes something, and not all"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1] is not None])
def test_the_target_is_reached_exactly(name: str) -> None:
    pruner, of, masks = decide(name)
    for key, mask in masks.items():
        assert float((mask == 0).double().mean()) == pytest.approx(CASES[name][1], abs=1e-12)
        assert pruner.fraction(key, of[key], LAST) == pytest.approx(CASES[name][1], abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_weights_are_not_touched_and_the_same_seed_decides_the_same(name: str) -> None:
    before = weights()
    _, of, masks = decide(name)
    assert all(torch.equal(of[key], before[key]) for key in of)
    _, _, again = decide(name)
    assert all(torch.equal(masks[key], again[key]) for key in masks)


RANDOM = ("Random", "Bernoulli")


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(RANDOM)])
def test_deciding_again_on_masked_weights_changes_nothing(name: str) -> None:
    pruner, of, masks = decide(name)
    masked = {key: weight * masks[key] for key, weight in of.items()}
    again = pruner.masks(masked, moment(pruner, of, masks=masks))
    assert all(torch.equal(again[key], masks[key]) for key in masks)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1] is not None and name != "NMPruner"])
def test_ties_never_prune_more_than_the_target(name: str) -> None:
    pruner = bound(name)
    of = {key: torch.ones_like(weight) for key, weight in weights().items() if key in pruner.weights}
    at = moment(pruner, of)
    equal = Moment(at.when, {}, {key: torch.ones_like(value) for key, value in at.evidence.items()})
    for mask in pruner.masks(of, equal).values():
        assert float((mask == 0).double().mean()) == pytest.approx(CASES[name][1], abs=1e-12)


GRADED = [name for name, case in CASES.items() if {"final_sparsity", "desired_sparsity"} & set(case[0])]


@pytest.mark.parametrize("name", GRADED)
def test_a_level_of_zero_prunes_nothing(name: str) -> None:
    zero = {key: 0.0 for key in ("initial_sparsity", "final_sparsity", "desired_sparsity") if key in CASES[name][0]}
    _, _, masks = decide(name, **zero)
    assert all(bool((mask == 1).all()) for mask in masks.values())


@pytest.mark.parametrize("name", GRADED)
def test_a_level_just_below_one_leaves_what_does_not_fill_a_group(name: str) -> None:
    key = "final_sparsity" if "final_sparsity" in CASES[name][0] else "desired_sparsity"
    _, _, masks = decide(name, **{key: 0.999})
    for mask in masks.values():
        assert 0 < int((mask != 0).sum()) <= mask.numel() // 2


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(RANDOM)])
def test_state_is_restored(name: str) -> None:
    pruner, _, _ = decide(name)
    state = copy.deepcopy(pruner.state_dict())
    other = bound(name)
    other.load_state_dict(state)
    later = {key: weight * 3 for key, weight in weights(1).items() if key in pruner.select(weights())}
    expected = pruner.masks(later, moment(pruner, later))
    got = other.masks(later, moment(other, later))
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", CASES)
def test_a_misspelt_argument_is_a_type_error_for_build_to_report(name: str) -> None:
    with pytest.raises(TypeError):
        MENU[name]("p", **CASES[name][0], wieghts=[])
