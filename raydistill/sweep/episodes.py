"""The episodes of AMC before the first trial: an agent here, whose allocations a process with the network judges.

Each episode is in the journal. A resumed sweep plays them again with the answers that it has, so that the agent comes
to where it was, and goes on.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from raydistill.compression.summaries import compute_table
from raydistill.files import write_atomically
from raydistill.metrics import LATENCY, selecting
from raydistill.records import BASELINE
from raydistill.schedule import ScheduleSpec
from raydistill.search.amc import Episode, Layer, Levels, Meaning, run_episodes
from raydistill.search.searchers import AMCSearcher
from raydistill.storage import Store
from raydistill.sweep.baseline import dense_network
from raydistill.sweep.bounds import SPARSITY
from raydistill.sweep.curves import figure_of, part_of_validation
from raydistill.sweep.evidence import pruned
from raydistill.sweep.planning.resources import baseline_share
from raydistill.sweep.session import Session
from raydistill.tasks import Task
from raydistill.training.loop import device_of

_SAID_EVERY_S = 30.0
CURVE = "episodes"
"""Name of the files with the reward of each episode, in the sweep's folder."""


class Interrupted(Exception):
    """A signal came between two episodes."""


def ensure_episodes(session: Session) -> bool:
    """Tell a searcher that wants them its episodes, played now or before an interruption; False where a signal came.
    The layers' sizes are there.

    Raises:
        RaydistillError: they cannot be played or kept.
    """
    searcher = session.plan.searcher
    if not isinstance(searcher, AMCSearcher):
        return True
    ledger, baseline = session.ledger, session.ledger.records[BASELINE]
    model = dense_network(session.store, str(baseline.checkpoint), session.sweep.sections.model.arch)
    layers = layers_of(model, session.task.example_input(), searcher)
    metric = session.sweep.metrics[selecting(session.sweep.metrics)]
    meaning = Meaning(searcher.aim.dense, _cost(session), metric.is_fraction and metric.maximise)
    target = searcher.aim.figure - searcher.aim.dense
    settings = replace(searcher.settings, target=target if math.isfinite(target) else None)
    kind = f"{settings.agent}, {settings.protocol}"
    session.observer.step(f"playing {settings.episodes} episodes over {len(layers)} layers without training ({kind})")
    known = {_key(levels): (metric, figure) for levels, metric, figure in ledger.episodes}
    sign = 1.0 if metric.maximise else -1.0
    asked = _Judge(session)

    def judge(levels: Levels) -> tuple[float, float]:
        if _key(levels) in known:
            return known[_key(levels)]
        if session.interrupt.requested:
            raise Interrupted
        values = searcher.values_of(levels)
        figure = searcher.aim.foreseen(values) if searcher.aim.foreseen is not None else math.nan
        reached = sign * asked(values)
        ledger.played(list(levels), reached, figure)
        known[_key(levels)] = (reached, figure)
        return reached, figure

    said = time.monotonic()

    def told(episode: Episode) -> None:
        nonlocal said
        played.append(episode)
        if time.monotonic() - said > _SAID_EVERY_S:
            said = time.monotonic()
            best = max(played, key=lambda each: each.reward)
            session.observer.step(f"  episode {len(played)}/{settings.episodes}, best reward {best.reward:.4f}")

    played: list[Episode] = []
    try:
        episodes = run_episodes(layers, settings, meaning, judge, told)
    except Interrupted:
        return False
    finally:
        asked.close()
    session.plan = replace(session.plan, searcher=searcher.with_episodes(episodes))
    write_curve(session.folder, episodes, settings.heatup_episodes, kind)
    return True


def layers_of(model: nn.Module, example: Sequence[object], searcher: AMCSearcher) -> list[Layer]:
    """A step for each level that is searched, in the network's order."""
    rows = {row.name: row for row in compute_table(model, tuple(example))}
    found = []
    for dimension in searcher.dimensions:
        weight = str(dimension.weight)
        module, shape = weight.rpartition(".")[0], tuple(model.get_parameter(weight).shape)
        row = rows.get(module)
        seen = row.input_shape if row is not None else ()
        height, width = (seen[-2], seen[-1]) if len(seen) == 4 else (1, 1)
        stride = getattr(model.get_submodule(module), "stride", 0)
        kernel = shape[2] if len(shape) > 2 else 1
        ends = [float(dimension.distribution.from_unit(unit)) for unit in (0.0, 1.0)]
        across = float(stride[0]) if isinstance(stride, tuple) else float(stride)
        macs = float(row.macs) if row is not None else 0.0
        features = (shape[0], shape[1], height, width, across, kernel, macs, math.prod(shape))
        found.append(Layer(features, max(searcher.sizes.get(weight, 0.0), 0.0), *ends))
    return found


def _cost(session: Session) -> Callable[[float], float]:
    """The figure that is optimised, the larger the better, as a cost: the weights that are left, MACs, bytes."""
    figure = figure_of(session.sweep.objectives)
    if figure == SPARSITY:
        weights = float(sum(math.prod(shape) for _, shape in session.plan.weights))
        return lambda zeros: weights * (1.0 - zeros)
    scale = 1e6 if figure == LATENCY else 1.0  # nanoseconds: the reward takes its logarithm
    return lambda less: -less * scale


class _Judge:
    """A trial's values to the metric of its network, pruned at once, in a process that keeps the dense one. The process
    is started when it is asked first; `close` gives back what it takes, which trials may be waiting for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._process: Any = None

    def __call__(self, values: Mapping[str, Any]) -> float:
        session = self._session
        if self._process is None:
            alone = baseline_share(session.share, session.nodes)
            checkpoint = str(session.ledger.records[BASELINE].checkpoint)
            made = ray.remote(num_cpus=alone.cpu, num_gpus=alone.gpu)(_Network)
            where = (checkpoint, session.store, session.shared, alone.device, alone.threads)
            self._process = made.remote(*where, session.sweep.sections.model.arch)
        schedule = session.plan.draw(0, values).run.schedule
        found: float = ray.get(self._process.metric.remote(schedule))
        return found

    def close(self) -> None:
        if self._process is not None:
            ray.kill(self._process)
            self._process = None


class _Network:
    """The dense network and a part of the validation split."""

    def __init__(
        self, checkpoint: str, store: Store, shared: list[Any], device: str, threads: int | None, arch: str
    ) -> None:
        torch.set_num_threads(threads or torch.get_num_threads())
        self.device = device_of(device)
        self.model = dense_network(store, checkpoint, arch).to(self.device).eval()
        self.task: Task = ray.get(shared[0])
        self.feed, self.loading = part_of_validation(self.task, self.device)

    def metric(self, schedule: ScheduleSpec | None) -> float:
        network = self.model if schedule is None else pruned(schedule, self.model, self.task, self.device)
        metrics = self.task.evaluate(network, self.feed, self.loading)
        return float(metrics[selecting(self.task.metrics)])


def _key(levels: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(level, 9) for level in levels)


def write_curve(folder: Path, episodes: Sequence[Episode], heatup: int, kind: str) -> None:
    """The reward of each episode, and the best so far, as a table and as a picture.

    Raises:
        StorageError: they cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["episode", "reward", "metric", "figure", *(f"level_{i}" for i in range(len(episodes[0].levels)))])
    for number, episode in enumerate(episodes):
        rows.writerow([number, episode.reward, episode.metric, episode.figure, *episode.levels])
    write_atomically(folder / f"{CURVE}.csv", text.getvalue())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    rewards = [episode.reward for episode in episodes]
    best = [max(rewards[: number + 1]) for number in range(len(rewards))]
    axes.plot(rewards, ".", color="tab:gray", markersize=4, label="episode")
    axes.plot(best, color="tab:blue", label="best so far")
    axes.axvline(heatup - 0.5, color="tab:orange", linewidth=1, label="the agent begins to learn")
    axes.set_xlabel("episode")
    axes.set_ylabel("reward")
    axes.set_title(kind, fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(folder / f"{CURVE}.png", picture.getvalue())
