"""A user's own figure of the network: measured with the others, and what fails is a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.errors import ConfigError, TrainingError
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit
from raydistill.training.footprint import footprint
from tests.tasks.own import Line

OWN = "tests.training.own:"
NET = "tests.tasks.own:net"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    half = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": ["0.weight"]}
    policy = {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
    run = RunConfig(
        NET, epochs=1, batch_size=32, lr=0.02, out_dir=str(tmp_path_factory.mktemp("run")), threads=1, device="cpu",
        tensorboard=False, task=TaskConfig("tests.tasks.own:Line"),
        schedule=parse_schedule({"version": 1, "pruners": {"p": half}, "policies": [policy]}, "s"),
    )  # fmt: skip
    *_, last = fit(run)
    return Path(str(last.checkpoint))


def test_it_stands_beside_the_others(checkpoint: Path) -> None:
    figures = footprint(checkpoint, Line(), arch=NET, own=[f"{OWN}ENERGY"])
    assert list(figures) == ["macs", "bops", "parameters", "size_bytes", "compressed_size_bytes", "energy_nj"]
    assert figures["energy_nj"] == pytest.approx(0.64 * (24 + 8))  # half of the first layer's 48, all of the second


def test_what_it_does_to_its_model_is_done_to_a_copy(checkpoint: Path) -> None:
    alone = footprint(checkpoint, Line(), arch=NET, own=[f"{OWN}ENERGY"])
    both = footprint(checkpoint, Line(), arch=NET, own=[f"{OWN}CLASSES", f"{OWN}ENERGY"])
    assert both["classes"] == 1
    assert both["energy_nj"] == alone["energy_nj"] > 0


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("FAILS", TrainingError, "figure fails: fails (ZeroDivisionError: division by zero)"),
        ("NO_NUMBER", TrainingError, "figure none: must be a finite number, got nan"),
        ("of_reading", ConfigError, "is not a NetworkFigure, got 'tests.training.own:of_reading'"),
    ],
)
def test_what_fails_is_one_line(checkpoint: Path, name: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as caught:
        footprint(checkpoint, Line(), arch=NET, own=[OWN + name])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
