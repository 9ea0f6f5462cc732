"""Sparsity and bits searched together against either of them alone: three sweeps of as many epochs, for several seeds.

    python benchmarks/sparsity_and_bits.py [--data-dir CIFAR10] [--samples 16] [--epochs 60] [--seeds 3] [--work FOLDER]

The three are made of search_spaces/simplenet_bits.yaml: as it is; without quantizer and bits; without the trunk, whose
epochs are then those of more trials. Fronts are chosen on the validation split, by top1 and the bytes that a compressed
checkpoint takes, and told on the test split too. *covered*: how many members of the other front a member of this one is
at least as good as in both. *volume*: the hypervolume, bytes on a logarithmic scale, from the dense network's bytes and
its top1 less five points. Sweeps are kept in the work folder; what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raydistill.records import BASELINE
from raydistill.search.pareto import hypervolume
from raydistill.sweep.from_python import run_sweep

SPACE = Path(__file__).resolve().parent.parent / "search_spaces" / "simplenet_bits.yaml"
BYTES, TOP1 = "compressed_size_bytes", "top1"
DIRECTIONS = ("max", "min")
_ALLOWED = 0.05
Point = tuple[float, float]


def spaces() -> dict[str, dict[str, Any]]:
    """The file as it is; without quantizer and bits; without the trunk, which prunes."""
    both = yaml.safe_load(SPACE.read_text())
    sparsity, bits = copy.deepcopy(both), copy.deepcopy(both)
    sparsity["schedule"].pop("quantizers")
    sparsity["schedule"]["policies"] = [one for one in sparsity["schedule"]["policies"] if "quantizer" not in one]
    sparsity["search"].pop("per_layer")
    bits.pop("trunk")
    bits["search"].pop("trunk.sparsity")
    return {"both": both, "sparsity": sparsity, "bits": bits}


@dataclass(frozen=True)
class Front:
    """(top1, bytes) of its trials on either split, in one order, and of the dense network on the test split."""

    chosen: list[Point]
    tested: list[Point]
    dense: Point


def front_of(name: str, space: Mapping[str, Any], seed: int, given: argparse.Namespace) -> Front:
    given.work.mkdir(parents=True, exist_ok=True)
    title = f"{name}-{given.samples}x{given.epochs}-{seed}"
    file, trunk = given.work / f"{title}.yaml", int(space.get("trunk", {}).get("epochs", 0))
    file.write_text(yaml.safe_dump({**space, "name": title}))
    given_data = {} if given.data_dir is None else {"data_dir": given.data_dir}
    outcome = run_sweep(
        file, given.work / "sweeps", resume=(given.work / "sweeps" / title / "journal.jsonl").exists(), seed=seed,
        num_samples=given.samples - trunk // given.epochs, epochs=given.epochs, cpu=True, **given_data,
    )  # fmt: skip
    chosen: list[Point] = []
    tested: dict[str, Point] = {}
    for row in (row for row in outcome.rows if row.record.test is not None):
        size = float(row.values[BYTES])
        tested[row.record.trial_id] = float(row.record.test.metrics[TOP1]), size
        if row.record.trial_id != BASELINE:
            chosen.append((float(row.values[TOP1]), size))
    dense = tested.pop(BASELINE)
    return Front(chosen, list(tested.values()), dense)


def covered(by: Sequence[Point], others: Sequence[Point]) -> int:
    return sum(any(top1 >= t and size <= s for top1, size in by) for t, s in others)


def volume(front: Sequence[Point], dense: Point) -> float:
    points = [(top1, np.log2(size)) for top1, size in front]
    return hypervolume(points, DIRECTIONS, (dense[0] - _ALLOWED, np.log2(dense[1]))) if points else 0.0


def smallest(front: Sequence[Point], dense: Point, points: float) -> str:
    """The fewest bytes that lose no more than so many points."""
    good = [size for top1, size in front if top1 >= dense[0] - points / 100]
    return f"{min(good) / dense[1]:8.3f}" if good else f"{'-':>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="CIFAR-10; without it scikit-learn's digits")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "sparsity_and_bits")
    given = parser.parse_args()
    ratios: dict[str, list[float]] = {"sparsity": [], "bits": []}
    shares = {name: [0, 0, 0] for name in ratios}
    for seed in range(given.seeds):
        found = {name: front_of(name, space, seed, given) for name, space in spaces().items()}
        both, dense = found["both"], found["both"].dense
        print(f"seed {seed}: dense test top1 {100 * dense[0]:.2f} %, {dense[1]:,.0f} bytes")
        print("                   bytes of dense                         covered by both")
        print("  searched   front  within 1 point  within 3   volume  by test  by validation")
        for name, front in found.items():
            line = f"  {name:9} {len(front.tested):>6}  {smallest(front.tested, dense, 1):>14}"
            line += f"  {smallest(front.tested, dense, 3)}  {volume(front.tested, dense):7.3f}"
            if name in ratios:
                counts = covered(both.tested, front.tested), covered(both.chosen, front.chosen), len(front.tested)
                shares[name] = [before + count for before, count in zip(shares[name], counts, strict=True)]
                ratios[name].append(volume(both.tested, dense) / max(volume(front.tested, dense), 1e-9))
                line += f"  {counts[0]:>7}  {counts[1]:>13} of {counts[2]}"
            print(line, flush=True)
    for name, found_ratios in ratios.items():
        by_test, by_validation, members = shares[name]
        print(
            f"both against {name}: {statistics.mean(found_ratios):.2f} times the volume "
            f"({min(found_ratios):.2f} to {max(found_ratios):.2f}); of {members} members {by_test} are covered "
            f"by test, {by_validation} by validation"
        )


if __name__ == "__main__":
    main()
