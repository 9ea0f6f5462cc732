"""Shell completion, in a real bash: what TAB offers."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
sys.argv[0] = "raydistill"
from raydistill.cli.main import run
run()
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose first ``raydistill`` on the path is this one, installed for bash."""
    program = tmp_path / "bin" / "raydistill"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path, "TERM": "dumb", "COLUMNS": "80"}
    installed = subprocess.run(
        ["bash", "-c", "raydistill --install-completion; exit $?"],
        env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (installed.returncode, installed.stderr) == (0, "")
    assert "bash completion installed in" in installed.stdout
    assert (tmp_path / ".bashrc").read_text().count("raydistill.sh") == 1
    return environment


def offered(environment: dict[str, str], *words: str) -> list[str]:
    """What bash's completion function has for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source ~/.bashrc; COMP_WORDS=(raydistill {line}); COMP_CWORD={len(words)}; "
        "_raydistill_completion raydistill; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.slow
def test_commands_options_and_words_are_completed(home: dict[str, str]) -> None:
    assert offered(home, "swe") == ["sweep"]
    assert offered(home, "s") == ["sweep", "summary", "sensitivity", "schema"]
    assert offered(home, "sweep", "--num") == ["--num-samples"]
    assert offered(home, "schema", "") == ["sweep", "schedule", "run"]
    assert offered(home, "sensitivity", "--sense", "f") == ["filter"]
    assert {"--optimizer", "--optimizer-args"} <= set(offered(home, "compress", "--optimizer"))


@pytest.mark.slow
def test_tab_in_an_interactive_bash(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("{}")
    parent, child = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "-i"], stdin=child, stdout=child, stderr=child, env=home, cwd=tmp_path, start_new_session=True
    )
    os.close(child)
    try:
        _type(parent, "echo rea''dy\n", "ready")
        assert "raydistill sensitivity" in _type(parent, "raydistill sens\t", "sensitivity")
        _type(parent, "\x15echo rea''dy\n", "ready")
        assert "space.yaml" in _type(parent, "raydistill sweep spa\t", "space.yaml"), "files where no word is known"
    finally:
        shell.kill()
        shell.wait()
        os.close(parent)


def _type(terminal: int, keys: str, until: str, seconds: float = 60.0) -> str:
    """What the terminal shows after these keys, read until the text is there."""
    os.write(terminal, keys.encode())
    shown, end = "", time.monotonic() + seconds
    while until not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{until!r} never came: {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "raydistill swe"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "raydistill swe", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_the_other_shells(home: dict[str, str], tmp_path: Path, shell: str, asked: dict[str, str]) -> None:
    def said(environment: dict[str, str]) -> str:
        ended = subprocess.run(["raydistill"], env={**home, **environment}, capture_output=True, text=True, check=False)
        return ended.stdout

    script = said({"_RAYDISTILL_COMPLETE": f"source_{shell}"})
    assert f"_RAYDISTILL_COMPLETE=complete_{shell}" in script
    assert "sweep" in said({"_RAYDISTILL_COMPLETE": f"complete_{shell}", **asked})
    assert "sensitivity" not in said({"_RAYDISTILL_COMPLETE": f"complete_{shell}", **asked})
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
