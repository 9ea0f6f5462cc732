"""Thinning on random small networks: outputs stay, zeros go or are accounted for, checkpoints load back."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import reshape_like, thin
from tests.compression.thinning.conftest import relative, unsettled

KINDS = ["conv", "padded", "residual", "concat", "grouped", "depthwise", "average", "maximum"]
ENDS = ["pooled", "flat"]
IMAGE = torch.zeros(1, 3, 10, 10)


class Unit(nn.Module):
    """Conv, with or without batch norm and bias, and an activation."""

    def __init__(self, width: int, out: int, norm: bool, bias: bool, size: int = 3, pad: bool = True, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(width, out, size, padding=size // 2 if pad else 0, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(x)))


class Part(nn.Module):
    def __init__(self, kind: str, width: int, norm: bool, bias: bool) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        if kind in ("conv", "padded"):
            self.width = width + 2
            self.first = Unit(width, self.width, norm, bias, pad=kind == "padded")
        elif kind == "residual":
            self.first, self.second = Unit(width, 4, norm, bias), Unit(4, width, norm, bias, size=1)
        elif kind == "concat":
            self.first, self.second = Unit(width, 3, norm, bias), Unit(width, 5, not norm, bias, size=1)
            self.width = 8
        elif kind == "grouped":
            self.first, self.second = Unit(width, 8, norm, bias), Unit(8, 6, norm, bias, groups=2)
            self.width = 6
        elif kind == "depthwise":
            self.first = Unit(width, width, norm, bias, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "residual":
            return x + self.second(self.first(x))
        if self.kind == "concat":
            return torch.cat([self.first(x), self.second(x)], 1)
        if self.kind == "grouped":
            return self.second(self.first(x))
        if self.kind == "average":
            return functional.avg_pool2d(x, 3, 1, padding=1)
        return functional.max_pool2d(x, 3, 1, padding=1) if self.kind == "maximum" else self.first(x)


class Net(nn.Module):
    def __init__(self, kinds: list[str], end: str, norm: bool, bias: bool) -> None:
        super().__init__()
        self.end = end
        self.stem = Unit(3, 6, norm, bias)
        self.parts = nn.Sequential()
        width = 6
        for kind in kinds:
            self.parts.append(Part(kind, width, norm, bias))
            width = self.parts[-1].width
        size = 10 - 2 * kinds.count("conv")
        self.hidden = nn.Linear(width if end == "pooled" else width * size**2, 7)
        self.fc = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts(self.stem(x))
        x = x.mean((2, 3)) if self.end == "pooled" else x.flatten(1)
        return self.fc(torch.tanh(self.hidden(x)))


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}


def prune(model: nn.Module, seed: int) -> None:
    """Zero rows and columns at random; often the same ones in layers of one width, so that sums can lose some."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.rand(64, generator=generator) < 0.4
    for module in weighted(model).values():
        for dim in (0, 1):
            size = module.weight.shape[dim]
            which = torch.rand(size, generator=generator) < 0.2
            if dim == 0:
                which |= common[torch.arange(size) % 64]
            if torch.rand((), generator=generator) < 0.7 and not which.all():
                module.weight.data.index_fill_(dim, which.nonzero().flatten(), 0)


def zeros(model: nn.Module) -> Counter[tuple[str, str]]:
    """Zeroed filters and channels by weight, counted with numpy."""
    found: Counter[tuple[str, str]] = Counter()
    for name, module in weighted(model).items():
        weight = abs(module.weight.detach().numpy())
        weight = weight.reshape(*weight.shape[:2], -1).sum(2)
        found[f"{name}.weight", "filters"] = int((weight.sum(1) == 0).sum())
        if weight.shape[1] > 1:  # else a depthwise conv, or what is left of one
            channels = weight.reshape(getattr(module, "groups", 1), -1, weight.shape[1]).sum(1)
            found[f"{name}.weight", "channels"] = int((channels == 0).sum())
    return +found


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(KINDS), max_size=4),
    st.sampled_from(ENDS),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
@example(["grouped", "grouped"], "pooled", False, True, 98)
def test_outputs_stay_and_every_zero_goes_or_is_accounted_for(
    kinds: list[str], end: str, norm: bool, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = unsettled(Net(kinds, end, norm, bias)).double()
    prune(model, seed)
    x = torch.randn(3, 3, 10, 10, dtype=torch.float64)
    expected = model(x)
    before = zeros(model)
    loose = copy.deepcopy(model)
    report = thin(model, None, IMAGE)
    assert relative(expected, model(x)) < 1e-8
    counted: Counter[tuple[str, str]] = Counter()
    for kept in report.kept:
        assert kept.reason != "the outputs would change"
        if kept.structure == "filters" or model.get_parameter(kept.weight).shape[1] > 1:
            counted[kept.weight, kept.structure] += kept.count
    if "grouped" not in kinds:  # one of those can have become a depthwise conv, which has no channels to count
        assert counted == zeros(model)
        assert thin(model, None, IMAGE).removed == {}
    assert report.parameters_after == sum(p.numel() for p in model.parameters())
    loose_report = thin(loose, None, IMAGE, exact=False)
    assert loose_report.parameters_after <= report.parameters_after
    if end == "pooled" and not norm and not bias and {"conv", "padded"}.issuperset(kinds):
        # Nothing couples the layers and nothing is constant but zero: only inputs, outputs and last channels stay.
        allowed = ("reads an input of the network", "an output of the network")
        assert all(kept.reason in allowed or "at least one" in kept.reason for kept in report.kept)
        assert before.total() == 0 or loose_report.drift < 1e-8

    fresh = Net(kinds, end, norm, bias).double().eval()
    parameters = list(fresh.parameters())
    reshape_like(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert all(one is other for one, other in zip(parameters, fresh.parameters(), strict=True))
    assert torch.equal(fresh(x), model(x))
    assert repr(fresh) == repr(model)  # the widths that layers know of themselves

    again = replay(Net(kinds, end, norm, bias).double().eval(), structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))
    assert repr(again) == repr(model)
