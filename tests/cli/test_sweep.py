"""What a cluster's machines say once, in their environment, need not be said with each sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.cli.sweep import _how_to_open
from tests.cli.conftest import Ended

SPACE = Path(__file__).parents[2] / "search_spaces" / "simplenet.yaml"
Command = Callable[..., Ended]


def test_the_storage(raydistill: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYDISTILL_STORAGE", str(tmp_path / "shared"))
    dry = ["sweep", SPACE, "--dry-run", "--dataset", "digits", "--num-samples", "2"]
    assert f"{tmp_path}/shared/simplenet\n" in raydistill(*dry).out
    assert f"{tmp_path}/own/simplenet\n" in raydistill(*dry, "--storage", tmp_path / "own").out  # what is typed wins


def test_a_server_is_named_and_not_opened() -> None:
    assert _how_to_open("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert _how_to_open("sqlite:////data/mlflow.db") == "mlflow ui --backend-store-uri sqlite:////data/mlflow.db"
