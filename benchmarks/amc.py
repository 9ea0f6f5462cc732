"""AMC's agent against allocations without one, with as many evaluations each: nothing is trained.

    raydistill compress --arch plain20_cifar --data-dir CIFAR10 --epochs 4 --lr 0.1 -o dense
    python benchmarks/amc.py dense/checkpoint.pt --data-dir CIFAR10 [--density 0.5] [--episodes 200] [--seeds 3]

Structures of the network are pruned at once until at most `density` of its MACs are left, batch norms recalibrated,
and judged by a part of the validation split. Printed for each seed and method: how many of its evaluations kept the
bound, the best top1 on that part, of all evaluations and of the last quarter in the mean, and top1 of its best
network on the test split, which chose nothing. `uniform` is one level for all, found by bisection. Written: the
reward of every episode, as a picture.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from raydistill.records import Scalar
from raydistill.schedule import ScheduleSpec, naming_weights
from raydistill.search.amc import AGENTS, Episode, Levels, Meaning, Settings, run_episodes
from raydistill.search.constraints import Constraint
from raydistill.search.decisions import by_objectives, planned_name
from raydistill.search.observations import Observation
from raydistill.search.searchers import Aim, AMCSearcher, EvolutionSearcher
from raydistill.sweep.curves import by_itself, damage_of
from raydistill.sweep.episodes import layers_of, write_curve
from raydistill.sweep.evidence import pruned
from raydistill.sweep.file.load import Sweep, load_sweep
from raydistill.sweep.planning.foresight import foreseen
from raydistill.sweep.planning.plan import Plan, plan_sweep
from raydistill.sweep.planning.task import sweep_task
from raydistill.tasks import TEST, VALIDATION, Loading
from raydistill.training import load_model, read_checkpoint

Values = Mapping[str, Scalar]
Found = list[tuple[Values, float, float]]
"""Of each evaluation the allocation, the metric, the MACs."""


class Judge:
    """The metric and the MACs of an allocation, each asked once."""

    def __init__(self, sweep: Sweep, checkpoint: Path, density: float, samples: int) -> None:
        """samples: of the validation split, which judge."""
        self.sweep = sweep
        self.task = sweep_task(self.sweep)
        self.plan: Plan = plan_sweep(self.sweep, self.task)
        self.model, self.example = load_model(checkpoint).eval(), self.task.example_input()
        cpu = torch.device("cpu")
        whole = self.task.feed(VALIDATION, Loading(cpu, 512)).samples
        self.loading = Loading(cpu, 512, fraction=min(1.0, samples / whole))
        self.feed = self.task.feed(VALIDATION, self.loading)
        self.dense = self._macs(None)
        self.bound = density * self.dense
        self.known: dict[tuple[Scalar, ...], tuple[float, float]] = {}

    def _macs(self, values: Values | None) -> float:
        schedule = self.plan.draw(0, values).run.schedule if values is not None else _nothing(self)
        return foreseen(schedule, self.model, self.example)[planned_name("macs")]

    def macs(self, values: Values) -> float:
        return self._macs(values)

    def __call__(self, values: Values) -> tuple[float, float]:
        key = tuple(round(float(value), 9) for value in values.values())
        if key not in self.known:
            network = self._pruned(values)
            self.known[key] = self.task.evaluate(network, self.feed, self.loading)["top1"], self._macs(values)
        return self.known[key]

    def test(self, values: Values) -> float:
        loading = Loading(torch.device("cpu"), 512)
        return self.task.evaluate(self._pruned(values), self.task.feed(TEST, loading), loading)["top1"]

    def _pruned(self, values: Values) -> nn.Module:
        schedule = self.plan.draw(0, values).run.schedule
        assert schedule is not None
        return pruned(schedule, self.model, self.task, torch.device("cpu"))


def sweep_of(checkpoint: Path, data_dir: Path | None, density: float) -> Sweep:
    arch = str(read_checkpoint(checkpoint)["run"]["arch"])
    data = "{name: digits}" if data_dir is None else f"{{name: cifar10, data_dir: {data_dir}}}"
    text = (
        f"version: 1\nname: amc\nmodel: {{arch: {arch}}}\ndataset: {data}\ngoal: macs <= {density}x\n"
        f"training: {{epochs: 4}}\nbaseline: {{checkpoint: {checkpoint.resolve()}}}\n"
    )
    return load_sweep("amc.yaml", text=text)


def _nothing(judge: Judge):  # type: ignore[no-untyped-def]
    levels = {dimension.path: 0.0 for dimension in judge.plan.space.dimensions}
    return judge.plan.draw(0, levels).run.schedule


def by_agent(agent: str, judge: Judge, sizes: Mapping[str, float], seed: int, episodes: int) -> Found:
    heatup = max(4, episodes // 4)
    searcher = AMCSearcher(judge.plan.space, seed, agent=agent).with_curves({}, sizes, Aim())
    target = judge.dense - judge.bound
    settings = Settings(
        agent=agent, heatup_episodes=heatup, training_episodes=episodes - heatup, seed=seed, target=target
    )
    meaning = Meaning(-judge.dense, lambda figure: -figure, True)
    layers = layers_of(judge.model, judge.example, searcher)

    def asked(levels: Levels) -> tuple[float, float]:
        metric, macs = judge(searcher.values_of(levels))
        return metric, -macs

    played: list[Episode] = run_episodes(layers, settings, meaning, asked, lambda episode: None)
    write_curve(Path(), played, heatup, f"{agent}, seed {seed}")
    for ending in ("png", "csv"):
        Path(f"episodes.{ending}").rename(f"amc_{agent}_{seed}.{ending}")
    return [(searcher.values_of(each.levels), each.metric, -each.figure) for each in played]


def by_evolution(judge: Judge, seed: int, episodes: int) -> Found:
    measure = by_objectives(judge.sweep.objectives, [Constraint("macs", "<=", judge.bound)])
    searcher = EvolutionSearcher(judge.plan.space, seed)
    seen: list[Observation] = []
    found = []
    for trial in range(episodes):
        values = searcher.suggest(trial, seen, [1])
        assert values is not None
        metric, macs = judge(values)
        figures = {"top1": metric, planned_name("macs"): macs, "planned_sparsity": 0.0}
        seen.append(Observation(trial, values, {1: measure(figures)}, True))
        found.append((values, metric, macs))
    return found


def uniform(judge: Judge) -> Found:
    low, high = 0.0, 0.9
    for _ in range(8):
        middle = (low + high) / 2
        values = dict.fromkeys((dimension.path for dimension in judge.plan.space.dimensions), middle)
        low, high = (low, middle) if judge.macs(values) <= judge.bound else (middle, high)
    values = dict.fromkeys((dimension.path for dimension in judge.plan.space.dimensions), high)
    return [(values, *judge(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10; left out, scikit-learn's digits")
    parser.add_argument("--density", type=float, default=0.5, help="of the MACs, what may stay")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1000, help="of the validation split, that judge")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sweep = sweep_of(options.checkpoint, options.data_dir, options.density)
    judge = Judge(sweep, options.checkpoint, options.density, options.samples)
    schedule = naming_weights(judge.sweep.schedule, _names(judge))
    names = [str(dimension.weight) for dimension in judge.plan.space.dimensions]

    def alone(weight: str, level: float) -> ScheduleSpec:
        return by_itself(schedule, weight, "final_sparsity", level)

    measured = damage_of(judge.model, judge.task, alone, names, "macs", "cpu", 30.0)
    sizes = {name: -size for name, size in measured.sizes.items()}
    methods: dict[str, Callable[[int], Found]] = {
        "uniform": lambda seed: uniform(judge),
        **{agent: lambda seed, agent=agent: by_agent(agent, judge, sizes, seed, options.episodes) for agent in AGENTS},  # type: ignore[misc]
        "evolution": lambda seed: by_evolution(judge, seed, options.episodes),
    }
    print(f"{'seed':>4} {'method':14} {'kept':>9} {'best':>7} {'late':>7} {'test':>7} {'MACs':>6} {'s':>6}")
    for seed in range(options.seeds):
        for name, method in methods.items():
            if name == "uniform" and seed:
                continue
            began = time.monotonic()
            found = method(seed)
            kept = [one for one in found if one[2] <= judge.bound * (1 + 1e-9)]
            best = max(kept, key=lambda one: one[1], default=None)
            late = [metric for _, metric, macs in found[-max(1, len(found) // 4) :] if macs <= judge.bound * (1 + 1e-9)]
            mean = sum(late) / len(late) if late else math.nan
            told = "-" if best is None else f"{100 * best[1]:7.2f} {100 * mean:7.2f} {100 * judge.test(best[0]):7.2f} "
            share = "" if best is None else f"{best[2] / judge.dense:6.3f}"
            print(
                f"{seed:>4} {name:14} {len(kept):>4}/{len(found):<4} {told}{share} {time.monotonic() - began:6.0f}",
                flush=True,
            )


def _names(judge: Judge):  # type: ignore[no-untyped-def]
    from raydistill.compression.names import names_of

    return names_of(judge.model)


if __name__ == "__main__":
    main()
