"""Images with several labels each: judged, learned, pruned, searched."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.analysis.confusion import write_confusion
from raydistill.analysis.network import read_network
from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule
from raydistill.sweep.file.load import load_sweep
from raydistill.tasks import Loading, TaskConfig, Weights, metrics_of
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.multi_label import binary_cross_entropy, evaluate_multi_label, figures
from raydistill.training import RunConfig, evaluate_checkpoint, fit

OWN = "tests.datasets.own_sources:"
CPU = torch.device("cpu")
SEVERAL = TaskConfig("classification", {"multi_label": True})


@pytest.mark.slow
def test_figures_are_those_that_one_works_out_by_hand() -> None:
    logits = torch.tensor([[3.0, -1.0, -9.0], [2.0, 1.0, -9.0], [1.0, -2.0, -9.0], [-1.0, -3.0, -9.0]])
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.uint8)
    found = figures(logits, labels)
    # the first label is at ranks 1 and 3, the second at 3 and 4; the third no image has
    first, second = (1 / 1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2
    assert found["map"] == pytest.approx((first + second) / 2)
    # said: three times the first (two rightly), once the second (wrongly); two seconds are missed
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    by_hand = [math.log1p(math.exp(-z if y else z)) for z, y in zip(logits.flatten(), labels.flatten(), strict=True)]
    assert found["loss"] == pytest.approx(sum(by_hand) / 12)
    assert float(binary_cross_entropy(logits, labels)) == pytest.approx(sum(by_hand) / 12)


def test_no_label_at_all_and_a_network_that_has_come_to_nothing_have_figures_too() -> None:
    assert figures(torch.full((3, 2), -1.0), torch.zeros(3, 2, dtype=torch.uint8))["map"] == 0.0
    lost = figures(torch.full((3, 2), math.nan), torch.eye(3, dtype=torch.uint8)[:, :2])
    assert math.isnan(lost["loss"])
    assert (lost["f1"], lost["map"]) == (0.0, pytest.approx(1 / 3))


class OfAll(Ranks):
    """Stands for the others: what they would send is known beforehand."""

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        return [value, None, OTHERS]


OTHERS = (torch.tensor([[-1.0, 2.0]]), torch.tensor([[1, 0]], dtype=torch.uint8))


def test_ranks_are_judged_together_and_the_mode_is_put_back() -> None:
    batches = [(torch.tensor([[1.0, -1.0]]), torch.tensor([[1, 0]], dtype=torch.uint8))] * 2
    network = nn.Identity().train()
    found = evaluate_multi_label(network, batches, "test", CPU, ranks=OfAll(0, 3))
    whole = figures(torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 2.0]]), torch.tensor([[1, 0]] * 3))
    assert found.metrics == whole
    assert (found.samples, network.training) == (3, True)


def net(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


AGP = {
    "version": 1,
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": ["0.weight"],
        }
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 8, "frequency": 1}],
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        f"{__name__}:net", task=SEVERAL, dataset=DatasetConfig(OWN + "spots", validation=0.2, workers=0), epochs=10,
        batch_size=8, lr=0.2, out_dir=str(tmp_path / "run"), deterministic=True, threads=1, tensorboard=False,
        device="cpu",
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_learned_and_pruned(config: RunConfig, tmp_path: Path) -> None:
    for name in ("spots", "spot_batches"):
        out = tmp_path / name
        dataset = replace(config.dataset, name=OWN + name)
        epochs = list(fit(replace(config, dataset=dataset, schedule=parse_schedule(AGP, "agp"), out_dir=str(out))))
        assert list(epochs[0].metrics) == ["map", "f1", "loss"]
        assert epochs[-1].metrics["map"] > 0.97 > epochs[0].metrics["f1"]
        assert epochs[-1].metrics["f1"] > 0.9
        assert epochs[-1].layer_sparsity["0.weight"] == pytest.approx(0.5, abs=0.01)
        task = Classification.load(dataset, Weights(config.arch), multi_label=True)
        test = evaluate_checkpoint(out / "checkpoint.pt", task, "test", "cpu", arch=config.arch)
        assert test.metrics["map"] > 0.9


@pytest.mark.slow
def test_a_loss_of_ones_own_is_trained(config: RunConfig) -> None:
    task = TaskConfig("classification", {"multi_label": True, "loss": "tests.tasks.classification.own:SOFT_F1"})
    own = list(fit(replace(config, task=task, epochs=3)))
    assert own[-1].train_loss < own[0].train_loss < 1


def test_a_sweep_takes_its_metrics(tmp_path: Path) -> None:
    assert list(metrics_of(SEVERAL)) == ["map", "f1", "loss"]
    assert list(metrics_of(TaskConfig())) == ["top1", "top5", "loss"]
    file = tmp_path / "spots.yaml"
    file.write_text(
        f"""
version: 1
name: spots
model: {{arch: "{__name__}:net"}}
task: {{args: {{multi_label: true}}}}
dataset: {{name: "{OWN}spots"}}
training: {{epochs: 2, batch_size: 8, lr: 0.1}}
baseline: {{epochs: 1}}
schedule: {{version: 1, pruners: {{p: {{class: L1RankedStructureParameterPruner, group_type: Filters,
  desired_sparsity: 0.5, weights: ["0.weight"]}}}}, policies: [{{pruner: {{instance_name: p}}, epochs: [0]}}]}}
search: {{pruners.p.desired_sparsity: {{uniform: [0.1, 0.9]}}}}
constraints: ["map_drop <= 0.1"]
num_samples: 2
"""
    )
    sweep = load_sweep(file)
    assert [(objective.name, objective.direction) for objective in sweep.objectives] == [
        ("map", "max"), ("sparsity", "max")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "dataset", "words"),
    [
        ({}, "spots", r"multi_label: dataset '.*' has several labels an image, got False; task: \{args"),
        ({"multi_label": True}, "alone", "multi_label: dataset '.*' has one label an image, got True; leave it out"),
        ({"multi_label": "yes"}, "spots", "multi_label: must be true or false, got 'yes'"),
        ({"multi_label": True, "loss_weights": [0.4]}, "spots", "early exits are for one label an image"),
        (
            {"multi_label": True, "loss": "tests.tasks.classification.own:SMOOTHED"},
            "spots",
            "task.args.loss: .*SMOOTHED' fails",
        ),
        ({"multilabel": True}, "spots", "task.args.multilabel: unknown key.*multi_label"),
    ],
)
def test_what_does_not_go_together_is_one_line(args: dict[str, object], dataset: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Classification.load(DatasetConfig(OWN + dataset), Weights("x:y"), **args)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_there_is_no_confusion_of_several_labels(config: RunConfig, tmp_path: Path) -> None:
    list(fit(replace(config, epochs=1)))
    network = read_network(tmp_path / "run/checkpoint.pt", config.arch)
    task = Classification.load(config.dataset, Weights(config.arch), multi_label=True)
    with pytest.raises(ConfigError, match="confusion: is for one label an image"):
        write_confusion(network, task, Loading(CPU, 8), tmp_path / "c.csv")
