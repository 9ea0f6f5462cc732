"""What a file names is looked up, and nothing of it is called."""

from __future__ import annotations

import abc
import subprocess
import sys
from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.resolve import resolve, resolve_class


class Base(abc.ABC):
    @abc.abstractmethod
    def act(self) -> None: ...


class Acting(Base):
    def act(self) -> None: ...


@pytest.mark.parametrize(
    "name", ["os:system", "os:getcwd", "builtins:exec", "builtins:int", "os.path:sep", "collections:OrderedDict"]
)
def test_only_a_class_of_the_right_base_is_given_back(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"f\.yaml: x\.class: is not a Base, got '{name}'; name a class that is"):
        resolve_class(name, {}, Base, "f.yaml: x.class", "thing")


def test_one_that_cannot_be_built_is_none() -> None:
    with pytest.raises(ConfigError, match="is abstract, it lacks act"):
        resolve_class("Base", {"Base": Base}, Base, "w", "thing")
    assert resolve_class("Acting", {"Acting": Acting}, Base, "w", "thing") is Acting


def test_a_module_that_ends_the_process_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving.py").write_text("import sys; sys.exit('bye')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot import thing \(SystemExit: bye\)"):
        resolve("leaving:x", {}, "w", "thing")


HIDING = ("yaml", "queue", "json", "statistics", "torch", "rich", "typer", "numpy", "secrets")


@pytest.mark.slow  # a process that imports torch
@pytest.mark.parametrize("how", ["console script", "module"])
def test_a_file_in_the_working_folder_hides_no_library(tmp_path: Path, how: str) -> None:
    for name in HIDING:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder')\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef small(num_classes=10): return nn.Linear(4, num_classes)\n"
    )
    start = "import sys; sys.path[:] = [p for p in sys.path if p]; from raydistill.cli.main import run; run()"
    words = ["summary", "modules", "--arch", "net:small"]
    command = [sys.executable, "-c", start, *words]
    if how == "console script":
        command = [str(Path(sys.executable).with_name("raydistill")), *words]
        if not Path(command[0]).exists():
            pytest.skip("the package is not installed")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Linear" in ended.stdout
