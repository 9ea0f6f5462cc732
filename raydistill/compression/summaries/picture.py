"""A picture of a network, drawn with matplotlib alone: no Graphviz binary is needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from raydistill.compression.summaries.graph import Box, boxes
from raydistill.compression.summaries.layout import Edge, Layout, layout
from raydistill.compression.trace import trace
from raydistill.errors import ConfigError, Fault
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_DPI, _MOST_PIXELS = 110, 60_000
_FONT, _LINE, _PAD = 8.0, 0.155, 0.09
_GAP, _TRACK_GAP, _LANE, _CORNER = 0.36, 0.30, 0.16, 0.05
_COLOURS = {
    "conv": ("#dce8f5", "#3b6ea5"),
    "linear": ("#dff0df", "#3f8a4c"),
    "attention": ("#eee0f4", "#7d4f9e"),
    "recurrent": ("#eee0f4", "#7d4f9e"),
    "pool": ("#f6ecd6", "#a8813a"),
    "merge": ("#ececec", "#666666"),
    "input": ("#ffffff", "#333333"),
    "other": ("#f8f8f8", "#888888"),
}
_WIRE = "#555555"


def draw(model: nn.Module, example_input: Tensor | Sequence[object], path: str | Path, title: str = "") -> None:
    """Draw the network to a ``.png`` or ``.svg`` file: a box a layer with its name, type and output shape.

    example_input: the model's positional inputs.

    Raises:
        ConfigError: another suffix, or the model does not run on this input. StorageError: it cannot be written.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ConfigError(Fault("picture", "the file's name must end in .png or .svg", str(path)))
    steps = boxes(trace(model, example_input), model)
    write_atomically(path, _rendered(_Drawing(steps, title).figure, kind))


def _rendered(figure: Figure, kind: str) -> bytes:
    import matplotlib

    content = io.BytesIO()
    width, height = figure.get_size_inches()
    # text as text, and no date or random ids: the same network gives the same file
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "raydistill"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, dpi=min(_DPI, _MOST_PIXELS / max(width, height)), metadata=metadata)
    return content.getvalue()


class _Drawing:
    """Inches everywhere; x grows to the right from the middle of the main column, y downwards."""

    def __init__(self, steps: Sequence[Box], title: str) -> None:
        from matplotlib.figure import Figure

        self.steps = steps
        self.plan: Layout = layout([box.inputs for box in steps])
        self.lines = [_lines(box) for box in steps]
        self.widths = [max(0.9, 2 * _PAD + _width(lines)) for lines in self.lines]
        self.heights = [_LINE * len(lines) + 1.2 * _PAD for lines in self.lines]
        self._place()
        margin, head = 0.2, 0.35 if title else 0.0
        left = -self.main / 2 - _LANE * (self.plan.lanes + 1 if self.plan.lanes else 0) - margin
        width, height = self.right + margin - left, self.bottom + 2 * margin + head
        if title:
            lacking = max(0.0, 1.6 * _width([(title, True)]) + 2 * margin - width)
            left, width = left - lacking / 2, width + lacking
        self.figure = Figure(figsize=(width, height))
        axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(left, left + width)
        axes.set_ylim(self.bottom + margin, -margin - head)
        axes.axis("off")
        if title:
            axes.text(left + width / 2, -head, title, ha="center", va="center", fontsize=_FONT + 3, fontweight="bold")
        for edge in self.plan.edges:
            self._wire(axes, edge)
        for index, box in enumerate(steps):
            self._box(axes, index, box)

    def _place(self) -> None:
        plan = self.plan
        rows = max(plan.row) + 1
        tall = [max(self.heights[i] for i in range(len(self.steps)) if plan.row[i] == row) for row in range(rows)]
        self.tops = [sum(tall[:row]) + _GAP * row for row in range(rows)]
        self.bottoms = [top + height for top, height in zip(self.tops, tall, strict=True)]
        self.bottom = self.bottoms[-1]
        wide = [
            max(self.widths[i] for i in range(len(self.steps)) if plan.track[i] == track)
            for track in range(plan.tracks)
        ]
        self.main = wide[0]
        self.middles, edge = [0.0], wide[0] / 2
        for width in wide[1:]:
            self.middles.append(edge + _TRACK_GAP + width / 2)
            edge += _TRACK_GAP + width
        self.right = edge

    def _box(self, axes: Axes, index: int, box: Box) -> None:
        from matplotlib.patches import FancyBboxPatch

        x = self.middles[self.plan.track[index]]
        top, bottom = self._ends(index)
        width = self.widths[index]
        fill, rim = _COLOURS[box.kind]
        style = f"round,pad=0,rounding_size={_CORNER}"
        corner = (x - width / 2, top)
        axes.add_patch(
            FancyBboxPatch(corner, width, bottom - top, boxstyle=style, facecolor=fill, edgecolor=rim, linewidth=0.9)
        )
        for number, (text, bold) in enumerate(self.lines[index]):
            y = top + 0.6 * _PAD + _LINE * (number + 0.5)
            weight, colour = ("bold", "#111111") if bold else ("normal", "#444444")
            axes.text(x, y, text, ha="center", va="center_baseline", fontsize=_FONT, fontweight=weight, color=colour)

    def _ends(self, index: int) -> tuple[float, float]:
        """(top, bottom) of a box, in the middle of its row."""
        row = self.plan.row[index]
        middle, half = (self.tops[row] + self.bottoms[row]) / 2, self.heights[index] / 2
        return middle - half, middle + half

    def _wire(self, axes: Axes, edge: Edge) -> None:
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Line

        plan = self.plan
        start, end = self.middles[plan.track[edge.source]], self.middles[plan.track[edge.target]]
        via = self.middles[edge.track] if edge.lane is None else -self.main / 2 - _LANE * (edge.lane + 1)
        start += _side(via, start) * 0.3 * self.widths[edge.source]
        end += _side(via, end) * 0.3 * self.widths[edge.target]
        y0, y1 = self._ends(edge.source)[1], self._ends(edge.target)[0]
        leave = self.bottoms[plan.row[edge.source]] + 0.10 + 0.02 * plan.track[edge.source]
        arrive = self.tops[plan.row[edge.target]] - 0.17 - 0.02 * plan.track[edge.target]
        points = [(start, y0), (start, leave), (via, leave), (via, arrive), (end, arrive), (end, y1)]
        axes.add_patch(
            FancyArrowPatch(
                path=Line(*_rounded(points)),
                arrowstyle="-|>,head_length=3.2,head_width=1.7",
                linewidth=0.9,
                color=_WIRE,
                shrinkA=0,
                shrinkB=0,
                joinstyle="round",
                zorder=0.5,
            )
        )


def _lines(box: Box) -> list[tuple[str, bool]]:
    """(text, bold) from top to bottom."""
    lines = [(box.title, True)]
    if box.detail:
        lines.append((box.detail, False))
    if box.joined:
        lines.append(("+ " + ", ".join(box.joined), False))
    return [*lines, (box.shape, False)] if box.shape else lines


def _width(lines: Sequence[tuple[str, bool]]) -> float:
    """Inches of the longest line."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    fonts = {bold: FontProperties(size=_FONT, weight="bold" if bold else "normal") for bold in (True, False)}
    measure = text_to_path.get_text_width_height_descent  # an outline's exact extent would take ten times as long
    return max(measure(text, fonts[bold], ismath=False)[0] / 72 for text, bold in lines)


def _side(via: float, x: float) -> int:
    return 0 if abs(via - x) < 1e-6 else (1 if via > x else -1)


def _rounded(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], list[int]]:
    """Vertices and codes of a line of level and upright pieces whose corners are quarter curves."""
    from matplotlib.path import Path as Line

    kept = [points[0]]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        straight = (before[0] == here[0] == after[0]) or (before[1] == here[1] == after[1])
        if not straight and here != kept[-1]:
            kept.append(here)
    kept.append(points[-1])
    vertices, codes = [kept[0]], [int(Line.MOVETO)]
    for before, here, after in zip(kept, kept[1:], kept[2:], strict=False):
        radius = min(_CORNER, _distance(before, here) / 2, _distance(here, after) / 2)
        vertices += [_towards(here, before, radius), here, _towards(here, after, radius)]
        codes += [int(Line.LINETO), int(Line.CURVE3), int(Line.CURVE3)]
    return [*vertices, kept[-1]], [*codes, int(Line.LINETO)]


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(a: tuple[float, float], b: tuple[float, float], length: float) -> tuple[float, float]:
    whole = _distance(a, b)
    share = length / whole if whole else 0.0
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
