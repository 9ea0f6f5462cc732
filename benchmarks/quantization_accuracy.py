"""What quantization costs a trained network in accuracy, on the test split, for several seeds.

    python benchmarks/quantization_accuracy.py [CHECKPOINT] --data-dir CIFAR10 [--seeds 3] [--epochs 2] [--part 0.25]
        [--rows AdaRound PACT]

Quantized after training: ranges from 512 training images, others for each seed, of which AdaRound learns and by whose
loss LAPQ searches. Quantized in training: so many epochs from the checkpoint on, each on a part of the training split,
and the same in floats beside it. Without a checkpoint a simplenet_cifar is trained and pruned to 85 % first, one of
each seed. Validation data are not looked at; nothing is chosen by these figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raydistill.analysis.network import read_network
from raydistill.analysis.quantized import Options, quantize
from raydistill.compression.post_training import PLAIN, Steps
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.datasets import DatasetConfig, load
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks import TEST, Loading, Task, Weights
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, load_model
from raydistill.training.distiller_checkpoint import read_any

_CALIBRATION = 512
_BATCH = 128
_SPARSITY = 0.85


@dataclass(frozen=True)
class Row:
    """quantizer: its class; "" trains on in floats. trained: in training; else afterwards."""

    name: str
    quantizer: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False
    steps: Steps = PLAIN
    search: Options | None = None


AWARE, AFTER = "QuantAwareTrainRangeLinearQuantizer", "PostTrainLinearQuantizer"
EIGHT = {pattern: {"bits_weights": 8, "bits_activations": 8} for pattern in ("conv1", "fc")}
ENDS = {pattern: {"bits_weights": None, "bits_activations": None} for pattern in ("conv1", "relu", "fc")}
FOUR = {"bits_parameters": 4, "bits_activations": 4, "per_channel_wts": True, "clip_acts": "AVG", "overrides": EIGHT}
LSQ, AS_PUBLISHED = "LSQQuantizer", {"num_bits_inputs": 8, "quantize_residuals": False}
ROWS = (
    Row("8 bits, one range a tensor", AFTER, {}),
    Row("8 bits, a range a channel", AFTER, {"per_channel_wts": True}),
    Row("weights 4 bits, a range a channel", AFTER, {"bits_parameters": 4, "per_channel_wts": True}),
    Row("weights 4 bits, AdaRound", AFTER, {"bits_parameters": 4, "per_channel_wts": True}, steps=Steps(rounding=300)),
    Row("all 4 bits", AFTER, FOUR),
    Row("all 4 bits, LAPQ", AFTER, FOUR, search=Options("LP", max_iterations=1, max_evaluations=300)),
    Row("floats, trained on", "", {}, True),
    Row("trained: 8 bits", AWARE, {"bits_weights": 8, "bits_activations": 8, "per_channel_wts": True}, True),
    Row("trained: 4 bits", AWARE, {"bits_weights": 4, "bits_activations": 4, "per_channel_wts": True}, True),
    Row("trained: DoReFa, weights 3 bits", "DorefaQuantizer", {"bits_weights": 3, "bits_activations": 8}, True),
    Row("trained: LSQ, 4 bits", LSQ, {**AS_PUBLISHED, "bits_weights": 4, "bits_activations": 4}, True),
    Row("trained: LSQ, weights 2 bits", LSQ, {**AS_PUBLISHED, "bits_weights": 2, "bits_activations": 4}, True),
    Row("trained: PACT, 4 bits", "PACTQuantizer", {"bits_weights": 4, "bits_activations": 4}, True),
)


def schedule_of(row: Row, epochs: int) -> ScheduleSpec:
    cosine = {"class": "CosineAnnealingLR", "T_max": epochs}
    span = {"starting_epoch": 0, "ending_epoch": epochs, "frequency": 1}
    said: dict[str, Any] = {
        "lr_schedulers": {"decay": cosine},
        "policies": [{"lr_scheduler": {"instance_name": "decay"}, **span}],
    }
    if row.quantizer:
        few = row.quantizer != AWARE
        arguments = {**row.arguments, **({"overrides": ENDS} if few else {})}  # as Distiller's schedules leave them
        said["quantizers"] = {"q": {"class": row.quantizer, **arguments}}
        said["policies"].append({"quantizer": {"instance_name": "q"}, **span})
    return parse_schedule(said, row.name)


def arch_and_task(checkpoint: Path, data_dir: str) -> tuple[str, Task]:
    """Of a checkpoint, with CIFAR-10's images as it wants them."""
    content = read_any(checkpoint)
    task = Classification(load(DatasetConfig("cifar10", data_dir)))
    return content["run"]["arch"], task.wanted_by(Weights.of_checkpoint(content, str(checkpoint), None))


@torch.no_grad()
def on_test(model: nn.Module, task: Task) -> float:
    loading = Loading(torch.device("cpu"), 500)
    return float(task.evaluate(model, task.feed(TEST, loading), loading)["top1"])


def after(row: Row, checkpoint: Path, task: Task, seed: int) -> float:
    network = read_network(checkpoint, None)
    quantizer = PostTrainLinearQuantizer("q", **row.arguments)
    loading = Loading(torch.device("cpu"), _BATCH, seed, _CALIBRATION / 45_000)
    quantize(network, task, loading, quantizer, search=row.search, steps=row.steps)
    return on_test(network.model, task)


def trained(row: Row, checkpoint: Path, task: Task, seed: int, given: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            given.arch, DatasetConfig("cifar10", given.data_dir), epochs=given.epochs, batch_size=_BATCH, lr=given.lr,
            effective_train_size=given.part, effective_valid_size=0.1, seed=seed, out_dir=folder, tensorboard=False,
            device="cpu", init_from=str(checkpoint), schedule=schedule_of(row, given.epochs),
        )  # fmt: skip
        *_, last = fit(config, task=task)
        return on_test(load_model(str(last.checkpoint)).eval(), task)


def pruned(seed: int, given: argparse.Namespace, folder: Path) -> Path:
    """A simplenet_cifar of this seed, pruned gradually to 85 % by one threshold, with the training of its sweeps."""
    epochs, cosine = given.first_epochs, {"class": "CosineAnnealingLR", "T_max": given.first_epochs}
    agp = {"class": "RankedPruner", "initial_sparsity": 0.05, "final_sparsity": _SPARSITY, "scope": "global"}
    weights = [f"{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")]
    span = {"starting_epoch": 0, "frequency": 1}
    said = {
        "pruners": {"agp": {**agp, "weights": weights}},
        "lr_schedulers": {"decay": cosine},
        "policies": [
            {"pruner": {"instance_name": "agp"}, **span, "ending_epoch": 3 * epochs // 4},
            {"lr_scheduler": {"instance_name": "decay"}, **span, "ending_epoch": epochs},
        ],
    }
    config = RunConfig(
        "simplenet_cifar", DatasetConfig("cifar10", given.data_dir), epochs=epochs, batch_size=256, lr=0.05,
        weight_decay=1e-4, seed=seed, out_dir=str(folder / str(seed)), tensorboard=False, device="cpu",
        schedule=parse_schedule(said, "pruned first"),
    )  # fmt: skip
    *_, last = fit(config)
    return Path(last.checkpoint)


def told(name: str, found: Sequence[float], floats: float | None = None) -> None:
    middle = statistics.mean(found)
    beside = "" if floats is None else f"  {middle - floats:+.2f}"
    print(f"{name:36} {middle:6.2f}  from {min(found):.2f} to {max(found):.2f}{beside}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="left out: a simplenet_cifar pruned to 85 % first")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-epochs", type=int, default=60, help="of what is pruned first")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--part", type=float, default=0.25, help="of the training split that an epoch takes")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--rows", nargs="*", default=[], help="those whose names have one of these in them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(given.seeds)
        checkpoints = [given.checkpoint or pruned(seed, given, Path(folder)) for seed in seeds]
        given.arch, task = arch_and_task(checkpoints[0], given.data_dir)
        one_each = checkpoints[:1] if given.checkpoint else checkpoints
        floats = [100 * on_test(read_network(path, None).model.eval(), task) for path in one_each]
        print(f"{given.arch}, {checkpoints[0].name}: top1 on the test split, {given.seeds} seeds")
        told("floats", floats)
        for row in (row for row in ROWS if not given.rows or any(part in row.name for part in given.rows)):
            found = [
                trained(row, path, task, seed, given) if row.trained else after(row, path, task, seed)
                for seed, path in zip(seeds, checkpoints, strict=True)
            ]
            told(row.name, [100 * top1 for top1 in found], statistics.mean(floats))


if __name__ == "__main__":
    main()
