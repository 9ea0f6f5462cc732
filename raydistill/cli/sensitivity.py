"""``raydistill sensitivity``: how much each weight of a trained network by itself bears."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from raydistill.cli.options import arguments

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from raydistill.analysis.sensitivity import Sensitivity
    from raydistill.compression.sensitivity import Point
    from raydistill.errors import ConfigError
    from raydistill.metrics import Metric
    from raydistill.tasks import TaskConfig

_NAME_WIDTH = 34


class Sense(str, Enum):
    ELEMENT = "element"
    FILTER = "filter"
    CHANNEL = "channel"


class Split(str, Enum):
    VALIDATION = "validation"
    TEST = "test"
    TRAIN = "train"


def sensitivity(
    checkpoint: Annotated[Path, typer.Option(help="The trained network, a checkpoint.pt.", show_default=False)],
    arch: Annotated[str | None, typer.Option("--arch", "-a", help="Its architecture; the checkpoint knows it.")] = None,
    task_name: Annotated[
        str, typer.Option("--task", help="What it is for (raydistill tasks), or pkg.mod:Class.")
    ] = "classification",
    task_args: Annotated[str | None, typer.Option(help="Its arguments, as 'bptt: 35'.", metavar="YAML")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="cifar10, imagefolder, digits or pkg.mod:factory; left out, what it saw.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="CIFAR-10's folder, a tree of class folders, or what else the task reads.")
    ] = None,
    sense: Annotated[Sense, typer.Option(help="What is pruned: single weights, filters or channels.")] = Sense.ELEMENT,
    sense_range: Annotated[
        tuple[float, float, float],
        typer.Option(help="START STOP STEP of the sparsity levels; STOP itself is not one.", metavar="START STOP STEP"),
    ] = (0.0, 0.95, 0.05),
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="Only weights that match, such as 'layer1.*'; repeatable.")
    ] = None,
    split: Annotated[Split, typer.Option(help="The part of the data it is evaluated on.")] = Split.VALIDATION,
    images: Annotated[
        int | None, typer.Option(min=1, help="Evaluate on so many of them, always the same ones; left out, all.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Samples a batch.")] = 256,
    out_dir: Annotated[Path, typer.Option("--out-dir", "-o", help="Where CSV and plot go.")] = Path("sensitivity"),
    write_space: Annotated[
        Path | None,
        typer.Option(help="Write a sweep file too: bounds and start points from the curves.", metavar="FILE"),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="With --write-space: top1 that pruning one weight may cost, 0.1 is ten points.")
    ] = 0.1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --write-space.")] = False,
) -> None:
    """Prune each weight alone, level by level, and draw what accuracy is left.

    All other weights stay dense, nothing is retrained. Ctrl-C keeps what was measured; the same command goes on. With
    --write-space the curves become a search space: how far each weight can go by itself sets its bounds.
    """
    from rich.console import Console

    from raydistill.analysis.network import read_network
    from raydistill.analysis.sensitivity import KeptPoints, Sensitivity, check_starts_a_sweep
    from raydistill.compression.sensitivity import levels, sensitivity_png
    from raydistill.errors import ConfigError
    from raydistill.tasks import TaskConfig
    from raydistill.training import device_of

    console = Console(highlight=False)
    from raydistill.cli.lines import warn
    from raydistill.cli.tables import heading

    try:
        steps = levels(*sense_range)
    except ConfigError as error:
        raise _renamed(error, "--sense-range") from error
    if write_space is not None:
        _check_space(write_space, sense, split, steps, max_drop, overwrite)
    network = read_network(checkpoint, arch)
    task = TaskConfig(task_name, {} if task_args is None else arguments(task_args, "--task-args"))
    subject = Sensitivity(network, device_of("auto"), split.value, dataset, data_dir, images, batch_size, task)
    if subject.task.warning:
        warn(console, subject.task.warning)
    if subject.task.note:
        console.print(subject.task.note, soft_wrap=True, markup=False)
    if write_space is not None:
        check_starts_a_sweep(network)
    names = _matching(subject.model, sense.value, weights)
    store = KeptPoints(out_dir, {**subject.identity, "sense": sense.value})
    console.print(
        f"{heading(*subject.metric)} on the {split.value} split of {subject.task.name} ({subject.samples:,} samples), "
        f"one weight pruned by {sense.value} at a time to:",
        soft_wrap=True,
    )
    table = _Lines(console, names, steps, *subject.metric)
    interrupted = False
    try:
        with _signals():
            for point in subject.measure(steps, sense.value, names, store):
                table.add(point)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        store.write()
    shown = [point for point in store.points if point.weight in names]
    plot = store.csv.with_suffix(".png")
    if shown:
        title = f"{network.arch} on {subject.task.name} ({split.value}): sensitivity by {sense.value}"
        sensitivity_png(shown, plot, *subject.metric, title)
        console.print(f"{store.csv}\n{plot}", soft_wrap=True, markup=False)
    if interrupted:
        done, whole = store.among(names, steps), len(names) * len(steps)
        console.print(f"interrupted: {done} of {whole} points are measured; the same command goes on", soft_wrap=True)
        raise typer.Exit(130)
    if write_space is not None:
        _write_space(write_space, subject, task, [p for p in shown if p.level in steps], max_drop, console)


def _check_space(
    file: Path, sense: Sense, split: Split, steps: Sequence[float], max_drop: float, overwrite: bool
) -> None:
    """What stands against ``--write-space``, before minutes are spent on measuring."""
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.sweep.file.space_file import may_write

    may_write(file, overwrite)
    if sense is not Sense.ELEMENT:
        rule = "--write-space searches single weights"
        raise ConfigError(Fault("--sense", rule, sense.value, "leave --sense out"))
    if split is Split.TEST:
        raise ConfigError(Fault("--split", "the test split selects nothing, not even bounds", ABSENT, "use validation"))
    if steps[0] != 0.0 or len(steps) < 2:
        rule = "--write-space compares with the dense network, so the levels must begin at 0 and go on"
        raise ConfigError(Fault("--sense-range", rule, ABSENT, "as in 0 0.95 0.05"))
    if not 0.0 < max_drop < 1.0:
        raise ConfigError(Fault("--max-drop", "must be above 0 and below 1", max_drop, "as in 0.1, ten points of top1"))


def _write_space(
    file: Path, subject: Sensitivity, task: TaskConfig, points: Sequence[Point], max_drop: float, console: Console
) -> None:
    import shlex
    import sys

    from raydistill.compression.tolerance import tolerances
    from raydistill.files import write_atomically
    from raydistill.sweep.file.space_file import Measured, space_text

    network = subject.network
    run = network.content["run"]
    measured = Measured(
        arch=network.arch,
        checkpoint=network.path,
        epochs=len(network.content["history"]),
        max_drop=max_drop,
        samples=subject.samples,
        metrics=subject.task.metrics,
        dense=points[0].metrics[subject.metric[0]],
        command=shlex.join(["raydistill", *sys.argv[1:]]),
        model_args=run.get("model_args") or {},
        dataset={**vars(subject.dataset), "augment": run.get("augment", "auto")},
        training=run,
        task=task,
    )
    found = tolerances(points, *subject.metric, max_drop, subject.samples)
    write_atomically(file, space_text(file, measured, found))
    dense = [tolerance.weight for tolerance in found if tolerance.dense]
    if dense:
        console.print(f"left dense, for they drop at once: {', '.join(dense)}", soft_wrap=True, markup=False)
    console.print(f"{file}    raydistill sweep {shlex.quote(str(file))}", soft_wrap=True, markup=False)


class _Lines:
    """One line a weight, printed when its last level is measured: the metric at as many levels as fit."""

    def __init__(
        self, console: Console, names: Sequence[str], levels: Sequence[float], name: str, metric: Metric
    ) -> None:
        self._console, self._name, self._metric = console, name, metric
        self._width = min(_NAME_WIDTH, max(map(len, names)))
        room = max(1, (console.width - self._width) // 7)
        count = min(room, len(levels))
        places = {round(i * (len(levels) - 1) / max(1, count - 1)) for i in range(count)}
        self._levels = [level for place, level in enumerate(levels) if place in places]
        self._last = levels[-1]
        self._values: dict[float, float] = {}
        self._line(" " * self._width, [f"{100 * level:.0f} %" for level in self._levels])

    def add(self, point: Point) -> None:
        from raydistill.cli.tables import cell

        self._values[point.level] = point.metrics[self._name]
        if point.level == self._last:
            name = point.weight
            if len(name) > self._width:
                name = "…" + name[1 - self._width :]
            self._line(name.ljust(self._width), [cell(self._metric, self._values[level]) for level in self._levels])
            self._values = {}

    def _line(self, name: str, cells: Sequence[str]) -> None:
        self._console.print(name + "".join(f"{cell:>7}" for cell in cells), markup=False, soft_wrap=True)


def _matching(model: nn.Module, sense: str, patterns: Sequence[str] | None) -> tuple[str, ...]:
    from fnmatch import fnmatchcase

    from raydistill.compression.sensitivity import prunable
    from raydistill.errors import ConfigError, Fault, close_match

    names = prunable(model, sense)
    for pattern in patterns or ():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(Fault("--weights", "no weight matches", pattern, close_match(pattern, names)))
    return tuple(name for name in names if not patterns or any(fnmatchcase(name, p) for p in patterns))


def _renamed(error: ConfigError, where: str) -> ConfigError:
    from raydistill.errors import ConfigError, Fault

    return ConfigError(*(Fault(where, f.rule, f.value, f.way_out) for f in error.faults if isinstance(f, Fault)))


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
