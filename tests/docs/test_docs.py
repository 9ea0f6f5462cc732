"""The documentation: it is built strictly, its commands and code are right, its figures have commands."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import raydistill
from raydistill.cli.main import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))
READ = ["README.md", "CONTRIBUTING.md", *PAGES]
SET_UP = (
    "    pip install -e . && raydistill sweep search_spaces/simplenet.yaml\n",
    "    pip install -e '.[test]' && pytest\n",
)
HOSTS = ("127.0.0.1", "HOST:5000", "HEAD:5000")
"""Of addresses in commands; pages link to nothing outside."""


def blocks(page: str, *languages: str) -> Iterator[str]:
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        if language in languages:
            yield content


def commands(page: str) -> Iterator[list[str]]:
    """The words of each of our commands that a page tells a reader to type."""
    told = list(blocks(page, "bash"))
    told += re.findall(r"^    (.*)$", (ROOT / page).read_text(), re.MULTILINE) if page in READ[:2] else []
    for block in told:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                words = words[words.index("--") + 1 :] if words[:3] == ["ray", "job", "submit"] else words
                if words[:1] == ["raydistill"]:
                    yield words[1:]


@pytest.mark.slow  # a process that reads the whole package
def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra 'docs' is not installed: {', '.join(missing)}")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    sweep_file = (tmp_path / "site/reference/sweep-file/index.html").read_text()
    schedule_file = (tmp_path / "site/reference/schedule-file/index.html").read_text()
    from raydistill.compression.build import MENUS
    from raydistill.sweep.file.spec import SweepSections

    for key in SweepSections.model_fields:
        assert f"<code>{key}</code>" in sweep_file
    for _, menu in MENUS.values():
        for name in menu:
            assert f'id="{name.lower()}"' in schedule_file
    python = (tmp_path / "site/reference/python/index.html").read_text()
    for name in raydistill.__all__:
        assert f".{name}" in python
    tutorial = (tmp_path / "site/tutorial/index.html").read_text()
    assert "Pareto front: digits" in tutorial
    commands_page = (tmp_path / "site/reference/commands/index.html").read_text()
    assert "--write-space" in commands_page
    own = (tmp_path / "site/how-to/own-loop/index.html").read_text()
    assert "trial.epochs_left" in re.sub(r"<[^>]+>", "", own), "the example's code is in the page"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    found = re.findall(r"[\w/-]+\.md", str(nav))
    made = {"reference/sweep-file.md", "reference/schedule-file.md", "reference/commands.md", "reference/python.md"}
    assert {page.removeprefix("docs/") for page in PAGES} | made == set(found)


@pytest.mark.slow
@pytest.mark.parametrize("page", READ)
def test_commands_are_known_to_the_command_line(page: str) -> None:
    group: Any = typer.main.get_command(app)
    for words in commands(page):
        if words[0].startswith("-"):
            continue
        assert words[0] in group.commands, words
        group.commands[words[0]].make_context(words[0], list(words[1:]))


def test_there_are_commands_to_check() -> None:
    assert sum(len(list(commands(page))) for page in READ) >= 20


@pytest.mark.parametrize("page", READ)
def test_code_and_files_in_pages_are_right(page: str) -> None:
    for code in blocks(page, "python"):
        if "--8<--" not in code:
            ast.parse(code)
    for text in blocks(page, "yaml"):
        if "--8<--" not in text:
            assert isinstance(yaml.safe_load(text), dict)
    for included in re.findall(r'--8<-- "(.+)"', (ROOT / page).read_text()):
        assert (ROOT / included).is_file()


@pytest.mark.parametrize("page", READ)
def test_what_a_page_names_is_there(page: str) -> None:
    """Files of the repository, and links between pages; those made of the code are checked by the build."""
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        made = "reference/" in link
        assert made or ((ROOT / page).parent / link).is_file(), link
    for name in re.findall(
        r"`((?:examples|benchmarks|search_spaces|schedules|notebooks|tests)/[a-z0-9_./-]*[a-z0-9])`", text
    ):
        assert (ROOT / name).exists(), name
    for address in re.findall(r"https?://([^\s/`)]+)", text):
        assert address in HOSTS or address.partition(":")[0] in HOSTS, address


def test_every_measured_figure_has_a_command_that_is_there() -> None:
    page = (DOCS / "results.md").read_text()
    for section in page.split("\n## ")[1:]:
        command = re.search(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        assert command is not None, section.splitlines()[0]
        script = re.match(r"python (benchmarks/\w+\.py)", command[1])
        assert script is None or (ROOT / script[1]).is_file()
        assert script is not None or command[1].startswith("raydistill ")
        first_figure = re.search(r"```text", section)
        assert first_figure is None or first_figure.start() > command.end()


def test_readme_is_a_screen_with_the_two_commands_that_set_up() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 75
    for command in SET_UP:
        assert command in text
    ci = (ROOT / ".ci" / "run").read_text()
    assert "raydistill sweep search_spaces/simplenet.yaml" in ci
    assert "pip install -q -e '.[test]' && pytest" in ci


def test_citation_and_package_say_the_same() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert citation["version"] == raydistill.__version__
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    (author,) = citation["authors"]
    assert f'authors = [{{name = "{author["name"]}"}}]' in project
