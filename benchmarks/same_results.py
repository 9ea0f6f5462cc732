"""Has a change of the house changed a result? Two commits train and search the same; their bits are compared.

Each case is a command of raydistill on scikit-learn's digits (no download), with a fixed seed and --deterministic:
gradual pruning of simplenet and of resnet20, filters pruned and thinned in mid-run, distillation, early exits, two
workers, and a sweep with its rungs, front and test figures. Of a training the digest is over every weight, buffer and
mask of its checkpoint; of a sweep over its journal (values, verdicts, figures; no times) and its pareto.csv.

    python benchmarks/same_results.py [--against COMMIT] [--case NAME ...]

Prints a line a case: the digests of the commit and of the working tree, and whether they are the same.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
TIMES = frozenset({"time_ms", "timestamp_ms", "started_ms", "ended_ms", "seconds", "sweep_id", "storage", "config"})
SPEEDS = frozenset({"images_per_second", "samples_per_second", "latency_ms"})
NAMED_ANEW = {"images": "samples", "figures": "footprint"}
"""Keys that a journal has under another name since."""

AGP = {
    "version": 1,
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8,
            "weights": ["conv1.weight", "fc1.weight", "fc2.weight"],
        },
        "splicing": {
            "class": "SplicingPruner", "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1, "sensitivity_multiplier": 0.3,
            "sensitivities": {"conv2.weight": 0.5},
        },
    },
    "lr_schedulers": {"plateau": {"class": "ReduceLROnPlateau", "patience": 0, "threshold": 0.05}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
        {"pruner": {"instance_name": "splicing"}, "starting_epoch": 1, "ending_epoch": 3, "frequency": 1},
        {"lr_scheduler": {"instance_name": "plateau"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}  # fmt: skip
FILTERS = {
    "version": 1,
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner_AGP", "group_type": "Filters", "initial_sparsity": 0.1,
            "final_sparsity": 0.5,
            "weights": [f"layer{stage}.{block}.conv1.weight" for stage in (1, 2, 3) for block in (0, 1, 2)],
        }
    },
    "extensions": {"thinner": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
    "policies": [
        {"pruner": {"instance_name": "filters"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
        {"extension": {"instance_name": "thinner"}, "epochs": [2]},
    ],
}  # fmt: skip
REGULARIZED = {
    "version": 1,
    "regularizers": {
        "groups": {
            "class": "GroupLassoRegularizer", "reg_regims": {"conv2.weight": [0.002, "3D"]}, "threshold_criteria": "Max"
        }
    },
    "pruners": {"low": {"class": "SensitivityPruner", "sensitivities": {"fc1.weight": 0.4}}},
    "policies": [
        {"regularizer": {"instance_name": "groups"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        {"pruner": {"instance_name": "low"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
    ],
}  # fmt: skip
SWEEP = {
    "version": 1,
    "model": {"arch": "simplenet_cifar"},
    "dataset": {"name": "digits"},
    "training": {"epochs": 4, "batch_size": 256, "lr": 0.02, "deterministic": True, "precision": "fp32"},
    "baseline": {"epochs": 3, "lr": 0.05},
    "schedule": {
        "version": 1,
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner", "initial_sparsity": 0.05, "final_sparsity": 0.5,
                "weights": ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight", "fc3.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
    },
    "search": {
        "policies.agp.frequency": {"choice": [1, 2]},
        "training.lr": {"loguniform": [0.01, 0.05]},
        "per_layer": [{"weights": ["conv*.weight", "fc*.weight"], "final_sparsity": {"uniform": [0.2, 0.95]}}],
    },
    "objectives": {"top1": "max", "sparsity": "max", "macs": "min"},
    "constraints": ["top1_drop <= 0.5"],
    "searcher": {"name": "evolution"},
    "num_samples": 8,
    "confirm": 1,
    "seed": 3,
    "resources_per_trial": {"cpu": 2},
}  # fmt: skip
SWEEPS = {
    "asha": {"trial_scheduler": {"name": "asha", "grace_period": 1}},
    "hyperband": {"trial_scheduler": {"name": "hyperband", "grace_period": 1, "mode": "promote"}},
    "moasha": {"trial_scheduler": {"name": "moasha", "grace_period": 1}},
    "median": {"trial_scheduler": {"name": "median", "grace_period": 1}},
}


_TOLD = "told.txt"


class House:
    """One state of the code, and a folder for what its commands write."""

    def __init__(self, code: Path, folder: Path) -> None:
        self.code, self.folder = code, folder
        folder.mkdir(parents=True)

    def run(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self.code), "CUDA_VISIBLE_DEVICES": ""}
        command = [*RUN, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")

    def compress(self, name: str, arch: str, schedule: dict[str, Any] | None, *more: str, epochs: int = 4) -> Path:
        """Train; returns the checkpoint."""
        if schedule is not None:
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(schedule, sort_keys=False))
            more = (*more, "--compress", f"{name}.yaml")
        fixed = ("--dataset", "digits", "--batch-size", "128", "--seed", "5", "--deterministic", "--precision", "fp32")
        self.run(
            "compress", "--arch", arch, "--epochs", str(epochs), "--lr", "0.03", "--no-mlflow", "--name", name, *fixed,
            *more,
        )  # fmt: skip
        return self.folder / "runs" / name / "checkpoint.pt"

    def sweep(self, name: str) -> Path:
        """Search; returns the sweep's folder."""
        document = {**SWEEP, **SWEEPS[name], "name": name}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        self.run("sweep", f"{name}.yaml", "--storage", "sweeps", "--cpu")
        return self.folder / "sweeps" / name


def of_checkpoint(path: Path) -> str:
    """Over names, shapes and bits of the weights, buffers and masks."""
    content = torch.load(path, weights_only=True)
    found = hashlib.blake2b(digest_size=8)
    for part in (content["model"], content["scheduler"]["masks"]):
        for name, tensor in sorted(_tensors("", part)):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _tensors(path: str, part: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(part, torch.Tensor):
        return [(path, part)]
    entries = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, (list, tuple)) else ()
    return [found for key, value in entries for found in _tensors(f"{path}/{key}", value)]


def of_sweep(folder: Path) -> str:
    """Over what was decided and found, trial by trial: whose epoch came first on two cores says nothing."""
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    told = sorted(json.dumps(_plain(event), sort_keys=True) for event in events)
    with (folder / "pareto.csv").open() as file:
        told += [json.dumps(sorted(_plain(row).items())) for row in csv.DictReader(file)]
    text = "\n".join(told).replace(str(folder.parent), "")
    (folder / _TOLD).write_text(text)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(part: Any) -> Any:
    """Without times and places, and with a bag of metrics spread out as it was in older journals."""
    if isinstance(part, dict):
        spread = {**part, **part["metrics"]} if isinstance(part.get("metrics"), dict) and "epochs" in part else part
        spread = {**part, **part["metrics"]} if isinstance(part.get("metrics"), dict) and "split" in part else spread
        exits = {key: value for key, value in spread.items() if key.startswith("exit")}
        return {
            NAMED_ANEW.get(key, key): _plain(value)
            for key, value in sorted(spread.items())
            if key not in TIMES | SPEEDS | set(exits) | {"metrics"} or (key == "metrics" and spread is part)
        }
    if isinstance(part, list):
        return [_plain(value) for value in part]
    return part


def _show(before: list[Path], now: list[Path]) -> None:
    """The first lines of two sweeps that differ."""
    for old, new in zip(before, now, strict=True):
        lines = zip(old.read_text().splitlines(), new.read_text().splitlines(), strict=False)
        for left, right in [pair for pair in lines if pair[0] != pair[1]][:1]:
            print(f"    - {left[:1500]}\n    + {right[:1500]}")


def cases() -> dict[str, Callable[[House], str]]:
    trained = {
        "simplenet, AGP and splicing": lambda house: house.compress("agp", "simplenet_cifar", AGP),
        "simplenet, group lasso": lambda house: house.compress("lasso", "simplenet_cifar", REGULARIZED, epochs=3),
        "resnet20, thinned in mid-run": lambda house: house.compress("filters", "resnet20_cifar", FILTERS, epochs=3),
        "simplenet, distilled": lambda house: house.compress(
            "student", "simplenet_cifar", AGP, "--kd-resume",
            str(house.compress("teacher", "resnet20_cifar", None, epochs=1)),
        ),
        "resnet20, early exits": lambda house: house.compress(
            "exits", "resnet20_cifar_earlyexit", None, "--earlyexit-lossweights", "0.4", "--earlyexit-thresholds",
            "1.2", epochs=2,
        ),
        "simplenet, two workers": lambda house: house.compress("two", "simplenet_cifar", AGP, "--num-workers", "2"),
    }  # fmt: skip
    found: dict[str, Callable[[House], str]] = {
        name: lambda house, train=train: of_checkpoint(train(house)) for name, train in trained.items()
    }
    return found | {f"sweep, {name}": lambda house, name=name: of_sweep(house.sweep(name)) for name in SWEEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", metavar="COMMIT")
    parser.add_argument("--case", nargs="*", help="words of the names of cases; left out, all")
    asked = parser.parse_args()
    chosen = {name: case for name, case in cases().items() if not asked.case or any(w in name for w in asked.case)}
    differing = 0
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary) / "before"
        before.mkdir()
        archive = subprocess.run(["git", "archive", asked.against], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", str(before)], input=archive.stdout, check=True)
        print(f"{'case':<30} {asked.against[:16]:<16} {'now':<16}")
        for number, (name, case) in enumerate(chosen.items()):
            digests = [
                case(House(code, Path(temporary) / f"{number}-{which}"))
                for which, code in (("before", before), ("now", ROOT))
            ]
            same = digests[0] == digests[1]
            differing += not same
            print(f"{name:<30} {digests[0]:<16} {digests[1]:<16} {'same' if same else 'DIFFERENT'}", flush=True)
            if not same:
                _show(*(sorted(Path(temporary, f"{number}-{which}").rglob(_TOLD)) for which in ("before", "now")))
    sys.exit(f"{differing} of {len(chosen)} cases differ" if differing else 0)


if __name__ == "__main__":
    main()
