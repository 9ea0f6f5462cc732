"""Sensitivity analysis: one weight at a time, restored bit for bit, measured once, resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.sensitivity import (
    Point,
    analyse,
    levels,
    prunable,
    read_sensitivity_csv,
    sensitivity_csv,
    sensitivity_png,
)
from raydistill.errors import ConfigError, DataError
from raydistill.metrics import Metric


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)
        self.conv1d = nn.Conv1d(4, 6, 2)
        self.fc = nn.Linear(10, 4)
        with torch.no_grad():
            self.fc.weight[0, 0] = -0.0


class Watch:
    """Evaluates by writing down what the weights are; the metric is what is left of them in absolute value."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        self.states.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return {"top1": float(sum(p.detach().abs().sum() for p in model.parameters())), "loss": float(len(self.states))}


def test_levels_are_numpys_without_its_rounding() -> None:
    assert levels(0.0, 0.95, 0.05) == tuple(i / 20 for i in range(19))
    assert levels(0.0, 0.3, 0.1) == (0.0, 0.1, 0.2), "numpy gives 0.30000000000000004 too"
    assert levels(0.1, 1.0, 0.3) == (0.1, 0.4, 0.7)
    assert levels(0.5, 0.6, 1.0) == (0.5,)
    for start, stop, step in (
        (0.5, 0.5, 0.1),
        (-0.1, 0.5, 0.1),
        (0.0, 1.1, 0.1),
        (0.0, 0.5, 0.0),
        (0.0, math.nan, 0.1),
    ):
        with pytest.raises(ConfigError, match="sense range"):
            levels(start, stop, step)


def test_which_weights_have_which_structures() -> None:
    assert prunable(Net(), "element") == ("conv.weight", "conv1d.weight", "fc.weight")
    assert prunable(Net(), "filter") == prunable(Net(), "channel") == ("conv.weight", "conv1d.weight")
    with pytest.raises(ConfigError, match=r"did you mean 'filter'"):
        prunable(Net(), "filters")
    with pytest.raises(ConfigError, match="no weight with filters; choose element"):
        prunable(nn.Linear(2, 2), "filter")


def test_one_weight_at_a_time_and_the_smallest_go_first() -> None:
    model, watch = Net(), Watch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    points = list(analyse(model, watch, (0.0, 0.5, 0.9)))
    assert [(point.weight, point.level) for point in points] == [
        (name, level) for name in ("conv.weight", "conv1d.weight", "fc.weight") for level in (0.0, 0.5, 0.9)
    ]
    assert len(watch.states) == 1 + 3 * 2, "the dense model is measured once"
    dense = watch.states[0]
    assert all(torch.equal(dense[name], before[name]) for name in before)
    for index, (name, level) in enumerate(
        (n, x) for n in ("conv.weight", "conv1d.weight", "fc.weight") for x in (0.5, 0.9)
    ):
        state = watch.states[1 + index]
        changed = [key for key in before if not torch.equal(state[key], before[key])]
        assert changed == [name]
        flat = np.abs(before[name].numpy().ravel())
        count = math.floor(level * flat.size + 1e-9)
        kept = np.sort(flat)[count:].sum()
        assert np.count_nonzero(state[name]) == flat.size - max(count, int((flat == 0).sum()))
        assert np.abs(state[name].numpy()).sum() == pytest.approx(kept, rel=1e-5)
    half = next(point for point in points if point.weight == "conv.weight" and point.level == 0.5)
    assert half.pruned == 67 / 135


@pytest.mark.parametrize(("sense", "axis"), [("filter", 0), ("channel", 1)])
def test_whole_filters_and_channels(sense: str, axis: int) -> None:
    model, watch = Net(), Watch()
    points = list(analyse(model, watch, (0.0, 0.1, 0.4, 0.7), sense, ["conv.weight"]))
    size = model.conv.weight.shape[axis]
    counts = [math.floor(level * size + 1e-9) for level in (0.0, 0.1, 0.4, 0.7)]
    assert [point.pruned for point in points] == [count / size for count in counts]
    assert len(watch.states) == len(set(counts)), "levels that prune the same are measured once"
    weight = model.conv.weight.detach().numpy()
    norms = np.abs(np.moveaxis(weight, axis, 0)).reshape(size, -1).sum(axis=1)
    for count, state in zip(sorted(set(counts)), watch.states, strict=True):
        now = np.moveaxis(state["conv.weight"].numpy(), axis, 0)
        gone = {int(i) for i in range(size) if not now[i].any()}
        assert gone == set(np.argsort(norms)[:count].tolist())
        kept = [i for i in range(size) if i not in gone]
        np.testing.assert_array_equal(now[kept], np.moveaxis(weight, axis, 0)[kept])


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}


def test_the_model_is_restored_bit_for_bit_however_it_ends() -> None:
    model = Net()
    before, places = bits(model), {name: p.data_ptr() for name, p in model.named_parameters()}
    for point in analyse(model, Watch(), (0.0, 0.5)):
        assert bits(model) == before, point
    run = analyse(model, Watch(), (0.5,))
    next(run)
    run.close()
    assert bits(model) == before

    def interrupted(network: nn.Module) -> Mapping[str, float]:
        assert bits(network) != before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(analyse(model, interrupted, (0.5,), weights=["fc.weight"]))
    assert bits(model) == before
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == places


def test_known_points_are_not_measured_again() -> None:
    model, whole, rest = Net(), Watch(), Watch()
    steps = (0.0, 0.3, 0.6)
    points = list(analyse(model, whole, steps))
    again = list(analyse(model, rest, steps, known=points[:4]))
    assert [(p.weight, p.level, p.pruned, p.metrics["top1"]) for p in again] == [
        (p.weight, p.level, p.pruned, p.metrics["top1"]) for p in points
    ]
    assert again[:4] == points[:4]
    assert len(rest.states) == len(whole.states) - 3
    assert list(analyse(model, rest, steps, known=points)) == points
    assert len(rest.states) == len(whole.states) - 3


def test_what_cannot_be_analysed() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'conv\.weight'"):
        next(analyse(Net(), Watch(), (0.5,), weights=["conv.weigth"]))
    with pytest.raises(ConfigError, match=r"no weight with filters of this name, got 'fc\.weight'"):
        next(analyse(Net(), Watch(), (0.5,), "filter", ["fc.weight"]))
    with pytest.raises(ConfigError, match=r"from 0 to below 1, got 1\.0"):
        next(analyse(Net(), Watch(), (0.5, 1.0)))


@pytest.mark.slow
def test_csv_round_trip_and_plot(tmp_path: Path) -> None:
    points = list(analyse(Net(), Watch(), levels(0.0, 0.9, 0.3)))
    path = tmp_path / "sensitivity.csv"
    path.write_text(sensitivity_csv(points))
    assert path.read_text().splitlines()[0] == "weight,level,pruned,top1,loss"
    assert list(read_sensitivity_csv(path)) == points
    sensitivity_png(points, tmp_path / "plot.png", "loss", Metric("min"))
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match="no point has this metric, got 'top5'"):
        sensitivity_png(points, tmp_path / "other.png", "top5")
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read_sensitivity_csv(tmp_path / "gone.csv")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is not a table of sensitivities"):
        read_sensitivity_csv(path)


@pytest.mark.slow
def test_curves_are_against_what_was_really_pruned(tmp_path: Path) -> None:
    from raydistill.compression import sensitivity

    point = [
        Point("conv.weight", level, pruned, {"top1": 0.5}) for level, pruned in ((0.0, 0.0), (0.1, 0.0), (0.5, 0.4))
    ]
    curves = {"conv.weight": [(p.pruned, p.metrics["top1"]) for p in point]}
    (line,) = sensitivity._figure(curves, "top1", True, "").axes[0].get_lines()
    assert line.get_xydata().tolist() == [[0.0, 50.0], [0.4, 50.0]]
