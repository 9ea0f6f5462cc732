"""What the command line says of pruning after training."""

from __future__ import annotations

from raydistill.parts import OneShot, names, settings
from raydistill.parts.setting import Role


def test_nothing_that_is_kept_depends_on_it_and_every_option_says_what_it_is_for() -> None:
    assert names(OneShot, Role.FREE) == tuple(field.name for field in settings(OneShot))
    assert all(str(field.setting.option).startswith("one-shot") for field in settings(OneShot))
