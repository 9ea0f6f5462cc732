"""``raydistill sensitivity``: how much each weight of a trained network by itself bears."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydistill.cli.summary import read_network

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from raydistill.compression.sensitivity import Point
    from raydistill.metrics import Metric

_WRITE_EVERY_S = 2.0
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
    dataset: Annotated[
        str | None, typer.Option(help="cifar10, imagefolder, digits or pkg.mod:factory; left out, what it saw.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="A cifar-10-batches-py folder, or a tree of class folders.")
    ] = None,
    sense: Annotated[Sense, typer.Option(help="What is pruned: single weights, filters or channels.")] = Sense.ELEMENT,
    sense_range: Annotated[
        tuple[float, float, float],
        typer.Option(help="START STOP STEP of the sparsity levels; STOP itself is not one.", metavar="START STOP STEP"),
    ] = (0.0, 0.95, 0.05),
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="Only weights that match, such as 'layer1.*'; repeatable.")
    ] = None,
    split: Annotated[Split, typer.Option(help="The images it is evaluated on.")] = Split.VALIDATION,
    images: Annotated[
        int | None, typer.Option(min=1, help="Evaluate on so many of them, always the same ones; left out, all.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images a batch.")] = 256,
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

    from raydistill.compression.sensitivity import analyse, levels, sensitivity_png
    from raydistill.errors import ConfigError

    console = Console(highlight=False)
    from raydistill.cli.tables import heading

    try:
        steps = levels(*sense_range)
    except ConfigError as error:
        raise _renamed(error, "--sense-range") from error
    if write_space is not None:
        _check_space(write_space, sense, split, steps, max_drop, overwrite)
    subject = _Subject(checkpoint, arch, dataset, data_dir, split.value, images, batch_size, console)
    if write_space is not None:
        subject.must_start_a_sweep()
    names = _matching(subject.model, sense.value, weights)
    store = _Store(out_dir, {**subject.identity, "sense": sense.value})
    console.print(
        f"{heading(*subject.metric)} on the {split.value} split of {subject.task.name} ({subject.images:,} images), "
        f"one weight pruned by "
        f"{sense.value} at a time to:",
        soft_wrap=True,
    )
    table = _Lines(console, names, steps, *subject.metric)
    interrupted = False
    try:
        with _signals():
            for point in analyse(subject.model, subject.evaluate, steps, sense.value, names, store.points):
                store.add(point)
                table.add(point)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        store.write()
    shown = [point for point in store.points if point.weight in names]
    plot = store.csv.with_suffix(".png")
    if shown:
        title = f"{subject.arch} on {subject.task.name} ({split.value}): sensitivity by {sense.value}"
        sensitivity_png(shown, plot, *subject.metric, title)
        console.print(f"{store.csv}\n{plot}", soft_wrap=True, markup=False)
    if interrupted:
        done, whole = store.among(names, steps), len(names) * len(steps)
        console.print(f"interrupted: {done} of {whole} points are measured; the same command goes on", soft_wrap=True)
        raise typer.Exit(130)
    if write_space is not None:
        _write_space(write_space, subject, [p for p in shown if p.level in steps], max_drop, console)


def _check_space(
    file: Path, sense: Sense, split: Split, steps: Sequence[float], max_drop: float, overwrite: bool
) -> None:
    """What stands against ``--write-space``, before minutes are spent on measuring."""
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.sweep.space_file import may_write

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


def _write_space(file: Path, subject: _Subject, points: Sequence[Point], max_drop: float, console: Console) -> None:
    import shlex
    import sys

    from raydistill.compression.tolerance import tolerances
    from raydistill.files import write_atomically
    from raydistill.sweep.space_file import Measured, space_text

    run = subject.content["run"]
    measured = Measured(
        arch=subject.arch,
        checkpoint=subject.checkpoint,
        epochs=len(subject.content["history"]),
        max_drop=max_drop,
        samples=subject.images,
        metrics=subject.metrics,
        dense=points[0].metrics[subject.metric[0]],
        command=shlex.join(["raydistill", *sys.argv[1:]]),
        model_args=run.get("model_args") or {},
        dataset={**vars(subject.data_config), "augment": run.get("augment", "auto")},
        training=run,
    )
    found = tolerances(points, *subject.metric, max_drop, subject.images)
    write_atomically(file, space_text(file, measured, found))
    dense = [tolerance.weight for tolerance in found if tolerance.dense]
    if dense:
        console.print(f"left dense, for they drop at once: {', '.join(dense)}", soft_wrap=True, markup=False)
    console.print(f"{file}    raydistill sweep {shlex.quote(str(file))}", soft_wrap=True, markup=False)


class _Subject:
    """The network and the images; `evaluate` uses the same batches again, kept on the device where they fit."""

    def __init__(
        self,
        checkpoint: Path,
        arch: str | None,
        dataset: str | None,
        data_dir: Path | None,
        split: str,
        images: int | None,
        batch_size: int,
        console: Console,
    ) -> None:
        import torch

        from raydistill import tasks
        from raydistill.datasets import DatasetConfig
        from raydistill.errors import ConfigError, Fault
        from raydistill.tasks import Loading, TaskConfig, Weights
        from raydistill.tasks.classification.preprocessing import of_checkpoint
        from raydistill.tasks.feeds import Kept
        from raydistill.training import device_of
        from raydistill.training.allocator import keep_freed_memory

        content, model = read_network(checkpoint, arch)
        run = content["run"]
        self.checkpoint, self.content = checkpoint, content
        self.arch = run["arch"]
        self.device = device_of("auto")
        if self.device.type == "cpu":
            keep_freed_memory()
        self.split, self.precision = split, content["precision"]
        digest = _digest(model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        seen = of_checkpoint(content, str(checkpoint))
        config = DatasetConfig(
            channels="grey" if seen is not None and seen.channels == "grey" else "rgb",
            name=dataset or _on_menu(content.get("dataset", "cifar10"), checkpoint),
            data_dir=None if data_dir is None else str(data_dir),
            **{key: run[key] for key in ("validation", "split_seed") if key in run},
        )
        self.data_config = config
        weights = Weights(self.arch, run["model_args"], content, str(checkpoint))
        self.task = task = tasks.load(TaskConfig(), config, weights)
        self.metrics = task.metrics
        if task.warning:
            console.print(f"warning: {task.warning}", style="bold yellow")
        if task.note:
            console.print(task.note, soft_wrap=True, markup=False)
        classes = task.described()["num_classes"]
        if classes != content["num_classes"]:
            rule = f"the checkpoint knows {content['num_classes']} classes, {task.name} has"
            raise ConfigError(Fault("--dataset", rule, classes, "name the one it was trained on"))
        self.loading = Loading(self.device, batch_size, precision=self.precision)
        if images is not None:
            share = min(1.0, images / task.feed(split, self.loading).samples)
            self.loading = replace(self.loading, fraction=share)
        self.feed = task.feed(split, self.loading)
        self.images = self.feed.samples
        if _fits(self.images, task.example_input()[0].shape[1:], self.device):
            self.feed = Kept(self.feed)
        self.identity = {
            "arch": self.arch,
            "weights": digest,
            "dataset": self.task.name,
            "split": split,
            "images": self.images,
            **({"preprocessing": task.note} if task.note else {}),
        }

    def must_start_a_sweep(self) -> None:
        """Raises ConfigError for a checkpoint that a sweep cannot take as its baseline."""
        from raydistill.errors import ABSENT, ConfigError, Fault

        if not self.content.get("history"):
            rule, way_out = "--write-space needs a checkpoint that raydistill trained", "train it with compress"
            raise ConfigError(Fault(str(self.checkpoint), rule, ABSENT, way_out))

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.task.evaluate(model, self.feed, self.loading)

    @property
    def metric(self) -> tuple[str, Metric]:
        """The one that selects, by its name."""
        from raydistill.metrics import selecting

        name = selecting(self.metrics)
        return name, self.metrics[name]


def _on_menu(dataset: object, checkpoint: Path) -> str:
    """The dataset a checkpoint names; a factory of one's own is called only where the user names it."""
    from raydistill import datasets
    from raydistill.errors import ConfigError, Fault

    if dataset not in datasets.NAMES:
        rule = f"{checkpoint} was trained on a dataset that is not on the menu"
        raise ConfigError(Fault("--dataset", rule, dataset, "name it yourself"))
    return str(dataset)


def _digest(model: nn.Module) -> str:
    """Hash of all weights and buffers."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _fits(images: int, shape: Sequence[int], device: Any) -> bool:
    """Whether all normalised batches take less than a quarter of the memory that is free on the device."""
    import math

    import torch

    from raydistill.datasets.memory import available_memory

    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return 4 * images * math.prod(shape) < free / 4


class _Store:
    """``sensitivity.csv`` in a folder, and beside it what it was measured with. Both are replaced atomically."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        from raydistill.compression.sensitivity import read_sensitivity_csv
        from raydistill.errors import ConfigError, DataError, Fault
        from raydistill.files import write_atomically

        self.csv, about = folder / "sensitivity.csv", folder / "sensitivity.json"
        self._points: dict[tuple[str, float], Point] = {}
        self._written = time.monotonic()
        if self.csv.exists():
            try:
                before = json.loads(about.read_text())
                differing = [key for key in {**identity, **before} if identity.get(key) != before.get(key)]
            except (OSError, ValueError, TypeError, AttributeError) as error:
                way_out = "choose another folder with -o, or remove it"
                raise DataError(
                    Fault(str(about), "cannot be read, so the analysis cannot go on", way_out=way_out)
                ) from error
            if differing:
                key = differing[0]
                rule = f"holds an analysis with another {key}, {before.get(key)!r}"
                raise ConfigError(Fault(str(folder), rule, identity.get(key), "choose another folder with -o"))
            self._points = {(point.weight, point.level): point for point in read_sensitivity_csv(self.csv)}
        else:
            write_atomically(about, json.dumps(identity, indent=1) + "\n")

    @property
    def points(self) -> tuple[Point, ...]:
        """Weight by weight, in the order they were first measured, levels rising."""
        order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in self._points))}
        return tuple(sorted(self._points.values(), key=lambda point: (order[point.weight], point.level)))

    def among(self, names: Sequence[str], levels: Sequence[float]) -> int:
        """How many points of these weights and levels there are."""
        return sum((name, level) in self._points for name in names for level in levels)

    def add(self, point: Point) -> None:
        self._points[(point.weight, point.level)] = point
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        from raydistill.compression.sensitivity import sensitivity_csv
        from raydistill.files import write_atomically

        if self._points:
            write_atomically(self.csv, sensitivity_csv(self.points))
        self._written = time.monotonic()


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


def _renamed(error: Any, where: str) -> Any:
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
