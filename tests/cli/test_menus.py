"""The lists of what can be named."""

from __future__ import annotations

from collections.abc import Callable

from raydistill.models import MENU
from raydistill.tasks import MENU as TASKS
from tests.cli.conftest import Ended

Command = Callable[..., Ended]


def test_every_network_is_listed_once(raydistill: Command) -> None:
    ended = raydistill("models")
    assert [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")] == list(MENU)
    assert max(map(len, ended.out.splitlines())) <= 80


def test_a_pattern_and_what_matches_none(raydistill: Command) -> None:
    lines = raydistill("models", "simple*").out.splitlines()
    assert [line.split() for line in lines] == [["simplenet_cifar", "3x32x32"]]
    ended = raydistill("models", "simplenet")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: PATTERN: matches no network, got 'simplenet'; did you mean 'simplenet_cifar'?\n"


def test_every_task_is_listed_with_its_metrics(raydistill: Command) -> None:
    lines = raydistill("tasks").out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(TASKS)
    assert any("top1 (max), top5 (max), loss (min)" in line for line in lines)
    assert max(map(len, lines)) <= 80
