from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, ConfigError, StorageError, TrainingError
from raydistill.records import EpochMetrics
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint, read_history

SCHEDULE = parse_schedule(
    {
        "pruners": {
            "fc": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.2,
                "final_sparsity": 0.8,
                "weights": ["fc1.weight", "fc2.weight"],
            }
        },
        "lr_schedulers": {"lr": {"class": "CosineAnnealingLR", "T_max": 6}},
        "policies": [
            {"pruner": {"instance_name": "fc"}, "starting_epoch": 1, "ending_epoch": 5, "frequency": 1},
            {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 6, "frequency": 1},
        ],
    },
    "s.yaml",
)


@pytest.fixture(scope="module")
def dataset():
    return load(DatasetConfig("digits"))


CONFIG = RunConfig(
    arch="simplenet_cifar",
    dataset=DatasetConfig("digits"),
    epochs=6,
    lr=0.05,
    schedule=SCHEDULE,
    deterministic=True,
    threads=1,
    tensorboard=False,
    effective_train_size=0.4,
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return replace(CONFIG, out_dir=str(tmp_path / "run"))


@dataclass(frozen=True)
class Trained:
    folder: Path
    metrics: list[EpochMetrics]


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`CONFIG`, never interrupted. Tests read it, or go on in a copy."""
    folder = tmp_path_factory.mktemp("whole")
    return Trained(
        folder, list(fit(replace(CONFIG, tensorboard=True, out_dir=str(folder)), task=Classification(dataset)))
    )


@pytest.fixture(scope="module")
def dense(dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("dense")
    run = replace(CONFIG, epochs=12, batch_size=64, schedule=None, out_dir=str(folder), effective_train_size=1.0)
    return Trained(folder, list(fit(run, task=Classification(dataset))))


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    return torch.load(Path(path) / "checkpoint.pt", weights_only=True)["model"]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.slow
def test_it_learns_prunes_and_says_so(whole: Trained, dense: Trained) -> None:
    assert [m.epoch for m in dense.metrics] == list(range(12))
    assert dense.metrics[-1].metrics["top1"] > 0.5 > dense.metrics[0].metrics["top1"]  # ten classes: chance is 0.1
    pruned = whole.metrics
    assert [round(m.layer_sparsity["fc2.weight"], 3) for m in pruned] == [0.0, 0.2, 0.622, 0.778, 0.8, 0.8]
    assert pruned[-1].sparsity == pytest.approx((38400 + 8064) / 61770)
    assert pruned[0].learning_rate == pytest.approx(0.05)
    assert pruned[3].learning_rate == pytest.approx(0.025)  # half of a half cosine


@pytest.mark.slow
def test_a_resumed_run_has_the_bits_of_one_never_interrupted(config: RunConfig, dataset, whole: Trained) -> None:
    run = fit(config, task=Classification(dataset))
    first = [next(run), next(run)]
    run.close()
    torch.manual_seed(12345)  # whatever the process did in between
    torch.rand(100)
    rest = list(fit(config, task=Classification(dataset)))
    assert [m.epoch for m in first + rest] == list(range(6))
    assert_same(weights(whole.folder), weights(config.out_dir))
    assert [m.metrics["loss"] for m in whole.metrics] == [m.metrics["loss"] for m in first + rest]
    assert [m.epoch for m in read_history(Path(config.out_dir) / "checkpoint.pt")] == list(range(6))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(config: RunConfig, dataset, tmp_path: Path) -> None:
    list(fit(replace(config, epochs=25, effective_train_size=1.0), task=Classification(dataset)))
    killed = tmp_path / "killed"
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from dataclasses import replace\n"
        "from test_loop import SCHEDULE\n"
        "from raydistill.datasets import DatasetConfig\n"
        "from raydistill.training import RunConfig, fit\n"
        "config = RunConfig('simplenet_cifar', DatasetConfig('digits'), epochs=25, lr=0.05, schedule=SCHEDULE,\n"
        f"    out_dir={str(killed)!r}, deterministic=True, threads=1, tensorboard=False)\n"
        "for metrics in fit(config):\n"
        "    print(metrics.epoch, flush=True)\n"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.05)  # somewhere inside an epoch
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = len(read_history(killed / "checkpoint.pt"))
    assert 6 <= done < 25
    subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.DEVNULL)
    assert_same(weights(config.out_dir), weights(killed))


@pytest.mark.slow
def test_a_finished_run_yields_nothing_and_more_epochs_go_on(config: RunConfig, dataset, whole: Trained) -> None:
    shutil.copytree(whole.folder, config.out_dir)
    assert list(fit(config, task=Classification(dataset))) == []
    assert [m.epoch for m in fit(replace(config, epochs=8), task=Classification(dataset))] == [6, 7]
    assert next(fit(replace(config, resume=False), task=Classification(dataset))).epoch == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 0.2}, "was trained with lr 0.05, got 0.2"),
        ({"schedule": None}, "was trained with schedule"),
        ({"seed": 3}, "was trained with seed 0"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(config: RunConfig, dataset, change: dict, says: str) -> None:
    run = fit(config, task=Classification(dataset))
    next(run)
    run.close()
    with pytest.raises(CheckpointError, match=says):
        next(fit(replace(config, **change), task=Classification(dataset)))


@pytest.mark.slow
def test_it_starts_from_the_weights_of_a_checkpoint(config: RunConfig, dataset, dense: Trained) -> None:
    start = str(dense.folder / "checkpoint.pt")
    before = evaluate_checkpoint(start, Classification(dataset), "validation", "cpu")
    tuned = replace(config, init_from=start, epochs=1, lr=1e-6, schedule=None)
    (metrics,) = list(fit(tuned, task=Classification(dataset)))
    assert metrics.metrics["top1"] == pytest.approx(before.metrics["top1"], abs=0.02)
    assert before.metrics["top1"] > 0.3
    with pytest.raises(CheckpointError, match=r"another architecture|choose its architecture"):
        next(fit(replace(tuned, arch="resnet20_cifar", resume=False), task=Classification(dataset)))


@pytest.mark.slow
def test_diverging_ends_with_a_reason_and_leaves_the_last_good_checkpoint(config: RunConfig, dataset) -> None:
    run = fit(replace(config, lr=1e12, schedule=None), task=Classification(dataset))
    with pytest.raises(TrainingError, match=r"epoch \d+: the (training|validation) loss .*must be finite.*lower lr"):
        list(run)
    path = Path(config.out_dir) / "checkpoint.pt"
    if path.exists():
        assert all(torch.isfinite(value).all() for value in read_checkpoint(path)["model"].values())


@pytest.mark.slow
def test_what_is_written_loads_and_agrees_with_the_metrics(dataset, whole: Trained) -> None:
    folder, last = whole.folder, whole.metrics[-1]
    with open(folder / "sparsity.csv", newline="") as file:
        rows = {row["weight"]: row for row in csv.DictReader(file)}
    assert float(rows["total"]["sparsity"]) == pytest.approx(last.sparsity)
    assert int(rows["fc2.weight"]["nonzero"]) == 120 * 84 - 8064
    assert (folder / "schedule.yaml").exists()
    assert list(folder.glob("events.out.tfevents.*"))
    model = load_model(folder / "checkpoint.pt")
    assert int((model.fc2.weight == 0).sum()) == 8064
    again = evaluate_checkpoint(folder / "checkpoint.pt", Classification(dataset), "validation", "cpu")
    assert again.metrics["top1"] == pytest.approx(last.metrics["top1"])
    assert again.samples == len(dataset.validation_index)
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
class Ahead(Ranks):
    """Beside this one stands a worker whose checkpoint is of two epochs later."""

    def gather(self, value: Any) -> list[Any]:
        return [value, value + 2] if type(value) is int else [value]


def test_workers_that_see_other_folders_are_told_so_before_an_epoch(config: RunConfig, dataset) -> None:
    with pytest.raises(TrainingError, match=r"out_dir: must be the same folder on every worker.* epochs \[0, 2\]"):
        next(fit(config, task=Classification(dataset), ranks=Ahead()))


def test_closing_puts_torchs_settings_back(config: RunConfig, dataset) -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    run = fit(replace(config, threads=before[0] + 1), task=Classification(dataset))
    next(run)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (before[0] + 1, True)
    run.close()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_bad_values_are_reported_together_before_anything_is_written(config: RunConfig) -> None:
    bad = replace(config, epochs=-1, lr=float("nan"), momentum=1.0, precision="fp8", batch_size=True)
    with pytest.raises(ConfigError) as caught:
        next(fit(bad))
    assert len(caught.value.faults) == 5
    assert not Path(config.out_dir).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint_whole(
    config: RunConfig, dataset, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        run = fit(replace(config, out_dir=str(disk / "run")), task=Classification(dataset))
        next(run)
        (disk / "filler").write_bytes(
            b"x" * (1024 * 1024 - 4096 - sum(f.stat().st_size for f in (disk / "run").iterdir()) - 16384)
        )
        with pytest.raises(StorageError, match=r"checkpoint.pt: cannot be written \(no space left on device\)"):
            next(run)
        assert read_checkpoint(disk / "run" / "checkpoint.pt")["epoch"] == 0
        assert not list((disk / "run").glob(".*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_another_run_goes_on_from_a_checkpoint_with_its_optimizer_and_masks(
    config: RunConfig, dataset, tmp_path: Path, whole: Trained
) -> None:
    first = replace(config, out_dir=str(tmp_path / "first"))
    run = fit(first, task=Classification(dataset))
    for _ in range(3):
        next(run)
    run.close()
    then = replace(config, out_dir=str(tmp_path / "then"), continue_from=str(tmp_path / "first" / "checkpoint.pt"))
    assert [metrics.epoch for metrics in fit(then, task=Classification(dataset))] == [3, 4, 5]
    assert_same(weights(whole.folder), weights(then.out_dir))
    # under another schedule the masks stay
    dense = replace(then, schedule=None, out_dir=str(tmp_path / "dense"))
    last = list(fit(dense, task=Classification(dataset)))[-1]
    reached = read_history(tmp_path / "first" / "checkpoint.pt")[-1]
    assert last.layer_sparsity["fc1.weight"] == reached.layer_sparsity["fc1.weight"] > 0.3
    with pytest.raises(ConfigError, match=r"training\.epochs: must be above 3"):
        next(fit(replace(then, epochs=3, out_dir=str(tmp_path / "none")), task=Classification(dataset)))
    with pytest.raises(ConfigError, match="init_from: cannot stand beside continue_from"):
        next(fit(replace(then, init_from="x"), task=Classification(dataset)))


@pytest.mark.slow
def test_steps_are_reported_and_fractions_are_used(config: RunConfig, dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int, float]] = []
    small = replace(config, epochs=1, batch_size=64, schedule=None, effective_train_size=0.25, effective_valid_size=0.5)
    (metrics,) = fit(small, task=Classification(dataset), on_step=lambda *step: seen.append(step))
    count = -(-round(len(dataset.train_index) * 0.25) // 64)
    assert [step[:3] for step in seen] == [(0, index, count) for index in range(count)]
    assert seen[-1][3] == pytest.approx(metrics.train_loss)
    held = round(len(dataset.validation_index) * 0.5)
    assert (metrics.metrics["top1"] * held) == pytest.approx(round(metrics.metrics["top1"] * held))
    evaluated = evaluate_checkpoint(str(metrics.checkpoint), Classification(dataset), "test", fraction=0.1)
    assert evaluated.samples == round(len(dataset.test_labels) * 0.1)


@pytest.mark.slow
def test_what_thinning_has_removed_counts_as_zero(config: RunConfig, dataset) -> None:
    mapping = {
        "pruners": {"half": {"class": "L1RankedStructureParameterPruner", "group_type": "Filters",
                             "desired_sparsity": 0.5, "weights": ["conv2.weight"]}},
        "extensions": {"thin": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
        "policies": [{"pruner": {"instance_name": "half"}, "epochs": [0]},
                     {"extension": {"instance_name": "thin"}, "epochs": [1]}],
    }  # fmt: skip
    run = replace(config, schedule=parse_schedule(mapping, "s.yaml"), epochs=2, effective_train_size=0.1)
    before, after = fit(run, task=Classification(dataset))
    assert load_model(Path(run.out_dir) / "checkpoint.pt").conv2.weight.shape[0] == 8
    assert before.layer_sparsity["conv2.weight"] == after.layer_sparsity["conv2.weight"] == 0.5
    # of fc1's 48,000 weights those that read the filters are gone too: 8 filters of 5x5 outputs for each of 120
    assert after.layer_sparsity["fc1.weight"] == pytest.approx(0.5)
    assert after.sparsity == pytest.approx((1200 + 24000) / 61770)


@pytest.mark.slow
def test_reduce_on_plateau_sees_the_validation_loss(config: RunConfig, dataset) -> None:
    """A threshold that the training loss passes each epoch, and the validation loss never."""
    plateau = {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "threshold": 0.0, "threshold_mode": "abs"}
    mapping = {
        "lr_schedulers": {"lr": plateau},
        "policies": [
            {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 12, "frequency": 1}
        ],
    }
    run = replace(
        config,
        schedule=parse_schedule(mapping, "s.yaml"),
        epochs=12,
        lr=0.1,
        batch_size=16,
        effective_train_size=0.03,
        out_dir=None,
    )
    metrics = list(fit(run, task=Classification(dataset)))
    expected, best, rate = [], float("inf"), 0.1
    for entry in metrics:
        expected.append(rate)
        if entry.metrics["loss"] < best:
            best = entry.metrics["loss"]
        else:
            rate *= 0.5
    assert [m.learning_rate for m in metrics] == pytest.approx(expected)
    by_training_loss = [0.1 * 0.5 ** sum(b.train_loss >= a.train_loss for a, b in pairwise(metrics[: i + 1]))
                        for i in range(len(metrics))]  # fmt: skip
    assert expected != by_training_loss  # else the test could not tell


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [("nesterov", True), ("momentum", 0.5), ("weight_decay", 0.5), ("batch_size", 32),
     ("effective_train_size", 0.3)],
)  # fmt: skip
def test_each_value_that_the_weights_depend_on_is_part_of_a_runs_identity(
    config: RunConfig, dataset, key: str, value: Any
) -> None:
    run = fit(replace(config, epochs=2, effective_train_size=0.1), task=Classification(dataset))
    next(run)
    run.close()
    changed = replace(config, **{"epochs": 2, "effective_train_size": 0.1, key: value})
    with pytest.raises(CheckpointError, match=f"was trained with {key} "):
        next(fit(changed, task=Classification(dataset)))
