"""A checkpoint on the test split, as a process of Ray's evaluates it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError
from raydistill.records import Evaluation
from raydistill.storage import open_store
from raydistill.sweep.planning.resources import Share
from raydistill.sweep.trial import evaluation
from raydistill.sweep.trial.evaluation import evaluate_on_test
from raydistill.tasks.classification import Classification
from raydistill.training import evaluate_checkpoint
from tests.export.conftest import keep

ARCH = "simplenet_cifar"


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The task itself in the place of its reference: there is no Ray here. torch's threads are put back."""
    monkeypatch.setattr(evaluation.ray, "get", lambda value: value)
    threads = torch.get_num_threads()
    yield [Classification(load(DatasetConfig("digits")))]
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_it_has_the_figures_and_the_threads_of_a_trial(shared: list[Any], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    checkpoint = keep(tmp_path / "checkpoint.pt", ARCH)
    found = evaluate_on_test(store.reference(checkpoint), store, shared, Share(3.5, 0.0), ARCH)
    assert isinstance(found, Evaluation)
    assert found == evaluate_checkpoint(checkpoint, shared[0], "test", "cpu")
    assert (found.split, found.samples) == ("test", 359)
    assert torch.get_num_threads() == 3


def test_what_is_damaged_or_gone_is_given_back_by_its_own_name(shared: list[Any], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (tmp_path / "spoilt.pt").write_bytes(b"nothing")
    for name in ("spoilt.pt", "gone.pt"):
        reference = store.reference(tmp_path / name)
        found = evaluate_on_test(reference, store, shared, Share(1.0, 0.0), ARCH)
        assert isinstance(found, CheckpointError)
        assert str(found).startswith(f"{reference}: ")


@pytest.mark.slow  # a process that imports torch
def test_its_process_imports_no_more_than_it_takes() -> None:
    heavy = ("ray.tune", "ray.train", "mlflow", "pandas", "raydistill.export", "raydistill.tracking")
    code = f"import sys, {evaluation.__name__}; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
