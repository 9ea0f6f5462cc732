"""The first sweep file of a network: which weights are searched, how far, and which task a checkpoint is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from raydistill.metrics import Metric
from raydistill.search.constraints import parse_constraints
from raydistill.sweep.file.first_space import Subject, first_space
from raydistill.sweep.file.goal import Goal
from raydistill.sweep.file.ranges import MOST_DIMENSIONS, ranges
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification.metrics import METRICS

FILE = Path("/spaces/my space.yaml")
CONVS = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64, 10))
WORDS = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
DECAY = {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "frequency": 1}
PRUNED = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "frequency": 1}
PERPLEXITY = {"perplexity": Metric("min")}


def written(model: nn.Module, goal: Goal | None = None, **said: Any) -> tuple[dict[str, Any], list[str]]:
    """What the file says, and its lines."""
    usual = {"arch": "net", "task": TaskConfig(), "metrics": METRICS, "dataset": {"name": "cifar10"}, "command": "init"}
    text = first_space(FILE, Subject(**{**usual, **said}), model, goal)
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 120
    return yaml.safe_load(text), text.splitlines()


def test_a_network_that_is_to_be_trained_first() -> None:
    said, lines = written(CONVS, dataset={"name": "cifar10", "fallback": True})
    assert said == {
        "version": 1, "name": "my_space", "model": {"arch": "net"}, "dataset": {"name": "cifar10", "fallback": True},
        "training": {"epochs": 60, "lr": 0.02},
        "baseline": {
            "epochs": 60, "lr": 0.05, "schedule": {
                "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": 60}},
                "policies": [{**DECAY, "ending_epoch": 60}],
            },
        },
        "schedule": {
            "version": 1,
            "pruners": {"agp": {
                "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5,
                "weights": ["0.weight", "1.weight", "3.weight"],
            }},
            "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": 60}},
            "policies": [{**PRUNED, "ending_epoch": 45}, {**DECAY, "ending_epoch": 60}],
        },
        "search": {"per_layer": [
            {"weights": ["0.weight"], "final_sparsity": {"uniform": [0.0, 0.6]}},
            {"weights": ["1.weight"], "final_sparsity": {"uniform": [0.4, 0.98]}},
            {"weights": ["3.weight"], "final_sparsity": {"uniform": [0.2, 0.9]}},
        ]},
        "objectives": {"top1": "max", "sparsity": "max"}, "searcher": {"name": "additive"},
        "trial_scheduler": {"name": "none"}, "num_samples": 16, "seed": 0,
    }  # fmt: skip
    assert [line.partition("    # ")[2] for line in lines if "- {weights" in line] == [
        "8x3x3x3, 4.0 %; the first layer", "64x8x3x3, 84.3 %", "10x64, 11.7 %; the last layer",
    ]  # fmt: skip
    assert "training: {epochs: 60, lr: 0.02}    # lr: 0.4 of the dense network's" in lines
    assert "  # training.lr: {loguniform: [0.01, 0.04]}" in lines
    assert any('constraints: ["top1_drop <= 0.01"' in line for line in lines)
    assert any(line.startswith("# Data of your own") for line in lines)
    assert not any(line.startswith("# Data of your own") for line in written(CONVS)[1])


def test_another_task_has_its_own_optimizer_and_reads_what_the_folder_holds() -> None:
    model = nn.Sequential(*WORDS)
    for name in ("one", "two", "three", "four"):
        model.register_parameter(name, nn.Parameter(torch.zeros(3, 3)))
    said, lines = written(
        model, arch="lm", task=TaskConfig("language_model"), metrics=PERPLEXITY, model_args={"width": 8}, num_samples=5,
        dataset={"name": "cifar10", "data_dir": "/spaces/data"},
    )  # fmt: skip
    assert said["model"] == {"arch": "lm", "args": {"width": 8}}
    assert said["task"] == {"name": "language_model"}
    assert said["dataset"] == {"data_dir": "data"}
    optimizer = {"name": "AdamW", "lr": 0.0016, "clip_norm": 1.0}
    assert said["training"] == {"epochs": 4, "batch_size": 32, "optimizer": optimizer}
    assert (said["baseline"]["epochs"], said["baseline"]["lr"]) == (4, 0.004)
    assert [policy["ending_epoch"] for policy in said["schedule"]["policies"]] == [3, 4]
    assert (said["objectives"], said["num_samples"]) == ({"perplexity": "min", "sparsity": "max"}, 5)
    assert "  # training.optimizer.lr: {loguniform: [0.0008, 0.0032]}" in lines
    assert "  # Left dense, as no weights of a layer: one, two, three and 1 more." in lines
    assert any('"perplexity_rise <= 0.1"' in line for line in lines)
    del model.four
    _, lines = written(model, metrics=PERPLEXITY)
    assert "  # Left dense, as no weights of a layer: one, two, three." in lines


@pytest.mark.parametrize(
    ("task", "epochs", "training", "rate"),
    [
        ("regression", 30, {"batch_size": 32, "lr": 0.004, "weight_decay": 0.01}, 0.01),
        ("recommender", 8, {"optimizer": {"name": "Adam", "lr": 0.0008}}, 0.002),
        ("detection", 12, {"batch_size": 16, "lr": 0.008, "optimizer": {"clip_norm": 10.0}}, 0.02),
        ("pkg.mod:Task", 10, {"lr": 0.02}, 0.05),
    ],
)
def test_what_is_usual_for_a_task(task: str, epochs: int, training: dict[str, Any], rate: float) -> None:
    said, _ = written(WORDS, task=TaskConfig(task), metrics=PERPLEXITY)
    found = {"epochs": epochs, **training}
    assert {key: said["training"].get(key) for key in found} == found
    assert (said["baseline"]["epochs"], said["baseline"]["lr"]) == (epochs, rate)
    assert "dataset" not in said


def test_an_optimizer_that_the_checkpoint_was_trained_with_is_kept() -> None:
    training = {"optimizer": {"name": "AdamW"}, "weight_decay": 0.1}
    said, _ = written(
        WORDS, task=TaskConfig("language_model"), metrics=PERPLEXITY, training=training, epochs=8,
        checkpoint=Path("/elsewhere/c.pt"), dataset={"name": "my_words"},
    )  # fmt: skip
    assert said["baseline"] == {"checkpoint": "/elsewhere/c.pt"}
    assert said["training"] == {"epochs": 8, "optimizer": {"name": "AdamW", "lr": pytest.approx(0.0004)}}
    assert said["dataset"] == {"name": "my_words"}
    assert said["schedule"]["policies"][0]["ending_epoch"] == 6
    dense, _ = written(WORDS, task=TaskConfig("language_model"), metrics=PERPLEXITY, training=training)
    assert dense["baseline"]["lr"] == pytest.approx(0.001)
    slower, _ = written(WORDS, training={"lr": 0.1, "batch_size": 32})
    assert slower["training"] == {"epochs": 60, "lr": 0.04, "batch_size": 32}
    assert slower["baseline"]["lr"] == 0.1


def test_a_loop_of_ones_own_decides_on_its_rate_itself() -> None:
    said, lines = written(WORDS, task=TaskConfig("regression"), metrics=PERPLEXITY, train={"loop": "pkg.mod:loop"})
    assert said["train"] == {"loop": "pkg.mod:loop"}
    assert said["training"] == said["baseline"] == {"epochs": 30}
    assert "lr_schedulers" not in said["schedule"]
    assert said["schedule"]["policies"] == [{**PRUNED, "ending_epoch": 22}]
    assert said["searcher"] == {"name": "sobol"}
    assert said["trial_scheduler"] == {"name": "moasha", "grace_period": 7}  # a quarter
    assert not any("loguniform" in line or "of the dense network's" in line for line in lines)
    fractions, _ = written(WORDS, train={"loop": "pkg.mod:loop"}, epochs=3)
    score = {"top1": 1.0, "planned_sparsity": 0.05}
    assert fractions["trial_scheduler"] == {"name": "asha", "grace_period": 1, "score": score}


def test_a_deep_network_is_searched_by_blocks() -> None:
    blocks = [nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)]) for _ in range(5)]
    model = nn.Sequential(*blocks, nn.Linear(4, 16))
    said, lines = written(model)
    assert said["search"] == {f"pruners.{block}.final_sparsity": {"uniform": [0.2, 0.9]} for block in range(5)} | {
        "pruners.5.final_sparsity": {"uniform": [0.2, 0.9]}
    }
    weights = {name: body["weights"] for name, body in said["schedule"]["pruners"].items()}
    assert weights == {**{str(block): [f"{block}.*weight"] for block in range(5)}, "5": ["5.weight"]}
    assert len(said["schedule"]["policies"]) == 7
    notes = [line.partition("    # ")[2] for line in lines if line.startswith("  pruners.")]
    assert notes == ["5 weights, 17.2 %"] * 5 + ["16x4, 13.8 %; the last layer"]
    assert said["searcher"] == {"name": "sobol"}
    by_layer, _ = ranges(model, blocks=False)
    assert len(by_layer) == 26
    fewer = nn.Sequential(*[nn.Linear(4, 4) for _ in range(MOST_DIMENSIONS)])
    assert len(ranges(fewer)[0]) == MOST_DIMENSIONS
    assert {len(one.weights) for one in ranges(fewer)[0]} == {1}
    one_more, _ = ranges(nn.ModuleDict({"all": nn.Sequential(*fewer, nn.Linear(4, 4))}))
    assert [(one.name, len(one.weights)) for one in one_more] == [("all", MOST_DIMENSIONS + 1)]


def test_for_a_goal_every_layer_may_go_from_nothing_to_nearly_all() -> None:
    bounds = parse_constraints(["sparsity >= 0.8"], "x", METRICS)
    said, lines = written(CONVS, Goal(bounds, "sparsity", "top1"), searcher="additive")
    assert [entry["final_sparsity"]["uniform"] for entry in said["search"]["per_layer"]] == [
        [0.0, 0.9], [0.0, 0.98], [0.0, 0.9],
    ]  # fmt: skip
    assert (said["objectives"], said["constraints"]) == ({"top1": "max", "sparsity": "max"}, ["sparsity >= 0.8"])
    assert said["aliases"] == {"goal": {"best": "top1"}}
    assert "searcher" not in said
    assert lines[0] == "# Which net is the best in top1 with sparsity >= 0.8?"
    deep = nn.Sequential(*[nn.Linear(4, 4) for _ in range(MOST_DIMENSIONS + 1)])
    whole, _ = written(deep, Goal(bounds, "sparsity", "top1"), searcher="additive")
    assert len(whole["search"]["per_layer"]) == MOST_DIMENSIONS + 1


def test_a_trunk_prunes_the_weights_of_layers_and_its_trials_prune_no_further() -> None:
    class Tabled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.table = CONVS, nn.Parameter(torch.zeros(3, 3))

    bounds = parse_constraints(["sparsity >= 0.8"], "x", METRICS)
    said, _ = written(CONVS, Goal(bounds, "sparsity", "top1"))
    assert said["trunk"] == {"epochs": 240, "initial_sparsity": 0.3, "final_sparsity": 0.84}
    assert said["search"] == {"trunk.sparsity": {"uniform": [0.8, 0.84]}, "training.lr": {"loguniform": [0.005, 0.02]}}
    assert "pruners" not in said["schedule"]
    assert said["constraints"] == ["sparsity >= 0.8"]
    said, _ = written(Tabled(), Goal(bounds, "sparsity", "top1"))
    assert said["trunk"]["weights"] == ["layers.0.weight", "layers.1.weight", "layers.3.weight"]
