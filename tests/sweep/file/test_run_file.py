"""A run file: the sections of a sweep file, with the same checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.sweep.file.run_file import load_run
from tests.cli.test_run_file import FILE


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"modle": {}}, "run.yaml: modle: unknown key; did you mean 'model'?"),
        ({"training": {"epochs": -1}}, "run.yaml: training.epochs: must be at least 0, got -1"),
        ({"training": {"optimizer": {"name": "Adan"}}}, "run.yaml: training.optimizer.name: unknown optimizer"),
        ({"schedule": "gone.yaml"}, "run.yaml: schedule: no such schedule file, got 'gone.yaml'"),
        ({"schedule": {"pruner": {}}}, "run.yaml: schedule.pruner: unknown"),
        ({"train": "train"}, "run.yaml: train"),
        ({"search": {}}, "run.yaml: is a sweep file (it has 'search'), and a run file is wanted"),
    ],
)
def test_what_is_wrong_is_one_line(changed: dict[str, Any], line: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**FILE, **changed}))
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path / "run.yaml")
    assert len(str(caught.value).splitlines()) == 1
    assert line in str(caught.value)
