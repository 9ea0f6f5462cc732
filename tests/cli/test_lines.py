"""Lines on a terminal break between words; elsewhere a fault is one line."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from raydistill.cli.lines import by_words, told, warn

TEXT = (
    "a.yaml: search.per_layer[0].weights[0]: no weight of the model matches, got 'conv9*'; did you mean 'conv2.weight'?"
)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_words_and_paths_stay_whole(width: int) -> None:
    path = "/a/very/long/path/that/is-not-to-be-broken/" + "x" * 60
    lines = by_words(f"{TEXT} {path}", width).splitlines()
    assert " ".join(line.strip() for line in lines) == f"{TEXT} {path}"
    assert all(len(line) <= width or path in line for line in lines)


def test_elsewhere_it_is_one_line() -> None:
    stream = io.StringIO()
    assert told(TEXT, stream) == TEXT
    warn(Console(file=stream, width=40), TEXT)
    assert stream.getvalue() == f"warning: {TEXT}\n"


def test_a_warning_on_a_terminal() -> None:
    stream = io.StringIO()
    warn(Console(file=stream, width=50, force_terminal=True, color_system=None), TEXT)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 50


@pytest.mark.slow  # a process that imports torch
def test_an_error_of_a_command_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    """In a real terminal's stead: a pseudo-terminal."""
    file = tmp_path / "a_rather_long_name_of_a_schedule.yaml"
    file.write_text("pruners: {agp: {class: AutomatedGradualPrunner, final_sparsity: 0.5}}\nsearhc: {}\n")
    program = "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"
    parent, child = pty.openpty()
    command = [sys.executable, "-c", program, "check", file.name, "--arch", "simplenet_cifar"]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, cwd=tmp_path, env=environment, check=False)
    os.close(child)
    shown = os.read(parent, 1 << 16).decode().replace("\r\n", "\n")
    os.close(parent)
    assert ended.returncode == 2
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    told_in_one = "error: a_rather_long_name_of_a_schedule.yaml: searhc: unknown section; use one of: extensions,"
    assert told_in_one in " ".join(line.strip() for line in lines)
