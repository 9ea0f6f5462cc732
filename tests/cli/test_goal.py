"""``raydistill sweep --goal``: the file that it writes, and what it does not take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Ended

pytestmark = pytest.mark.slow

Command = Callable[..., Ended]
GOAL = ("--goal", "compressed_size_bytes <= 0.2x", "--arch", "simplenet_cifar", "--dataset", "digits")
FILE = Path("simplenet_cifar_compressed_size_bytes.yaml")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_says_what_would_be_and_writes_nothing(raydistill: Command) -> None:
    said = raydistill("sweep", *GOAL, "--dry-run", "--num-samples", 5).out
    assert "constraints: compressed_size_bytes <= 0.2x" in said
    assert "aliases:     goal: best top1" in said
    assert "trials:      5 of 60 epochs" in said
    assert list(Path().iterdir()) == []


def test_init_writes_the_same_space(raydistill: Command) -> None:
    assert raydistill("init", *GOAL, "-o", FILE).code == 0
    written = yaml.safe_load(FILE.read_text())
    assert written["constraints"] == ["compressed_size_bytes <= 0.2x"]
    assert written["search"]["per_layer"][0] == {"weights": ["conv1.weight"], "final_sparsity": {"uniform": [0.0, 0.9]}}
    refused = raydistill("sweep", *GOAL)
    assert refused.code == 2
    assert refused.err.strip() == (
        f"error: --goal: {FILE} is there already; raydistill sweep {FILE} runs it; --name NAME writes another"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "error: FILE: there is no sweep file; name one, as search_spaces/simplenet.yaml, or say what is wanted"),
        (("space.yaml", *GOAL[:2]), "error: --goal: takes the place of a file, got 'space.yaml'; keep one"),
        (("space.yaml", "--arch", "simplenet_cifar"), "error: --arch: is for --goal; say it in the file"),
        (("space.yaml", "--from", "dense.pt"), "error: --from: is for --goal; say it in the file"),
        (GOAL[:2], "error: --arch: is missing; name the network"),
        (("--goal", "macs <= half", *GOAL[2:]), "error: --goal[0]: the bound must be a number, got 'half'"),
    ],
)
def test_what_is_wrong_is_one_line(raydistill: Command, arguments: tuple[str, ...], line: str) -> None:
    ended = raydistill("sweep", *arguments)
    assert ended.code == 2
    assert ended.err.startswith(line)
    assert len(ended.err.splitlines()) == 1
