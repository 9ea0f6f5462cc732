"""What a run's pruners calibrate on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.records import EpochMetrics
from raydistill.schedule import parse_schedule
from raydistill.tasks import TRAIN, Loading, TaskConfig, Weights
from raydistill.training import RunConfig, fit
from raydistill.training.calibration import calibration_of, kept_statistics
from tests.tasks.language_model.texts import folder_of


def test_it_is_the_training_data_of_the_first_epoch_again_and_again(tmp_path: Path) -> None:
    data = DatasetConfig(data_dir=str(folder_of(tmp_path)))
    said = TaskConfig("language_model", {"tokens": "bytes", "bptt": 8})
    task = tasks.load(said, data, Weights("decoder_lm"))
    config = RunConfig("decoder_lm", data, task=said, batch_size=4, seed=3)
    batches = calibration_of(task, config, torch.device("cpu"))
    first, again = ([inputs[0] for inputs in batches()] for _ in range(2))
    feed = task.feed(TRAIN, Loading(torch.device("cpu"), 4, 3)).epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b.tokens) for a, b in zip(first, feed, strict=True))


def test_what_is_shared_is_of_the_same_data_whatever_the_schedule_and_the_files(tmp_path: Path) -> None:
    config = RunConfig("simplenet_cifar", DatasetConfig("digits"), seed=3, statistics_dir=str(tmp_path / "s"))
    cpu = torch.device("cpu")
    assert kept_statistics(replace(config, statistics_dir=None), cpu) is None
    kept = kept_statistics(config, cpu)
    assert kept is not None
    assert kept.folder == tmp_path / "s"
    schedule = parse_schedule({"version": 1}, "s")
    for same in ({"schedule": schedule}, {"init_from": "dense.pt"}, {"out_dir": "t1"}, {"values": {"a": 1}}):
        assert kept_statistics(replace(config, **same), cpu) == kept
    for other in ({"seed": 4}, {"batch_size": 7}, {"effective_train_size": 0.5}, {"arch": "resnet20_cifar"}):
        assert kept_statistics(replace(config, **other), cpu) != kept
    assert kept_statistics(config, torch.device("meta")) != kept


def test_runs_that_share_calibrate_once(tmp_path: Path) -> None:
    said = {
        "version": 1,
        "quantizers": {"q": {"class": "PostTrainLinearQuantizer"}},
        "policies": [{"quantizer": {"instance_name": "q", "args": {"evidence_minibatches": 1}}, "epochs": [0]}],
    }

    def run(bits: int, **where: str) -> EpochMetrics:
        said["quantizers"]["q"]["bits_parameters"] = bits
        config = RunConfig("simplenet_cifar", DatasetConfig("digits"), epochs=0, schedule=parse_schedule(said, "s"))
        return list(fit(replace(config, device="cpu", **where)))[-1]

    shared = str(tmp_path / "s")
    found = [run(bits, statistics_dir=shared) for bits in (8, 3)]
    (file,) = (tmp_path / "s").iterdir()
    assert [one.metrics for one in found] == [run(bits).metrics for bits in (8, 3)]
    narrow = {name: {**records, "output": {**records["output"], "min": -1e-3, "max": 1e-3, "avg_min": 0, "avg_max": 0}}
              for name, records in json.loads(file.read_text()).items()}  # fmt: skip
    file.write_text(json.dumps(narrow))
    assert run(8, statistics_dir=shared).metrics != found[0].metrics, "what is there is used"
