"""A goal: what is optimised, what is pruned, which network is wanted; and what is none."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.sweep.file.goal import parse_goal
from raydistill.tasks.classification.metrics import METRICS

PERPLEXITY = {"perplexity": Metric("min"), "loss": Metric("min")}


@pytest.mark.parametrize(
    ("said", "figure", "best", "by_structures"),
    [
        ("macs <= 0.5x", "macs", "top1", True),
        (["latency_ms <= 3"], "latency_ms", "top1", True),
        ("size_bytes < 100000", "size_bytes", "top1", True),
        ("sparsity >= 0.9", "sparsity", "top1", False),
        ("compressed_size_bytes <= 0.1x", "compressed_size_bytes", "top1", False),
        ("top1_drop <= 0.005", "sparsity", "sparsity", False),
        (["top1_drop <= 0.005", "macs <= 0.5x"], "macs", "top1", True),
    ],
)
def test_what_follows_from_it(said: object, figure: str, best: str, by_structures: bool) -> None:
    goal = parse_goal(said, "--goal", METRICS)
    assert (goal.figure, goal.best, goal.by_structures) == (figure, best, by_structures)
    direction = "max" if figure == "sparsity" else "min"
    assert goal.objectives(METRICS) == {"top1": "max", figure: direction}


def test_of_another_task() -> None:
    goal = parse_goal("perplexity_rise <= 0.5", "--goal", PERPLEXITY)
    assert goal.objectives(PERPLEXITY) == {"perplexity": "min", "sparsity": "max"}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ([], "--goal: must be a bound, or a list of bounds, got []"),
        ({"macs": 0.5}, "--goal: must be a bound, or a list of bounds, got {'macs': 0.5}"),
        ("macs", "--goal[0]: must be a figure, one of <= >= < >, and a number, got 'macs'"),
        ("mac <= 0.5x", "--goal[0]: unknown figure, got 'mac'; did you mean 'macs'?"),
        ("sparsity <= 0.5", "--goal: bounds sparsity from the side where nothing has to be pruned, got 'sparsity"),
        ("macs > 0.5x", "--goal: bounds macs from the side where nothing has to be pruned, got 'macs > 0.5x'"),
        (
            ["macs <= 0.5x", "size_bytes <= 0.5x"],
            "--goal: bounds more than one figure of the network; keep one of macs, size_bytes, bound others in",
        ),
    ],
)  # fmt: skip
def test_what_is_none_is_one_line(said: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_goal(said, "--goal", METRICS)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
