"""MLflow beside a bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.storage import open_store
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.record import tracking_place
from raydistill.sweep.record.tracking_place import check_tracking, mlflow_files

WriteSweep = Callable[..., Path]
BUCKET = "s3://bucket/sweeps?region=us-east-1"


def test_a_folder_needs_nothing(write_sweep: WriteSweep, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep())
    check_tracking(sweep, open_store(tmp_path))
    assert mlflow_files(sweep, open_store(tmp_path)) == {}


def test_a_bucket_needs_a_server_or_a_word(write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = write_sweep(), open_store(BUCKET)
    with pytest.raises(ConfigError, match=r"--tracking-uri: is needed: with --storage s3://bucket/sweeps a"):
        check_tracking(load_sweep(file), store)
    database = load_sweep(file, Overrides(tracking_uri="postgresql://host/mlflow"))
    check_tracking(database, store)
    assert mlflow_files(database, store)["artifacts"] == "s3://bucket/sweeps/tiny/mlartifacts"
    monkeypatch.setattr(tracking_place, "find_spec", lambda name: None)  # as where boto3 is not installed
    with pytest.raises(ConfigError, match=r"needs boto3 for that; pip install boto3, or name an MLflow server"):
        check_tracking(database, store)
    check_tracking(load_sweep(file, Overrides(tracking_uri="http://host:5000")), store)
