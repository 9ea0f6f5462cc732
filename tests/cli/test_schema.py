"""``raydistill schema``: what it prints is a schema, also in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import Ended

Command = Callable[..., Ended]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweep", "schedule", "run"])
def test_it_is_printed_and_nothing_else(raydistill: Command, kind: str) -> None:
    ended = raydistill("schema", kind)
    assert (ended.code, ended.err) == (0, "")
    schema = json.loads(ended.out)
    Draft202012Validator.check_schema(schema)
    assert schema["title"].startswith("raydistill")


@pytest.mark.slow
def test_it_is_written(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "schedule.schema.json"
    ended = raydistill("schema", "schedule", "-o", file)
    assert (ended.code, ended.err) == (0, "")
    assert f"# yaml-language-server: $schema={file}" in ended.out
    assert json.loads(file.read_text()) == json.loads(raydistill("schema", "schedule").out)
    assert raydistill("schema", "schedule", "-o", tmp_path).err.count("\n") == 1


def test_another_kind_is_one_that_there_is_not(raydistill: Command) -> None:
    ended = raydistill("schema", "sweeps")
    assert ended.code == 2
    assert "'sweeps' is not one of" in ended.err
