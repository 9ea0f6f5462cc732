"""How much each weight by itself bears: it is pruned to rising levels while all others stay dense.

After Han et al. 2015 (arXiv 1506.02626, section 3.1) for single weights and Li et al. 2017 (arXiv 1608.08710, section
3.2) for filters. A level is the fraction of structures pruned, in [0, 1); what is smallest in mean absolute value goes
first, and a level between two whole numbers of structures floors.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from raydistill.compression.granularity import CHANNELS, ELEMENT, FILTERS, Granularity
from raydistill.compression.masks import pruned_count, smallest_mask
from raydistill.compression.rankings import l1
from raydistill.compression.sparsity import weights as weights_of
from raydistill.errors import ABSENT, ConfigError, DataError, Fault, close_match
from raydistill.files import write_atomically
from raydistill.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""The model's metrics by name, the same ones at every call."""

SENSES: dict[str, Granularity] = {"element": ELEMENT, "filter": FILTERS, "channel": CHANNELS}


@dataclass(frozen=True)
class Point:
    """One weight at one level. pruned: the fraction of structures that level comes to."""

    AXIS: ClassVar[str] = "fraction of this weight that is pruned, all others dense"

    weight: str
    level: float
    pruned: float
    metrics: Mapping[str, float]

    @property
    def drawn(self) -> float | None:
        """Where it stands on the axis; None: nowhere."""
        return self.pruned


class Measured(Protocol):
    """A point of a table: its weight, its metrics, and the fields that say what was done to the weight."""

    AXIS: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def weight(self) -> str: ...
    @property
    def level(self) -> float: ...
    @property
    def drawn(self) -> float | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


Kind = TypeVar("Kind", bound=Measured)
_READ: Mapping[str, Callable[[str], object]] = {"weight": str, "bits": int}
"""How a column is read that is no number with a point."""


def levels(start: float, stop: float, step: float) -> tuple[float, ...]:
    """start, start + step, ... below stop, as ``numpy.arange`` has them but without its rounding at the end.

    Raises:
        ConfigError: the levels would not lie in [0, 1), or there would be none.
    """
    where = "sense range"
    if not all(map(math.isfinite, (start, stop, step))) or not 0.0 <= start < stop <= 1.0:
        raise ConfigError(Fault(where, "start and stop must satisfy 0 <= start < stop <= 1", (start, stop)))
    if not 0.0 < step <= 1.0:
        raise ConfigError(Fault(where, "step must be above 0 and at most 1", step))
    return tuple(round(start + i * step, 10) for i in range(math.ceil((stop - start) / step - 1e-9)))


def prunable(model: nn.Module, sense: str) -> tuple[str, ...]:
    """Names of the weights that have such structures: all for ``element``, convolutions for the others.

    Raises:
        ConfigError: no such sense, or the model has no such weight.
    """
    if sense not in SENSES:
        way_out = close_match(sense, SENSES)
        raise ConfigError(Fault("sense", f"must be one of {', '.join(SENSES)}", sense, way_out))
    dimensions = 2 if sense == "element" else 3
    names = tuple(name for name, weight in weights_of(model) if weight.dim() >= dimensions and weight.numel())
    if not names:
        way_out = "choose element" if sense != "element" else ""
        raise ConfigError(Fault("sense", f"the model has no weight with {sense}s", ABSENT, way_out))
    return names


def analyse(
    model: nn.Module,
    evaluate: Evaluate,
    levels: Sequence[float],
    sense: str = "element",
    weights: Sequence[str] | None = None,
    known: Iterable[Point] = (),
) -> Iterator[Point]:
    """Measure every weight at every level, weight by weight; yields each point when it is measured.

    While `evaluate` runs, one weight is pruned; before the next point is asked for, and however the generator ends,
    the model is bit for bit what it was. Two levels that prune the same number of structures are measured once, and so
    is the dense model. weights: names, None for all that have such structures. known: points of an earlier, interrupted
    call with the same model and `evaluate`; they are yielded again in their places without being measured.

    Raises:
        ConfigError: an unknown sense or weight, or a level outside [0, 1).
    """
    able = prunable(model, sense)
    names = able if weights is None else tuple(weights)
    unknown = [name for name in names if name not in able]
    if unknown:
        faults = (Fault("weights", f"no weight with {sense}s of this name", n, close_match(n, able)) for n in unknown)
        raise ConfigError(*faults)
    for level in levels:
        if not 0.0 <= level < 1.0:
            raise ConfigError(Fault("levels", "must be from 0 to below 1", level))
    found = {(point.weight, point.level): point for point in known}
    dense = next((point.metrics for point in found.values() if point.pruned == 0.0), None)
    parameters = dict(model.named_parameters())
    for name in names:
        weight, structures = parameters[name], SENSES[sense]
        scores = l1(structures.groups(weight.detach()))
        size = scores.numel()
        measured = {round(p.pruned * size): p.metrics for key, p in found.items() if key[0] == name}
        for level in levels:
            if (name, level) in found:
                yield found[(name, level)]
                continue
            count = pruned_count(level, size)
            if count == 0 and dense is not None:
                measured[0] = dense
            if count not in measured:
                with _pruned(weight, structures.expand(smallest_mask(scores, level), weight)):
                    measured[count] = dict(evaluate(model))
            if count == 0:
                dense = measured[0]
            yield Point(name, level, count / size, measured[count])


@contextlib.contextmanager
def _pruned(weight: nn.Parameter, mask: Tensor) -> Iterator[None]:
    """The weight times its mask. The values are put back into the same memory, so that a -0.0 is one again."""
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(mask)
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


def sensitivity_csv(points: Sequence[Measured]) -> str:
    """One line a point: weight, what was done to it (level and pruned, or bits), and a column a metric."""
    metrics = list(dict.fromkeys(name for point in points for name in point.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = _columns(type(points[0])) if points else ()
    writer.writerow([*fixed, *metrics])
    for point in points:
        values = (point.metrics.get(name, "") for name in metrics)
        writer.writerow([*(getattr(point, column) for column in fixed), *values])
    return text.getvalue()


def _columns(kind: type[Measured]) -> tuple[str, ...]:
    return tuple(own.name for own in fields(kind) if own.name != "metrics")


def read_sensitivity_csv(path: str | Path, kind: type[Kind] = Point) -> tuple[Kind, ...]:  # type: ignore[assignment]
    """The points of a file that `sensitivity_csv` gave; every number as it was.

    Raises:
        DataError: no such file, or another kind of table.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        fixed = _columns(kind)
        return tuple(
            kind(  # type: ignore[call-arg]
                *(_READ.get(column, float)(row[column]) for column in fixed),
                {name: float(value) for name, value in row.items() if name not in fixed and value != ""},
            )
            for row in rows
        )
    except OSError as error:
        raise DataError(Fault(str(path), f"cannot be read ({error.strerror})")) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(Fault(str(path), "is not a table of sensitivities", ABSENT, "choose another folder")) from error


def sensitivity_png(
    points: Sequence[Measured], path: str | Path, metric: str, meaning: Metric | None = None, title: str = ""
) -> None:
    """Draw one curve a weight, `metric` against what was done to it. meaning: its unit; None: a plain number.

    Raises:
        DataError: no point has this metric. StorageError: the file cannot be written.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if metric in point.metrics and point.drawn is not None:
            curves.setdefault(point.weight, []).append((point.drawn, point.metrics[metric]))
    if not curves:
        raise DataError(Fault("sensitivity plot", "no point has this metric", metric))
    content = io.BytesIO()
    figure = _figure(curves, metric, meaning is not None and meaning.is_fraction, title, points[0].AXIS)
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def _figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], metric: str, percent: bool, title: str, axis: str = Point.AXIS
) -> Figure:
    import matplotlib
    from matplotlib.figure import Figure

    columns = math.ceil(len(curves) / 26)
    figure = Figure(figsize=(7.2 + 2.2 * columns, 5.2), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["viridis"]
    share = 100.0 if percent else 1.0
    for index, (name, curve) in enumerate(curves.items()):
        xs, ys = zip(*sorted(set(curve)), strict=True)
        # from the input to the output dark to light; the dashes tell neighbours apart
        colour = colours(0.92 * index / max(1, len(curves) - 1))
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(
            xs, [share * y for y in ys], style, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=name
        )
    axes.set_xlabel(axis)
    axes.set_ylabel(f"{metric} %" if percent else metric)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    figure.legend(loc="outside right upper", ncols=columns, fontsize=7, frameon=False)
    return figure
