"""Runs of `fit` with a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from raydistill import models
from raydistill.compression.distillation import distillation_loss
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, RaydistillError
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.feed import TrainFeed
from raydistill.training import Distillation, RunConfig, fit, load_model, read_checkpoint
from raydistill.training.determinism import seed_everything

SCHEDULE = parse_schedule(
    {
        "pruners": {
            "fc": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.2,
                "final_sparsity": 0.8,
                "weights": ["fc1.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "fc"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 1}],
    },
    "s.yaml",
)


@pytest.fixture(scope="module")
def dataset() -> Any:
    return load(DatasetConfig("digits"))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=4, lr=0.05, schedule=SCHEDULE, out_dir=str(tmp_path / "run"),
        deterministic=True, threads=1, tensorboard=False, device="cpu", effective_train_size=0.3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that is not sure of much: one epoch."""
    folder = tmp_path_factory.mktemp("teacher")
    run = RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=1, batch_size=64, lr=0.05, out_dir=str(folder),
        threads=1, tensorboard=False, device="cpu", precision="fp32",
    )  # fmt: skip
    list(fit(run, task=Classification(dataset)))
    return str(folder / "checkpoint.pt")


def saved(config: RunConfig) -> dict[str, Any]:
    return read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt")


@pytest.mark.slow
def test_the_training_loss_is_that_of_labels_and_teacher(config: RunConfig, dataset: Any, teacher: str) -> None:
    distillation = Distillation(checkpoint=teacher, temperature=3.0, distill_wt=0.9, student_wt=0.2)
    whole = replace(config, epochs=1, batch_size=100_000, schedule=None, distillation=distillation)  # one minibatch
    (metrics,) = fit(whole, task=Classification(dataset))
    seed_everything(whole.seed)
    student = models.create("simplenet_cifar", 10).to(memory_format=torch.channels_last)
    feed = TrainFeed(dataset, whole.batch_size, "cpu", whole.seed, fraction=whole.effective_train_size)
    ((images, labels),) = feed.epoch(0)
    logits = student(images)
    expected = 0.2 * functional.cross_entropy(logits, labels)
    expected += 0.9 * distillation_loss(logits, load_model(teacher)(images), 3.0)
    assert metrics.train_loss == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.slow
def test_a_student_of_a_teacher_alone_comes_near_it(config: RunConfig, dataset: Any, teacher: str) -> None:
    images = torch.randn(32, 3, 32, 32)
    target = load_model(teacher)(images).detach()

    def distance(run: RunConfig) -> float:
        list(fit(run, task=Classification(dataset)))
        logits = load_model(Path(str(run.out_dir)) / "checkpoint.pt")(images).detach()
        return float(distillation_loss(logits, target, 1.0))

    plain = replace(config, batch_size=32, schedule=None)
    alone = Distillation(checkpoint=teacher, distill_wt=1.0, student_wt=0.0)
    taught = replace(plain, distillation=alone, out_dir=str(config.out_dir) + "-taught")
    assert distance(taught) < 0.5 * distance(plain)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [{}, {"fc1": "fc1", "fc2": "fc1"}])  # of 120 and 84 features
def test_a_resumed_run_has_the_bits_of_one_never_interrupted(
    config: RunConfig, dataset: Any, teacher: str, tmp_path: Path, hidden: dict[str, str]
) -> None:
    said = Distillation(checkpoint=teacher, temperature=4.0, start_epoch=1, end_epoch=3, hidden=hidden)
    distilled = replace(config, distillation=said)
    whole = list(fit(distilled, task=Classification(dataset)))
    assert whole[-1].layer_sparsity["fc1.weight"] == pytest.approx(0.8)
    parts = replace(distilled, out_dir=str(tmp_path / "parts"))
    run = fit(parts, task=Classification(dataset))
    first = [next(run), next(run)]
    run.close()
    torch.manual_seed(12345)
    rest = list(fit(parts, task=Classification(dataset)))
    assert [m.metrics["loss"] for m in whole] == [m.metrics["loss"] for m in first + rest]
    left, right = saved(distilled)["model"], saved(parts)["model"]
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.slow
def test_it_acts_in_its_epochs_only(config: RunConfig, dataset: Any, teacher: str) -> None:
    plain = list(fit(config, task=Classification(dataset)))
    late = Distillation(checkpoint=teacher, start_epoch=2)
    taught = list(
        fit(replace(config, distillation=late, out_dir=str(config.out_dir) + "-kd"), task=Classification(dataset))
    )
    assert [m.metrics["loss"] for m in taught[:2]] == [m.metrics["loss"] for m in plain[:2]]
    assert taught[2].metrics["loss"] != plain[2].metrics["loss"]
    early = Distillation(checkpoint=teacher, end_epoch=1)
    (first, *_) = fit(
        replace(config, distillation=early, out_dir=str(config.out_dir) + "-e"), task=Classification(dataset)
    )
    assert first.train_loss != plain[0].train_loss


@pytest.mark.slow
def test_the_teacher_is_known_by_its_weights(config: RunConfig, dataset: Any, teacher: str, tmp_path: Path) -> None:
    distilled = replace(config, epochs=1, distillation=Distillation(checkpoint=teacher))
    list(fit(distilled, task=Classification(dataset)))
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(Path(teacher).read_bytes())
    more = replace(distilled, epochs=2, distillation=Distillation(checkpoint=str(moved)))
    assert [m.epoch for m in fit(more, task=Classification(dataset))] == [1]
    content = torch.load(moved, weights_only=True)
    content["model"]["fc3.bias"] += 1
    torch.save(content, moved)
    for change in ({"distillation": more.distillation}, {"distillation": None},
                   {"distillation": Distillation(checkpoint=teacher, temperature=2.0)}):  # fmt: skip
        with pytest.raises(CheckpointError, match="was trained with distillation"):
            next(fit(replace(more, epochs=3, **change), task=Classification(dataset)))


@pytest.mark.slow
@pytest.mark.parametrize("taught_first", [True, False])
def test_a_run_goes_on_from_one_with_and_without_a_teacher(
    config: RunConfig, dataset: Any, teacher: str, taught_first: bool
) -> None:
    distillation = Distillation(checkpoint=teacher)
    first = replace(config, epochs=3, distillation=distillation if taught_first else None)
    list(fit(first, task=Classification(dataset)))
    start = str(Path(str(config.out_dir)) / "checkpoint.pt")
    second = replace(
        config, continue_from=start, out_dir=str(config.out_dir) + "-2",
        distillation=None if taught_first else distillation,
    )  # fmt: skip
    (metrics,) = fit(second, task=Classification(dataset))
    assert metrics.epoch == 3
    assert metrics.layer_sparsity["fc1.weight"] == pytest.approx(0.8)


@pytest.mark.slow
def test_a_teacher_from_distiller(config: RunConfig, dataset: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = models.create("simplenet_cifar", 10)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    file = tmp_path / "best.pth.tar"
    torch.save({"epoch": 1, "arch": "simplenet_cifar", "state_dict": weights}, file)
    run = replace(config, epochs=1, schedule=None, distillation=Distillation(checkpoint=str(file)))
    list(fit(run, task=Classification(dataset)))
    assert saved(run)["run"]["distillation"]["temperature"] == 1.0
    torch.save({"state_dict": weights}, file)
    with pytest.raises(CheckpointError, match="does not say its architecture; name the teacher"):
        next(fit(replace(run, resume=False), task=Classification(dataset)))
    named = Distillation(checkpoint=str(file), teacher="simplenet_cifar")
    assert next(fit(replace(run, resume=False, distillation=named), task=Classification(dataset))).epoch == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"checkpoint": "x", "start_epoch": 4}, "distillation.start_epoch: must be from 0 to below 4, where"),
        ({"checkpoint": "x"}, "x: no such checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    config: RunConfig, dataset: Any, values: dict, says: str
) -> None:
    with pytest.raises(RaydistillError) as caught:
        next(fit(replace(config, distillation=Distillation(**values)), task=Classification(dataset)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(str(config.out_dir)).exists()
