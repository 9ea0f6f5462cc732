"""Runs of `fit` of networks that answer more than once."""

from __future__ import annotations

import sys
import types
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raydistill.compression.early_exit import entropy
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError
from raydistill.records import EpochMetrics, Evaluation
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.evaluate import evaluate
from raydistill.tasks.classification.feed import EvalFeed
from raydistill.tasks.classification.loss import EarlyExit
from raydistill.training import Distillation, RunConfig, evaluate_checkpoint, fit, load_model, read_history
from raydistill.training.precision import _shortest_steps


def exits_of(found: EpochMetrics | Evaluation) -> dict[str, float]:
    """The metrics that are of single exits."""
    return {name: value for name, value in found.metrics.items() if name.startswith("exit")}


Answer = namedtuple("Answer", ["logits", "aux_logits"])


class TwoExits(nn.Module):
    """[first exit, end] of a small convolutional network."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=4)
        self.exit1 = nn.Linear(8 * 49, num_classes)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2)
        self.fc = nn.Linear(16 * 9, num_classes)

    def forward(self, images: torch.Tensor) -> Any:
        x = torch.relu(self.conv1(images))
        first = self.exit1(x.flatten(1))
        return [first, self.fc(torch.relu(self.conv2(x)).flatten(1))]


class WithAuxiliary(TwoExits):
    """Answers as torchvision's Inception does: a named tuple in training, logits in eval mode."""

    def forward(self, images: torch.Tensor) -> Any:
        first, last = super().forward(images)
        return Answer(last, first) if self.training else last


CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def factories(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("several_answers")
    module.exits, module.auxiliary = TwoExits, WithAuxiliary  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "several_answers", module)


@pytest.fixture(scope="module")
def dataset() -> Any:
    return load(DatasetConfig("digits"))


@pytest.fixture(scope="module")
def task(dataset: Any) -> Classification:
    return Classification(dataset, early_exit=EarlyExit((0.4,), (0.9,)))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "several_answers:exits", DatasetConfig("digits"), epochs=3, batch_size=64, lr=0.05,
        out_dir=str(tmp_path / "run"), deterministic=True, threads=1, tensorboard=False, device="cpu",
    )  # fmt: skip


def checkpoint(config: RunConfig) -> Path:
    return Path(str(config.out_dir)) / "checkpoint.pt"


@pytest.mark.slow
def test_each_exit_is_trained_and_reported(config: RunConfig, task: Classification, dataset: Any) -> None:
    *_, last = fit(config, task=task)
    assert set(exits_of(last)) == {"exit0/top1", "exit0/taken", "exit1/top1", "exit1/taken"}
    assert last.metrics["exit0/top1"] > 0.5  # ten classes: chance is 0.1
    assert last.metrics["exit1/top1"] > 0.5
    assert last.metrics["exit0/taken"] + last.metrics["exit1/taken"] == pytest.approx(1)
    assert 0 < last.metrics["exit0/taken"] < 1
    assert read_history(checkpoint(config))[-1] == last

    # a second way: the network's answers to the validation images, image by image
    model = load_model(checkpoint(config), config.arch)
    right, taken, losses = [0, 0, 0], 0, []
    with torch.no_grad():
        for images, labels in EvalFeed(dataset, "validation", 50, "cpu").epoch(0):
            first, end = model(images)
            for i, label in enumerate(labels.tolist()):
                p = np.exp(first[i].double().numpy()) / np.exp(first[i].double().numpy()).sum()
                leaves = -(p * np.log(p)).sum() < 0.9
                answer = first[i] if leaves else end[i]
                taken += leaves
                losses.append(float(functional.cross_entropy(answer, labels[i])))
                for exit_, logits in enumerate((first[i], end[i], answer)):
                    right[exit_] += int(logits.argmax()) == label
    count = len(losses)
    assert last.metrics["exit0/top1"] == pytest.approx(right[0] / count)
    assert last.metrics["exit1/top1"] == pytest.approx(right[1] / count)
    assert last.metrics["top1"] == pytest.approx(right[2] / count)
    assert last.metrics["exit0/taken"] == pytest.approx(taken / count)
    assert last.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_with_its_thresholds_or_others(
    config: RunConfig, task: Classification, dataset: Any
) -> None:
    *_, last = fit(config, task=task)
    path = checkpoint(config)
    own = evaluate_checkpoint(path, Classification(dataset), "validation", "cpu", arch=config.arch)
    assert own.metrics["top1"] == pytest.approx(last.metrics["top1"])
    assert exits_of(own) == pytest.approx(exits_of(last))
    hurried = Classification(dataset, early_exit=EarlyExit((0.4,), (100.0,)))
    at_once = evaluate_checkpoint(path, hurried, "validation", "cpu", arch=config.arch)
    assert at_once.metrics["top1"] == at_once.metrics["exit0/top1"]
    assert at_once.metrics["exit0/taken"] == 1
    patient = Classification(dataset, early_exit=EarlyExit((0.4,)))
    all_of_it = evaluate_checkpoint(path, patient, "validation", "cpu", arch=config.arch)
    assert all_of_it.metrics["top1"] == all_of_it.metrics["exit1/top1"]
    assert set(exits_of(all_of_it)) == {"exit0/top1", "exit1/top1"}


@pytest.mark.slow
def test_the_weight_of_an_exit_decides_what_is_trained(config: RunConfig, dataset: Any) -> None:
    *_, last = fit(config, task=Classification(dataset, early_exit=EarlyExit((0.0,))))
    assert last.metrics["exit1/top1"] > 0.5 > last.metrics["exit0/top1"]


@pytest.mark.slow
def test_a_resumed_run_has_the_bits_of_one_never_interrupted(config: RunConfig, task: Classification) -> None:
    whole = list(fit(config, task=task))
    parts = replace(config, out_dir=str(config.out_dir) + "-parts")
    run = fit(parts, task=task)
    first = [next(run)]
    run.close()
    rest = list(fit(parts, task=task))
    assert [(m.metrics["loss"], exits_of(m)) for m in whole] == [(m.metrics["loss"], exits_of(m)) for m in first + rest]
    left, right = (
        load_model(checkpoint(config), config.arch).state_dict(),
        load_model(checkpoint(parts), parts.arch).state_dict(),
    )
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("arch", "early_exit", "says"),
    [
        ("several_answers:exits", None, "earlyexit_lossweights: must be 1: the model has 2 exits"),
        ("several_answers:exits", EarlyExit((0.1, 0.1)), "earlyexit_lossweights: must be 1: the model has 2 exits"),
        ("simplenet_cifar", EarlyExit((0.4,)), "leave them out, it has a single exit"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    config: RunConfig, dataset: Any, arch: str, early_exit: EarlyExit | None, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        next(fit(replace(config, arch=arch), task=Classification(dataset, early_exit=early_exit)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_exits_of_distillers_resnet(config: RunConfig, task: Classification) -> None:
    run = replace(config, arch="resnet20_cifar_earlyexit", epochs=1, effective_train_size=0.1, effective_valid_size=0.2)
    (metrics,) = fit(run, task=task)
    assert set(exits_of(metrics)) == {"exit0/top1", "exit0/taken", "exit1/top1", "exit1/taken"}


@pytest.mark.slow
def test_a_network_with_an_auxiliary_classifier_trains_both(config: RunConfig, dataset: Any) -> None:
    run = replace(config, arch="several_answers:auxiliary")
    *_, last = fit(run, task=Classification(dataset))
    assert last.metrics["top1"] > 0.5
    assert exits_of(last) == {}
    model = load_model(checkpoint(run), run.arch).train()
    (images, labels), *_ = EvalFeed(dataset, "validation", 500, "cpu").epoch(0)
    answer = model(images)
    assert float((answer.aux_logits.argmax(1) == labels).float().mean()) > 0.5


@pytest.mark.slow
def test_a_student_with_exits_learns_from_a_teacher_at_its_end(
    config: RunConfig, task: Classification, dataset: Any
) -> None:
    teacher = replace(config, arch="several_answers:auxiliary", epochs=1)
    list(fit(teacher, task=Classification(dataset)))
    alone = Distillation(teacher.arch, str(checkpoint(teacher)), distill_wt=1.0, student_wt=0.0)
    run = replace(config, out_dir=str(config.out_dir) + "-kd", distillation=alone)
    *_, last = fit(run, task=task)
    assert last.metrics["exit1/top1"] > 0.4 > last.metrics["exit0/top1"]


@pytest.mark.slow
def test_precision_is_measured_on_such_networks_too() -> None:
    for network in (TwoExits(10), WithAuxiliary(10)):
        assert _shortest_steps(("fp32",), network, CPU, (torch.randn(2, 3, 32, 32),))["fp32"] > 0


def test_evaluation_counts_every_image_once_whatever_the_batches(dataset: Any) -> None:
    torch.manual_seed(0)
    model = TwoExits(10)
    device = torch.device("cpu")
    (images, _), *_ = EvalFeed(dataset, "validation", 64, "cpu").epoch(0)
    middle = float(entropy(model(images)[0].detach()).median())
    results = [
        evaluate(model, EvalFeed(dataset, "validation", size, "cpu"), "validation", device, "fp32", (middle,))
        for size in (7, 64, 1000)
    ]
    assert model.training
    assert exits_of(results[0]) == pytest.approx(exits_of(results[1]))
    assert exits_of(results[0]) == pytest.approx(exits_of(results[2]))
    assert 0.2 < results[0].metrics["exit0/taken"] < 0.8
