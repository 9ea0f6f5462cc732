"""Does a change of the house cost training speed? Two commits train the same, in turn.

Each round is one command of raydistill a state of the code, on scikit-learn's digits: an epoch's samples a second, the
best of its epochs but the first. Rounds alternate, so that a machine that slows down slows both.

    python benchmarks/before_after.py --against COMMIT [--rounds 5]

Prints the best rate of each, the ratio of the two, and the median of the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from same_results import AGP, FILTERS, ROOT, RUN

CASES = {
    "simplenet, AGP and splicing": ("simplenet_cifar", AGP, 8),
    "resnet20, filters": ("resnet20_cifar", {**FILTERS, "policies": FILTERS["policies"][:1], "extensions": {}}, 3),
    "simplenet, dense": ("simplenet_cifar", None, 8),
}


def rate(code: Path, folder: Path, arch: str, schedule: dict | None, epochs: int) -> float:
    """Samples a second of the fastest epoch but the first."""
    folder.mkdir(parents=True)
    command = [
        *RUN, "compress", "--arch", arch, "--epochs", str(epochs), "--lr", "0.03", "--no-mlflow", "--name", "x",
        "--dataset", "digits", "--batch-size", "128", "--deterministic", "--precision", "fp32",
    ]  # fmt: skip
    if schedule is not None:
        (folder / "s.yaml").write_text(yaml.safe_dump(schedule, sort_keys=False))
        command += ["--compress", "s.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(code), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-2000:])
    history = torch.load(folder / "runs/x/checkpoint.pt", weights_only=True)["history"]
    name = "samples_per_second" if "samples_per_second" in history[0] else "images_per_second"
    return max(epoch[name] for epoch in history[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary) / "before"
        before.mkdir()
        archive = subprocess.run(["git", "archive", asked.against], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", str(before)], input=archive.stdout, check=True)
        titles = (f"{asked.against[:10]} /s", "now /s", "ratio", "of pairs")
        print(f"{'':<30}" + "".join(f"{title:>14}" for title in titles))
        for place, (name, case) in enumerate(CASES.items()):
            rates: dict[Path, list[float]] = {before: [], ROOT: []}
            for number in range(asked.rounds):
                order = list(rates) if number % 2 == 0 else list(rates)[::-1]
                for code in order:
                    folder = Path(temporary) / f"{place}-{number}-{code.name}"
                    rates[code].append(rate(code, folder, *case))
            old, new = rates.values()
            pairs = statistics.median(b / a for a, b in zip(old, new, strict=True))
            cells = (f"{max(old):.0f}", f"{max(new):.0f}", f"{max(new) / max(old):.3f}", f"{pairs:.3f}")
            print(f"{name:<30}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
