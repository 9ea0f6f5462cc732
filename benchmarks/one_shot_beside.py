"""llm-compressor's SparseGPT and Wanda beside raydistill's on the same networks.

    python benchmarks/one_shot_beside.py --data-dir TEXT --keep FOLDER

Its own functions (`sgpt_sparsify.sparsify_weight`, `wanda_sparsify.sparsify_weight`, with its modifiers' defaults)
decide each layer; what the layers read of the calibration data is raydistill's for both, layer by layer. Networks and
data are those of `benchmarks/one_shot.py`, whose FOLDER can be given again. The package is not a dependency: install it
beside, `pip install --no-deps llmcompressor compressed-tensors loguru`.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify
from one_shot import LEVELS, Bench, Cell
from torch import Tensor, nn

from raydistill.compression.pruners import SparseGPTPruner, WandaPruner
from raydistill.compression.pruners.one_shot import Settled
from raydistill.schedule import parse_schedule
from raydistill.training import RunConfig

HERE = {"SparseGPT": "SparseGPTPruner", "Wanda": "WandaPruner"}
BESIDE = {"SparseGPT": f"{Path(__file__).stem}:TheirSparseGPT", "Wanda": f"{Path(__file__).stem}:TheirWanda"}
THEIRS = "llm-compressor's "


def layer_of(rows: Tensor) -> nn.Linear:
    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    layer.weight.data = rows.detach().float().clone()
    return layer


class TheirSparseGPT(SparseGPTPruner):
    """Decided by llm-compressor: 128 columns together, damping 0.01."""

    def settle(self, rows: Tensor, sums: Tensor, count: int, before: Tensor | None) -> Settled:
        layer, (n, m) = layer_of(rows), self.pattern or (0, 0)
        products = {layer: sums[0].float().clone()}
        _, found = sgpt_sparsify.sparsify_weight(layer, products, count / rows.numel(), n, m, 128, 0.01, False)
        return Settled((found != 0).to(rows), found.to(rows))


class TheirWanda(WandaPruner):
    """Decided by llm-compressor."""

    def settle(self, rows: Tensor, sums: Tensor, count: int, before: Tensor | None) -> Settled:
        layer, (n, m) = layer_of(rows), self.pattern or (0, 0)
        found = wanda_sparsify.sparsify_weight(layer, {layer: sums[0].float().clone()}, count / rows.numel(), n, m)
        return Settled((found != 0).to(rows), found.to(rows))


class Beside(Bench):
    def config(self, cell: Cell, folder: Path) -> RunConfig:
        method = cell.method.removeprefix(THEIRS)
        found = super().config(replace(cell, method=method), folder)
        if method == cell.method:
            return found
        assert found.schedule is not None
        mapping = dict(found.schedule.mapping)
        mapping["pruners"] = {"p": {**mapping["pruners"]["p"], "class": BESIDE[method]}}  # type: ignore[index]
        return replace(found, schedule=parse_schedule(mapping, "schedule"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--keep", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, value in (("width", 96), ("depth", 4), ("context", 64), ("batch", 16), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--recovery", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Beside(options)
    print(f"{'at':5} {'':10} {'raydistill':>16} {'llm-compressor':>16}")
    for level in LEVELS:
        for method in HERE:
            told = []
            for who in ("", THEIRS):
                found = [bench.run(Cell(seed, f"{who}{method}", level))["test"] for seed in options.seeds]
                told.append(f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}")
            print(f"{level:5} {method:10} {told[0]:>16} {told[1]:>16}", flush=True)


if __name__ == "__main__":
    main()
