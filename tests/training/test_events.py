"""What TensorBoard shows of a run, as its own reader finds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.datasets import DatasetConfig
from raydistill.records import EpochMetrics
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit, load_model
from raydistill.training.events import STEPS, EventLog
from tests.compression.statistics.test_structures import net

SCHEDULE = parse_schedule({
    "pruners": {"rows": {
        "class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.25,
        "weights": ["conv1.weight"],
    }},
    "policies": [{"pruner": {"instance_name": "rows"}, "epochs": [0, 1]}],
}, "rows")  # fmt: skip
CONFIG = RunConfig(
    "simplenet_cifar", DatasetConfig("digits"), task=TaskConfig(), epochs=2, batch_size=128, lr=0.05, precision="fp32",
    device="cpu", threads=1, effective_train_size=0.4, effective_valid_size=0.2, schedule=SCHEDULE,
)  # fmt: skip


def read(folder: Path) -> Any:
    pytest.importorskip("tensorboard", reason="its reader is what is asked")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    return found


def points(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(tag)}


@pytest.mark.slow
def test_the_loss_by_minibatch_is_the_mean_since_the_last_point(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).uniform(1, 3, (2, 250))
    with EventLog(tmp_path, 0, steps=250) as events:
        for epoch, of_epoch in enumerate(losses):
            for index in range(250):
                events.step(epoch, index, float(of_epoch[: index + 1].sum()) * 4, (index + 1) * 4, 0.1 / (epoch + 1))
    found = points(tmp_path / STEPS, "loss/minibatch")
    assert sorted(found) == [epoch * 250 + index for epoch in range(2) for index in range(0, 250, 3)]  # 100 at most
    assert found[250] == pytest.approx(losses[1, 0])  # each epoch begins anew
    assert found[253] == pytest.approx(losses[1, 1:4].mean())
    rates = points(tmp_path / STEPS, "learning_rate/minibatch")
    assert (rates[0], rates[250]) == (pytest.approx(0.1), pytest.approx(0.05))


@pytest.mark.slow
def test_a_resumed_run_shows_no_epoch_and_no_minibatch_twice(tmp_path: Path) -> None:
    metrics = EpochMetrics(0, 3, 1.0, {"top1": 0.5, "loss": 1.0}, 0.1, 0.5, {"a": 0.5}, 0.0, 1.0, 0)
    for first, value in ((0, 1.0), (1, 2.0)):  # the first one has told of epoch 1, which its checkpoint does not hold
        with EventLog(tmp_path, first, steps=4) as events:
            for epoch in range(first, 2):
                for index in range(4):
                    events.step(epoch, index, value * (index + 1), index + 1, 0.1)
                events.write(replace(metrics, epoch=epoch, train_loss=value))
        for path in [*tmp_path.rglob("events.out.tfevents.*")] if first == 0 else []:
            path.rename(path.with_name("events.out.tfevents.1.earlier"))  # a name is good for a second
    assert points(tmp_path, "loss/train") == {0: 1.0, 1: 2.0}
    assert points(tmp_path / STEPS, "loss/minibatch") == {step: 1.0 if step < 4 else 2.0 for step in range(8)}


@pytest.mark.slow
def test_structures_and_filters_of_each_weight(tmp_path: Path) -> None:
    with EventLog(tmp_path, 0, steps=4) as events:
        events.structures(net(), 3)
        events.parameters(net(), 3)
    found = read(tmp_path)
    assert points(tmp_path, "sparsity_2d/0.weight") == {3: pytest.approx(4 / 12)}
    (histogram,) = found.Histograms("filter_magnitude/0.weight")
    assert (histogram.step, histogram.histogram_value.num, histogram.histogram_value.min) == (3, 4.0, 0.0)
    assert [event.step for event in found.Histograms("weights/0.weight")] == [3]
    with EventLog(tmp_path / "pack", 0) as events:
        events.structures(net(), 3)
    assert read(tmp_path / "pack").Tags()["scalars"] == []
    assert not (tmp_path / "pack" / STEPS).exists()


def test_nothing_is_written_where_nothing_is_asked_for() -> None:
    with EventLog(None, 0, steps=4) as events:
        events.step(0, 0, 1.0, 1, 0.1)
        events.structures(net(), 0)
        events.parameters(net(), 0)


@pytest.mark.slow
def test_a_run(tmp_path: Path) -> None:
    *_, last = fit(replace(CONFIG, out_dir=str(tmp_path), parameter_histograms=True))
    model = load_model(tmp_path / "checkpoint.pt")
    zeros = (model.conv1.weight.flatten(2) == 0).all(2).float().mean()
    assert points(tmp_path, "sparsity_2d/conv1.weight")[1] == pytest.approx(float(zeros))
    assert float(zeros) >= 1 / 6
    assert points(tmp_path, "sparsity/total") == {0: pytest.approx(last.sparsity), 1: pytest.approx(last.sparsity)}
    by_minibatch = points(tmp_path / STEPS, "loss/minibatch")
    half = len(by_minibatch) // 2
    assert sorted(by_minibatch) == list(range(2 * half))
    # the last minibatch of an epoch is smaller: the mean over minibatches is about that over samples
    of_last = [value for step, value in by_minibatch.items() if step >= half]
    assert np.mean(of_last) == pytest.approx(points(tmp_path, "loss/train")[1], rel=0.1)
    magnitudes = read(tmp_path).Histograms("filter_magnitude/conv1.weight")[-1].histogram_value
    assert magnitudes.num == len(model.conv1.weight)
    assert magnitudes.max == pytest.approx(float(model.conv1.weight.detach().abs().flatten(1).mean(1).max()), rel=1e-5)
