"""Pictures: what is in them, for modules, functions and shared modules."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Line
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.summaries import draw, trace
from raydistill.compression.summaries.graph import boxes
from raydistill.compression.summaries.picture import _CORNER, _Drawing, _rounded
from raydistill.errors import ConfigError

IMAGES = torch.zeros(1, 3, 32, 32)


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


@pytest.mark.slow
def test_svg_names_every_layer_and_its_shape(tmp_path: Path) -> None:
    draw(models.create("simplenet_cifar", 10), IMAGES, tmp_path / "net.svg", "simplenet")
    found = texts(tmp_path / "net.svg")
    for part in ("simplenet", "input", "conv1", "conv2", "fc1", "fc2", "fc3", "Conv2d k=5x5", "16x10x10", "+ relu"):
        assert part in found, part
    assert found.count("+ relu") == 4


@pytest.mark.slow
def test_png_and_svg_are_what_their_names_say_and_always_the_same(tmp_path: Path) -> None:
    model = models.create("simplenet_cifar", 10)
    for suffix in ("png", "svg"):
        first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        draw(model, IMAGES, first)
        draw(model, IMAGES, second)
        assert first.read_bytes() == second.read_bytes()
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 100 < width < height < 3000
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_texts_stand_in_their_boxes_and_boxes_apart_in_the_picture() -> None:
    from matplotlib.patches import FancyBboxPatch

    model = models.create("resnet20_cifar", 10)
    found = boxes(trace(model, IMAGES), model)
    (axes,) = _Drawing(found, "resnet20").figure.axes
    rims = [p.get_bbox() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(rims) == len(found)
    title, *others = (text.get_position() for text in axes.texts)
    inside = [[rim for rim in rims if rim.contains(*place)] for place in others]
    assert all(len(around) == 1 for around in inside)
    assert title[1] < min(min(rim.y0, rim.y1) for rim in rims) - 0.15  # y grows downwards; a line is so high
    for around, (x, _) in zip(inside, others, strict=True):
        assert (around[0].x0 + around[0].x1) / 2 == pytest.approx(x)
    assert not any(a.overlaps(b) for index, a in enumerate(rims) for b in rims[:index])
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert all(left < rim.x0 < rim.x1 < right and min(low, high) < rim.y0 < rim.y1 < max(low, high) for rim in rims)


@pytest.mark.slow
def test_boxes_of_resnet20() -> None:
    model = models.create("resnet20_cifar", 10)
    found = boxes(trace(model, IMAGES), model)
    kinds = [box.kind for box in found]
    # 19 + 2 convolutions, 9 sums, pooling, classifier, input
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "conv": 21,
        "merge": 9,
        "pool": 1,
        "linear": 1,
        "input": 1,
    }
    by_title = {box.title: box for box in found}
    assert by_title["layer1.0.conv1"].joined == ("batch_norm", "relu")
    assert by_title["layer1.0.conv2"].joined == ("batch_norm",)
    first_sum = next(box for box in found if box.kind == "merge")
    assert [found[i].title for i in first_sum.inputs] == ["layer1.0.conv2", "conv1"]
    assert first_sum.joined == ("relu",)
    assert by_title["fc"].inputs == (kinds.index("pool"),)


class Mixed(nn.Module):
    """A functional convolution, a module used twice, shape changes, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3, 1, 1))
        self.twice = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.twice(torch.relu(nn.functional.conv2d(x, self.kernel)))
        y = self.twice(y).flatten(2).reshape(x.shape) * torch.ones(1)
        return torch.cat([x, y], 1).mean((2, 3))


@pytest.mark.slow
def test_functions_and_modules_used_twice(tmp_path: Path) -> None:
    model = Mixed()
    found = boxes(trace(model, IMAGES), model)
    titles = [box.title for box in found]
    assert titles == ["input", "kernel", "twice", "twice", "mul", "cat", "mean"]
    assert found[1].joined == ("relu",)
    assert [found[4].inputs, found[5].inputs] == [(3,), (0, 4)]
    draw(model, IMAGES, tmp_path / "mixed.svg")
    assert texts(tmp_path / "mixed.svg").count("twice") == 2


@pytest.mark.slow
def test_a_title_takes_a_line_above_the_picture() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    steps = boxes(trace(model, torch.zeros(1, 4)), model)
    plain, named = (_Drawing(steps, title).figure for title in ("", "n"))
    assert named.get_figheight() - plain.get_figheight() == pytest.approx(0.35)
    low, high = plain.axes[0].get_ylim()
    assert named.axes[0].get_ylim() == pytest.approx((low, high - 0.35))
    assert low - high == pytest.approx(plain.get_figheight())
    wide = _Drawing(steps, "a title that is wider than all that stands below it, and far").figure
    assert wide.get_figwidth() > named.get_figwidth()


def test_a_corner_is_a_curve_no_wider_than_half_of_its_arms() -> None:
    move, line, curve = (int(code) for code in (Line.MOVETO, Line.LINETO, Line.CURVE3))
    radius = _CORNER
    long = [(0.0, 0.0), (4.0, 0.0), (10.0, 0.0), (10.0, 10.0)]  # the second goes straight on
    vertices, codes = _rounded(long)
    wanted = [(0.0, 0.0), (10 - radius, 0.0), (10.0, 0.0), (10.0, radius), (10.0, 10.0)]
    assert np.allclose(vertices, wanted, rtol=0, atol=1e-9)
    assert codes == [move, line, curve, curve, line]
    short = [(0.0, 0.0), (0.0, -0.5 * radius), (-8.0, -0.5 * radius)]
    vertices, _ = _rounded(short)
    half = 0.25 * radius
    assert np.allclose(vertices[1:4], [(0.0, -half), (0.0, -2 * half), (-half, -2 * half)], rtol=0, atol=1e-9)
    assert _rounded([(0.0, 0.0), (0.0, 5.0)]) == ([(0.0, 0.0), (0.0, 5.0)], [move, line])


def test_a_name_that_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in .png or .svg"):
        draw(models.create("simplenet_cifar", 10), IMAGES, tmp_path / "net.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["inception_v3", "densenet121", "vit_b_16", "swin_t", "word_lang_model"])
def test_large_networks(arch: str, tmp_path: Path) -> None:
    if arch not in models.names():
        pytest.skip(f"{arch} is not on the menu")
    model = models.create(arch, models.default_num_classes(arch))
    draw(model, models.example_input(arch), tmp_path / "net.svg", arch)
    assert len(texts(tmp_path / "net.svg")) > 5


@pytest.mark.slow
def test_drawing_needs_no_program_and_no_window(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "import torch\n"
        "from raydistill.compression import summaries\n"
        "assert 'matplotlib' not in sys.modules\n"
        "os.environ['PATH'] = ''\n"
        "summaries.draw(torch.nn.Linear(2, 2), torch.zeros(1, 2), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = tmp_path / "net.png"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.exists()
