"""A file to begin with: a range for every layer's weight, wide where it has many, narrow where it is first or thin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.sweep.file.first_space import MOST_DIMENSIONS, Subject, first_space, ranges, task_by_arch
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks import TaskConfig
from tests.tasks.own import Line


class Mixed(nn.Module):
    """An embedding, a first layer, a depthwise conv, a large layer, a last one; and a parameter that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.first = nn.Conv2d(3, 4, 3)
        self.apart = nn.Conv2d(4, 4, 3, groups=4)
        self.large = nn.Linear(100, 100)
        self.last = nn.Linear(100, 2)
        self.shift = nn.Parameter(torch.zeros(3, 3))


def test_bounds_follow_what_a_layer_is() -> None:
    found, dense = ranges(Mixed())
    bounds = {one.weights[0]: (one.low, one.high) for one in found}
    assert bounds == {
        "words.weight": (0.1, 0.9), "first.weight": (0.0, 0.6), "apart.weight": (0.0, 0.5),
        "large.weight": (0.4, 0.98), "last.weight": (0.2, 0.9),
    }  # fmt: skip
    assert dense == ["shift"]
    notes = {one.weights[0]: one.note for one in found}
    whole = 40 + 4 * 27 + 4 * 9 + 10_000 + 200
    assert notes["large.weight"] == f"100x100, {100 * 10_000 / whole:.1f} %"
    assert notes["apart.weight"].endswith("; depthwise")


@pytest.mark.parametrize("count", [MOST_DIMENSIONS, MOST_DIMENSIONS + 1, 90])
def test_a_deep_network_is_searched_by_blocks_that_hold_each_weight_once(count: int) -> None:
    blocks = nn.Sequential(*(nn.Sequential(*(nn.Linear(4, 4) for _ in range(5))) for _ in range(count // 5)))
    blocks.extend([nn.Linear(4, 4) for _ in range(count % 5)])
    found, _ = ranges(blocks)
    every = [name for one in found for name in one.weights]
    assert sorted(every) == sorted(name for name, _ in blocks.named_parameters() if name.endswith("weight"))
    assert len(found) <= MOST_DIMENSIONS
    assert (len(found) == count) is (count <= MOST_DIMENSIONS)
    assert all(0 <= one.low < one.high < 1 for one in found)


def test_nothing_to_prune_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"--arch: the network has no weight that can be pruned; choose another"):
        ranges(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)))


def test_the_file_is_a_sweep_of_the_subjects_task(tmp_path: Path) -> None:
    file = tmp_path / "line.yaml"
    task, metrics = TaskConfig("tests.tasks.own:Line", {"points": 120}), {"mae": Metric("min"), "loss": Metric("min")}
    data = {"name": "cifar10"}  # which is the default, and nothing to this task
    subject = Subject("tests.tasks.own:net", task, metrics, data, "raydistill init", {"hidden": 4}, num_samples=5)
    file.write_text(first_space(file, subject, Line(120).network("tests.tasks.own:net", {"hidden": 4})))
    assert "dataset" not in yaml.safe_load(file.read_text())
    sweep = load_sweep(file)
    assert (sweep.task, sweep.sections.model.args) == (subject.task, {"hidden": 4})
    assert [(o.name, o.direction) for o in sweep.objectives] == [("mae", "min"), ("sparsity", "max")]
    plan = plan_sweep(sweep, Line(120))
    assert len(plan.trials) == 5
    assert {d.path for d in plan.space.dimensions} >= {
        "per_layer.0.weight.final_sparsity", "per_layer.2.weight.final_sparsity",
    }  # fmt: skip


def test_the_task_of_a_network_of_the_menu_is_what_it_reads() -> None:
    assert {arch: task_by_arch(arch) for arch in ("resnet18", "decoder_lm", "mlp", "neumf", "mine:net")} == {
        "resnet18": "classification", "decoder_lm": "language_model", "mlp": "regression", "neumf": "recommender",
        "mine:net": "classification",
    }  # fmt: skip
