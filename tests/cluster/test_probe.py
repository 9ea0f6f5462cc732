"""What a machine says of itself, and what it leaves behind: nothing."""

from __future__ import annotations

import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from raydistill import __version__
from raydistill.cluster.probe import Probe, _read, autoscaler, facts, versions


def test_versions_are_those_of_the_installed_packages() -> None:
    found = versions()
    assert found == {
        "python": platform.python_version(),
        "ray": version("ray"),
        "torch": version("torch"),
        "raydistill": __version__,
    }
    before = time.time_ns()
    assert before <= Probe().clock() <= time.time_ns()


def test_what_it_wrote_it_takes_back_with_the_folders_it_made(tmp_path: Path) -> None:
    probe, folder = Probe(), str(tmp_path / "a" / "b")
    assert probe.read(folder, "x") is None
    assert probe.write(folder, "x", b"content") == ""
    assert probe.read(folder, "x") == b"content"
    assert probe.free(folder) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    probe.remove(folder, "x")
    assert list(tmp_path.iterdir()) == []
    assert probe.free(str(tmp_path / "not" / "there")) > 0


def test_a_folder_that_was_there_stays_and_one_that_cannot_be_is_said(tmp_path: Path) -> None:
    probe = Probe()
    assert probe.write(str(tmp_path), "x", b"") == ""
    probe.remove(str(tmp_path), "x")
    assert tmp_path.is_dir()
    (tmp_path / "file").write_text("")
    assert probe.write(str(tmp_path / "file" / "below"), "x", b"") == "file exists"
    assert (tmp_path / "file").read_text() == ""


def test_an_autoscalers_file_is_read_as_far_as_it_is_of_use(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "cluster_name: x\nhead_node_type: h\nmax_workers: 3\n"
        "available_node_types:\n  h: {resources: {CPU: 2}, node_config: {secret: 1}}\n  w: {max_workers: 2}\n"
    )
    types = {"h": {"resources": {"CPU": 2}}, "w": {"max_workers": 2}}
    assert _read(str(file)) == {"available_node_types": types, "head_node_type": "h", "max_workers": 3}
    file.write_text("max_workers: 3\n")
    assert _read(str(file)) is None
    assert _read(str(tmp_path / "none")) is None


def test_without_an_autoscaler_there_is_none() -> None:
    assert autoscaler("1") is None
    assert facts("1")["autoscaler"] is None
    assert facts("1")["versions"] == versions()
