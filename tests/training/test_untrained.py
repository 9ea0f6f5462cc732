"""Runs of no epochs: what is pruned, validated and kept, and what has no meaning in them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError
from raydistill.parts.training import of_no_epochs
from raydistill.schedule import parse_schedule
from raydistill.tasks import TRAIN, Loading
from raydistill.tasks.classification import Classification
from raydistill.training import Distillation, OwnLoop, RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint


def schedule(controls: dict[str, Any] | None = None, /, **pruner: Any) -> Any:
    policies = [{"pruner": {"instance_name": "p", "args": controls or {}}, "epochs": [0]}]
    return parse_schedule({"pruners": {"p": pruner}, "policies": policies}, "s.yaml")


CONFIG = RunConfig("simplenet_cifar", DatasetConfig("digits"), epochs=0, threads=1, tensorboard=False, device="cpu",
                   schedule=schedule(**{"class": "SparseGPTPruner", "levels": {"*": 0.5}}))  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.fixture(scope="module")
def dense(task: Classification, tmp_path_factory: pytest.TempPathFactory) -> str:
    config = replace(CONFIG, epochs=2, lr=0.05, schedule=None, out_dir=str(tmp_path_factory.mktemp("dense")))
    return str([*fit(config, task=task)][-1].checkpoint)


@pytest.mark.slow
def test_what_it_starts_from_is_pruned_validated_and_kept(task: Classification, dense: str, tmp_path: Path) -> None:
    config = replace(CONFIG, init_from=dense, out_dir=str(tmp_path))
    (found,) = fit(config, task=task)
    assert (found.epoch, found.epochs, found.train_loss, found.samples_per_second) == (0, 1, None, 0.0)
    assert found.sparsity == pytest.approx(0.5, abs=1e-3)
    again = evaluate_checkpoint(str(found.checkpoint), task, "validation", "cpu")
    assert again.metrics["top1"] == found.metrics["top1"]
    trained = evaluate_checkpoint(dense, task, "validation", "cpu").metrics["top1"]
    assert trained - 0.2 < found.metrics["top1"]
    content, before = read_checkpoint(tmp_path / "checkpoint.pt"), read_checkpoint(dense)
    assert (content["model"]["fc3.bias"] == before["model"]["fc3.bias"]).all(), "nothing is trained"
    assert [*fit(config, task=task)] == [], "it is done"


@pytest.mark.slow
def test_it_can_be_trained_on_with_its_masks(task: Classification, dense: str, tmp_path: Path) -> None:
    (pruned,) = fit(replace(CONFIG, init_from=dense, out_dir=str(tmp_path / "a")), task=task)
    kept = replace(
        CONFIG, epochs=3, lr=0.02, schedule=None, continue_from=pruned.checkpoint, out_dir=str(tmp_path / "b")
    )
    *_, last = fit(kept, task=task)
    assert last.sparsity == pruned.sparsity
    assert last.metrics["loss"] < pruned.metrics["loss"]


@pytest.mark.slow
def test_a_wanda_run_finds_what_it_did_before(task: Classification, dense: str) -> None:
    wanda = replace(CONFIG, init_from=dense, schedule=schedule(**{"class": "WandaPruner", "levels": {"*": 0.7}}))
    (first,), (again,) = fit(wanda, task=task), fit(wanda, task=task)
    assert first.metrics == again.metrics


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"distillation": Distillation(checkpoint="teacher.pt")}, "distillation: is for training, and 0 epochs train"),
        ({"train": OwnLoop("tests.training.own_loops:plain")}, "train: is a loop of one's own, which 0 epochs do not"),
        ({"epochs": 3, "trains": False}, "training.epochs: must be 1 where nothing is trained, got 3"),
    ],
)
def test_what_has_no_meaning_without_training(change: dict[str, Any], expected: str, task: Classification) -> None:
    with pytest.raises(ConfigError) as raised:
        next(iter(fit(replace(CONFIG, **change), task=task)))
    assert expected in str(raised.value)


def ranked(**arguments: Any) -> dict[str, Any]:
    return {"class": "RankedPruner", "final_sparsity": 0.5, "weights": ["fc1.weight"], "rate": "one_shot", **arguments}


@pytest.mark.slow
def test_a_ranking_by_gradients_sees_minibatches_that_nothing_is_learned_from(
    task: Classification, dense: str, tmp_path: Path
) -> None:
    pruner = schedule({"evidence_minibatches": 2}, **ranked(ranking="taylor"))
    list(fit(replace(CONFIG, init_from=dense, out_dir=str(tmp_path), schedule=pruner), task=task))
    before, after = load_model(dense), load_model(tmp_path / "checkpoint.pt")
    feed = task.feed(TRAIN, Loading(torch.device("cpu"), CONFIG.batch_size, CONFIG.seed, CONFIG.effective_train_size))
    before.eval()
    for batch in itertools.islice(feed.epoch(0), 2):
        (task.loss(before, batch) / 2).backward()
    parameter = before.get_parameter("fc1.weight")
    assert parameter.grad is not None
    scores = (parameter.detach() * parameter.grad).abs().flatten()
    kept = torch.ones_like(scores)
    kept[scores.argsort()[: scores.numel() // 2]] = 0.0
    expected = parameter.detach() * kept.view_as(parameter)
    agree = after.get_parameter("fc1.weight") == expected
    assert float(agree.float().mean()) > 0.999  # but for ties, and sums in another order
    assert torch.equal(after.get_parameter("fc2.weight"), before.get_parameter("fc2.weight"))


@pytest.mark.slow
def test_a_ranking_by_activations_leaves_batch_norms_as_they_are(task: Classification, tmp_path: Path) -> None:
    filters = ranked(ranking="apoz", granularity="Filters", weights=["layer1.0.conv1.weight"])
    config = replace(CONFIG, arch="resnet20_cifar", effective_train_size=0.05, effective_valid_size=0.1)
    list(fit(replace(config, out_dir=str(tmp_path), schedule=schedule(**filters)), task=task))
    network = load_model(tmp_path / "checkpoint.pt")
    rows = network.get_parameter("layer1.0.conv1.weight").detach().flatten(1).abs().sum(1)
    assert int((rows == 0).sum()) == 8
    assert torch.equal(network.get_buffer("bn1.running_var"), torch.ones(16))


def test_a_ranking_by_what_training_does_is_refused(task: Classification) -> None:
    with pytest.raises(ConfigError, match=r"p: decides by how training moves weights, and 0 epochs do not train"):
        next(iter(fit(replace(CONFIG, schedule=schedule(**ranked(ranking="movement"))), task=task)))


def test_zero_is_written_as_one_epoch_without_training() -> None:
    assert of_no_epochs({"epochs": 0, "lr": 0.1}) == {"epochs": 1, "lr": 0.1, "trains": False}
    assert of_no_epochs({"epochs": 2}) == {"epochs": 2}
    assert of_no_epochs({"epochs": False}) == {"epochs": False}
