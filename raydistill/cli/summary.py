"""``raydistill summary``: tables about a network and its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console
    from torch import Tensor, nn

_DATASETS: dict[str, tuple[tuple[int, ...], int]] = {
    "cifar10": ((3, 32, 32), 10),
    "digits": ((3, 32, 32), 10),
    "imagenet": ((3, 224, 224), 1000),
}


KINDS = ("sparsity", "masks", "compute", "structures", "optimizer", "model", "modules", "png", "svg")


class Format(str, Enum):
    TABLE = "table"
    CSV = "csv"


def summary(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}, or pkg.mod:function.", show_default=False)],
    arch: Annotated[
        str | None, typer.Option("--arch", "-a", help="simplenet_cifar, resnet50, ... or pkg.mod:factory.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint.pt; left out, the architecture with fresh weights.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="cifar10, digits or imagenet: images and classes.")] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Classes; left out, what it was made for.")] = None,
    input_shape: Annotated[str | None, typer.Option(help="Of one input, such as 3x32x32.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file for all of it: CSV, text, or the picture.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="csv prints every column, in full precision.")
    ] = Format.TABLE,
) -> None:
    """Show what a network is made of.

    sparsity: of every weight, at every granularity. masks: the same of a checkpoint's masks.

    compute: the multiply-accumulates (MACs) of every layer.

    structures: filters, neurons, heads and units that can be pruned as a whole, and what cannot and why.

    optimizer: the settings in a checkpoint. model: as torch prints it. modules: its tree. png, svg: its picture.

    pkg.mod:function: your own, a function of (model, example input) that gives rows, dataclasses of one kind.
    """
    from rich.console import Console

    from raydistill.compression import summaries
    from raydistill.errors import ABSENT, ConfigError, Fault, close_match
    from raydistill.files import write_atomically

    if kind not in KINDS and ":" not in kind:
        raise ConfigError(Fault("KIND", "no such summary", kind, close_match(kind, KINDS)))
    console = Console(highlight=False)
    subject = _subject(arch, checkpoint, dataset, num_classes, input_shape)
    if kind in ("png", "svg"):
        path = out or Path(f"{subject.name}.{kind}")
        if path.suffix.lower() != f".{kind}":
            raise ConfigError(Fault("--out", f"must end in .{kind}", str(path)))
        summaries.draw(subject.model, subject.example(), path, subject.name)
        console.print(str(path), soft_wrap=True, markup=False)
        return
    if kind == "model":
        text = f"{subject.model}\n"
        if out is None:
            console.print(text, end="", markup=False, soft_wrap=True)
    else:
        columns: tuple[Column, ...]
        rows: Sequence[object]
        if kind == "sparsity":
            columns, rows = SPARSITY, summaries.sparsity_table(subject.model)
        elif kind == "masks":
            if not subject.masks:
                raise ConfigError(Fault("--checkpoint", "is needed, one with masks", ABSENT, "give a pruned run's"))
            columns, rows = SPARSITY, summaries.mask_table(subject.masks)
        elif kind == "compute":
            columns, rows = COMPUTE, summaries.compute_table(subject.model, subject.example())
        elif kind == "structures":
            from raydistill.compression.thinning.offered import structure_table  # imports Torch-Pruning

            columns, rows = STRUCTURES, structure_table(subject.model, subject.example())
        elif kind == "modules":
            columns, rows = MODULES, summaries.module_table(subject.model)
        elif ":" in kind:
            rows = summaries.own_table(kind, subject.model, subject.example(), "KIND")
            columns = _columns_of(rows)
        else:
            if subject.optimizer is None:
                way_out = "the settings of --lr and its kin are in the checkpoint of a run"
                raise ConfigError(Fault("--checkpoint", "is needed for the optimizer's settings", ABSENT, way_out))
            columns, rows = OPTIMIZER, summaries.optimizer_table(subject.optimizer)
        text = summaries.csv_text(type(rows[0]), rows)
        if out is None and form is Format.CSV:
            console.print(text, end="", markup=False, soft_wrap=True)
        elif out is None and kind == "structures":
            _print_structures(console, rows)
        elif out is None:
            print_table(console, columns, rows)
    if out is not None:
        write_atomically(out, text)
        console.print(str(out), soft_wrap=True, markup=False)


@dataclass(frozen=True)
class _Subject:
    """The network that is summarised. optimizer: the state a checkpoint has of it."""

    name: str
    model: nn.Module
    optimizer: dict[str, object] | None
    masks: Mapping[str, Tensor]
    example: Callable[[], tuple[Tensor, ...]]


def _subject(
    arch: str | None, checkpoint: Path | None, dataset: str | None, num_classes: int | None, input_shape: str | None
) -> _Subject:
    from raydistill import models
    from raydistill.analysis.network import read_network
    from raydistill.errors import ABSENT, ConfigError, Fault, close_match

    if dataset is not None and dataset not in _DATASETS:
        way_out = f"{close_match(dataset, _DATASETS)} Or give --input-shape and --num-classes"
        raise ConfigError(Fault("--dataset", "its shape is not known", dataset, way_out))
    shape: Sequence[int] | None
    classes: int | None
    shape, classes = _DATASETS[dataset] if dataset is not None else (None, None)
    if input_shape is not None:
        shape = parse_shape(input_shape)
    if checkpoint is not None:
        network = read_network(checkpoint, arch)
        content, model, known = network.content, network.model, network.arch
        arguments, classes = {**content.get("sizes", {}), **content["run"]["model_args"]}, content.get("num_classes")
        shape = shape or content.get("image_shape")
        optimizer = content.get("optimizer")
        masks = content.get("scheduler", {}).get("masks", {})
    elif arch is not None:
        classes = num_classes or classes or models.default_num_classes(arch, "--arch")
        known, model, arguments, optimizer = arch, models.create(arch, classes, None, "--arch"), {}, None
        masks = {}
    else:
        raise ConfigError(Fault("--arch", "give an architecture, or a --checkpoint", ABSENT))

    def example() -> tuple[Tensor, ...]:
        return models.example_input(known, arguments, 1, shape, classes, "--arch")

    return _Subject(known.replace(":", "."), model, optimizer, masks, example)


def parse_shape(text: str) -> tuple[int, ...]:
    """``3x32x32`` or ``3,32,32`` as whole numbers; ConfigError for anything else."""
    from raydistill.errors import ConfigError, Fault

    parts = text.replace(",", "x").lower().split("x")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(Fault("--input-shape", "must be whole numbers of 1 or more", text, "such as 3x32x32"))
    return tuple(int(part) for part in parts)


@dataclass(frozen=True)
class Column:
    """A column of a printed table. need: those with a low number are shown first where the room is short."""

    title: str
    text: Callable[[Any], str]
    need: int
    right: bool = True


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[object]) -> None:
    """Print as many columns as fit the console's width, and name those that do not; the last row is the total."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = {column.title: [column.text(row) for row in rows] for column in columns}
    filled = [column for column in columns if any(cells[column.title])]
    room, shown = console.width, set[str]()
    for column in sorted(filled, key=lambda column: column.need):
        width = max(len(column.title), *map(len, cells[column.title])) + 2
        if width <= room or not shown:
            shown.add(column.title)
            room -= width
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    kept = [column for column in filled if column.title in shown]
    for column in kept:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, no_wrap=column.need > 0, overflow="fold")
    has_total = cells[columns[0].title][-1] == "total"
    for index in range(len(rows)):
        if has_total and index == len(rows) - 1:
            table.add_section()
        table.add_row(*(Text(cells[column.title][index]) for column in kept))
    console.print(table)
    left_out = [column.title for column in filled if column.title not in shown]
    if left_out:
        console.print(f"not shown: {', '.join(left_out)} (--format csv has all)", soft_wrap=True)


def _print_structures(console: Console, rows: Sequence[Any]) -> None:
    """Those that can go, then a line for each reason why others stay."""
    offered = [row for row in rows if row.structures]
    if offered:
        print_table(console, STRUCTURES, offered)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.kept:
            reasons.setdefault(row.kept, []).append(row.layer)
    for reason, layers in reasons.items():
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        console.print(f"{layers[0]}{more} stay{'s' * (len(layers) == 1)}: {reason}", soft_wrap=True, markup=False)


def _percent(name: str) -> Callable[[object], str]:
    def text(row: object) -> str:
        value = getattr(row, name)
        return "" if value is None else f"{100 * value:.2f}"

    return text


def _number(name: str) -> Callable[[object], str]:
    def text(row: object) -> str:
        value = getattr(row, name)
        return "" if value is None else f"{value:.4f}"

    return text


def _count(name: str) -> Callable[[object], str]:
    return lambda row: f"{value:,}" if (value := getattr(row, name)) else ""


def _plain(name: str) -> Callable[[object], str]:
    return lambda row: str(getattr(row, name))


def _columns_of(rows: Sequence[DataclassInstance]) -> tuple[Column, ...]:
    """A column a field, the first ones kept longest; texts stand left, numbers right."""

    def text(name: str) -> Callable[[object], str]:
        def cell(row: object) -> str:
            value = getattr(row, name)
            if isinstance(value, tuple):
                return "x".join(map(str, value))
            return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

        return cell

    return tuple(
        Column(f.name, text(f.name), need, right=isinstance(getattr(rows[0], f.name), int | float))
        for need, f in enumerate(fields(rows[0]))
    )


def _shape(name: str) -> Callable[[object], str]:
    return lambda row: "x".join(map(str, getattr(row, name)))


SPARSITY = (
    Column("weight", _plain("weight"), 0, right=False),
    Column("shape", _shape("shape"), 1),
    Column("dense", lambda row: f"{row.dense:,}", 7),
    Column("nonzero", lambda row: f"{row.nonzero:,}", 3),
    Column("cols %", _percent("cols"), 9),
    Column("rows %", _percent("rows"), 8),
    Column("ch %", _percent("channels"), 5),
    Column("2D %", _percent("sparsity_2d"), 6),
    Column("3D %", _percent("sparsity_3d"), 4),
    Column("fine %", _percent("sparsity"), 2),
    Column("std", _number("std"), 10),
    Column("mean", _number("mean"), 11),
    Column("abs mean", _number("abs_mean"), 12),
)
COMPUTE = (
    Column("layer", _plain("name"), 0, right=False),
    Column("type", _plain("type"), 2, right=False),
    Column("attributes", _plain("attributes"), 5, right=False),
    Column("calls", lambda row: "" if row.calls == 1 or row.name == "total" else str(row.calls), 6),
    Column("input", _shape("input_shape"), 4),
    Column("input volume", _count("input_volume"), 9),
    Column("output", _shape("output_shape"), 3),
    Column("output volume", _count("output_volume"), 8),
    Column("weights", _count("weights"), 7),
    Column("MACs", lambda row: f"{row.macs:,}", 1),
)
STRUCTURES = (
    Column("layer", _plain("layer"), 0, right=False),
    Column("structures", _plain("structures"), 1, right=False),
    Column("count", _count("count"), 2),
    Column("weights", _count("weights"), 4),
    Column("share %", _percent("share"), 3),
)
MODULES = (
    Column("module", lambda row: row.name or "(model)", 0, right=False),
    Column("type", _plain("type"), 1, right=False),
    Column("parameters", _count("parameters"), 2),
    Column("same as", _plain("same_as"), 3, right=False),
)
OPTIMIZER = (
    Column("group", _plain("group"), 0, right=False),
    Column("setting", _plain("setting"), 1, right=False),
    Column("value", _plain("value"), 2, right=False),
)
