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


def test_what_is_written_there_and_nothing_else_is_passed_on(tmp_path: Path) -> None:
    said = {
        "model": {"arch": "simplenet_cifar"}, "dataset": {"name": "digits", "data_dir": "data"}, "seed": 3,
        "training": {"epochs": 2, "optimizer": {"name": "AdamW", "clip_norm": 1.0}},
    }  # fmt: skip
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(said))
    run = load_run(file)
    found = run.said()
    assert found.pop("optimizer").name == "AdamW"
    assert found == {"epochs": 2, "name": "digits", "data_dir": str(tmp_path / "data"), "seed": 3}
    assert run.optimizer == {"name": "AdamW", "clip_norm": 1.0}
    assert (run.file, run.schedule, run.sections.version) == (file, None, 1)


def test_what_is_left_out_is_not_said(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"model": {"arch": "simplenet_cifar"}}))
    run = load_run(file)
    assert run.said() == run.optimizer == {}
    assert (run.sections.seed, run.sections.name) == (0, None)
    file.write_text(yaml.safe_dump({"version": 2, "model": {"arch": "simplenet_cifar"}}))
    with pytest.raises(ConfigError, match="version"):
        load_run(file)


def test_a_schedule_stands_there_or_in_a_file_beside_it(tmp_path: Path) -> None:
    policy = {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    decay = {"class": "CosineAnnealingLR", "T_max": 3}
    schedule = {"version": 1, "lr_schedulers": {"decay": decay}, "policies": [policy]}
    (tmp_path / "decay.yaml").write_text(yaml.safe_dump(schedule))
    found = []
    for said in (schedule, "decay.yaml"):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({"model": {"arch": "simplenet_cifar"}, "schedule": said}))
        loaded = load_run(tmp_path / "run.yaml").schedule
        assert loaded is not None
        found.append(dict(loaded.mapping))
    assert found[0] == found[1]
    assert found[0]["lr_schedulers"] == {"decay": decay}
