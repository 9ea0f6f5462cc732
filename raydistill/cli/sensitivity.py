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
    from raydistill.compression.sensitivity import Measured as Measurement
    from raydistill.errors import ConfigError
    from raydistill.metrics import Metric
    from raydistill.parts import Pixels
    from raydistill.tasks import TaskConfig

_NAME_WIDTH = 34
_MEAN = "Mean of pixels in [0, 1], where plain weights want another than the data's."
_RANGE = (0.0, 0.95, 0.05)


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
    ] = _RANGE,
    bits: Annotated[
        str | None,
        typer.Option(help="Round each weight to so many bits instead of pruning it, as 8,6,4,2.", metavar="BITS"),
    ] = None,
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
    mean: Annotated[str | None, typer.Option(help=_MEAN, metavar="R,G,B", show_default=False)] = None,
    std: Annotated[
        str | None, typer.Option(help="Their standard deviation, beside --mean.", metavar="R,G,B", show_default=False)
    ] = None,
) -> None:
    """Prune each weight alone, level by level, and draw what accuracy is left; with --bits, round it instead.

    All other weights stay dense floats, nothing is retrained. Ctrl-C keeps what was measured; the same command goes on.
    With --write-space the curves become a search space: how far each weight can go by itself sets its bounds.
    """
    from dataclasses import replace

    from rich.console import Console

    from raydistill.analysis.network import read_network
    from raydistill.analysis.sensitivity import KeptPoints, Sensitivity, check_starts_a_sweep
    from raydistill.compression.bit_sensitivity import RoundedPoint
    from raydistill.compression.sensitivity import Point, levels, sensitivity_png
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
    counts = None
    if bits is not None:
        counts = _steps_of_bits(bits, sense, sense_range)
        steps = tuple(float(count) for count in counts)
    if write_space is not None:
        _check_space(write_space, sense, split, steps if counts is None else None, max_drop, overwrite)
    pixels = _pixels(mean, std)
    network = read_network(checkpoint, arch)
    task = TaskConfig(task_name, {} if task_args is None else arguments(task_args, "--task-args"))
    begun = replace(network.weights, pixels=pixels)
    subject = Sensitivity(network, device_of("auto"), split.value, dataset, data_dir, images, batch_size, task, begun)
    if subject.task.warning:
        warn(console, subject.task.warning)
    if subject.task.note:
        console.print(subject.task.note, soft_wrap=True, markup=False)
    if write_space is not None:
        check_starts_a_sweep(network)
    names = _matching(subject.model, sense.value if counts is None else None, weights)
    how = f"pruned by {sense.value}" if counts is None else "rounded"
    console.print(
        f"{heading(*subject.metric)} on the {split.value} split of {subject.task.name} ({subject.samples:,} samples), "
        f"one weight {how} at a time to:",
        soft_wrap=True,
    )
    table = _Lines(console, names, steps, [_label(level, counts is not None) for level in steps], *subject.metric)
    identity = {**subject.identity, "sense": sense.value if counts is None else "bits"}
    store: KeptPoints[Point] | KeptPoints[RoundedPoint]
    measuring: Iterator[Point] | Iterator[RoundedPoint]
    if counts is None:
        store = pruned = KeptPoints(out_dir, identity, Point)
        measuring = subject.measure(steps, sense.value, names, pruned)
    else:
        store = rounded = KeptPoints(out_dir, identity, RoundedPoint)
        measuring = subject.measure_bits(counts, names, rounded)
    interrupted = False
    try:
        with _signals():
            for point in measuring:
                table.add(point)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        store.write()
    shown = [point for point in store.points if point.weight in names]
    plot = store.csv.with_suffix(".png")
    if shown:
        title = f"{network.arch} on {subject.task.name} ({split.value}): sensitivity by {identity['sense']}"
        if any(point.drawn is not None for point in shown):
            sensitivity_png(shown, plot, *subject.metric, title)
        console.print(f"{store.csv}\n{plot}" if plot.exists() else str(store.csv), soft_wrap=True, markup=False)
    if interrupted:
        done, whole = store.among(names, steps), len(names) * len(steps)
        console.print(f"interrupted: {done} of {whole} points are measured; the same command goes on", soft_wrap=True)
        raise typer.Exit(130)
    if write_space is not None:
        asked = [point for point in shown if point.level in steps]
        _write_space(write_space, subject, task, asked, max_drop, console)


def _pixels(mean: str | None, std: str | None) -> Pixels:
    """Raises ConfigError: they are no means and deviations."""
    from raydistill.errors import ConfigError
    from raydistill.parts import Pixels, pixel_faults
    from raydistill.parts.pixels import numbers

    found = Pixels(mean=None if mean is None else numbers(mean), std=None if std is None else numbers(std))
    if faults := pixel_faults(found, "--"):
        raise ConfigError(*faults)
    return found


def _check_space(
    file: Path, sense: Sense, split: Split, steps: Sequence[float] | None, max_drop: float, overwrite: bool
) -> None:
    """What stands against ``--write-space``, before minutes are spent on measuring. steps: None where bits are."""
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.sweep.file.space_file import may_write

    may_write(file, overwrite)
    if sense is not Sense.ELEMENT:
        rule = "--write-space searches single weights"
        raise ConfigError(Fault("--sense", rule, sense.value, "leave --sense out"))
    if split is Split.TEST:
        raise ConfigError(Fault("--split", "the test split selects nothing, not even bounds", ABSENT, "use validation"))
    if steps is not None and (steps[0] != 0.0 or len(steps) < 2):
        rule = "--write-space compares with the dense network, so the levels must begin at 0 and go on"
        raise ConfigError(Fault("--sense-range", rule, ABSENT, "as in 0 0.95 0.05"))
    if not 0.0 < max_drop < 1.0:
        raise ConfigError(Fault("--max-drop", "must be above 0 and below 1", max_drop, "as in 0.1, ten points of top1"))


def _write_space(
    file: Path, subject: Sensitivity, task: TaskConfig, points: Sequence[Measurement], max_drop: float, console: Console
) -> None:
    import shlex
    import sys

    from raydistill.compression.bit_sensitivity import RoundedPoint, borne_bits
    from raydistill.compression.sensitivity import Point
    from raydistill.compression.tolerance import tolerances
    from raydistill.files import write_atomically
    from raydistill.sweep.file.bits_space import bits_space_text
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
    rounded = [point for point in points if isinstance(point, RoundedPoint)]
    if rounded:
        borne = borne_bits(rounded, *subject.metric, max_drop)
        write_atomically(file, bits_space_text(file, measured, borne))
        left = [weight for weight, bits in borne.items() if not bits]
        how = "floats"
    else:
        found = tolerances([p for p in points if isinstance(p, Point)], *subject.metric, max_drop, subject.samples)
        write_atomically(file, space_text(file, measured, found))
        left, how = [tolerance.weight for tolerance in found if tolerance.dense], "dense"
    if left:
        console.print(f"left {how}, for they drop at once: {', '.join(left)}", soft_wrap=True, markup=False)
    console.print(f"{file}    raydistill sweep {shlex.quote(str(file))}", soft_wrap=True, markup=False)


class _Lines:
    """One line a weight, printed when its last level is measured: the metric at as many levels as fit."""

    def __init__(
        self,
        console: Console,
        names: Sequence[str],
        levels: Sequence[float],
        labels: Sequence[str],
        name: str,
        metric: Metric,
    ) -> None:
        self._console, self._name, self._metric = console, name, metric
        self._width = min(_NAME_WIDTH, max(map(len, names)))
        room = max(1, (console.width - self._width) // 7)
        count = min(room, len(levels))
        places = {round(i * (len(levels) - 1) / max(1, count - 1)) for i in range(count)}
        self._levels = [level for place, level in enumerate(levels) if place in places]
        shown = [label for place, label in enumerate(labels) if place in places]
        self._last = levels[-1]
        self._values: dict[float, float] = {}
        self._line(" " * self._width, shown)

    def add(self, point: Measurement) -> None:
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


def _steps_of_bits(text: str, sense: Sense, sense_range: tuple[float, float, float]) -> tuple[int, ...]:
    """The numbers of bits that ``--bits`` says, the float network before them."""
    from raydistill.compression.bit_sensitivity import checked_steps
    from raydistill.compression.quantizers.grid import FLOAT_BITS
    from raydistill.errors import ABSENT, ConfigError, Fault

    for option, given in (("--sense", sense is not Sense.ELEMENT), ("--sense-range", sense_range != _RANGE)):
        if given:
            rule = "says how weights are pruned, --bits rounds them"
            raise ConfigError(Fault(option, rule, ABSENT, "keep one of the two"))
    try:
        return (FLOAT_BITS, *checked_steps(text))
    except ConfigError as error:
        raise _renamed(error, "--bits") from error


def _label(level: float, is_bits: bool) -> str:
    from raydistill.compression.quantizers.grid import FLOAT_BITS

    if not is_bits:
        return f"{100 * level:.0f} %"
    return "float" if level == FLOAT_BITS else f"{level:.0f} bit"


def _matching(model: nn.Module, sense: str | None, patterns: Sequence[str] | None) -> tuple[str, ...]:
    from fnmatch import fnmatchcase

    from raydistill.compression.bit_sensitivity import roundable
    from raydistill.compression.sensitivity import prunable
    from raydistill.errors import ConfigError, Fault, close_match

    names = tuple(roundable(model)) if sense is None else prunable(model, sense)
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
