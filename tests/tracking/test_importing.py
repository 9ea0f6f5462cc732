"""MLflow is imported once, whichever threads want it."""

from __future__ import annotations

import subprocess
import sys

import pytest

TWO_THREADS = """
import threading, time
from raydistill.tracking.importing import import_mlflow

def first():
    import_mlflow()
    from mlflow import MlflowClient

thread = threading.Thread(target=first)
thread.start()
time.sleep(0.3)
import_mlflow()
from mlflow.models import ModelSignature
thread.join()
print("both have it")
"""


@pytest.mark.slow
def test_two_threads_that_want_it_at_once_both_get_it() -> None:
    """Where either begins with a part of it, MLflow 3 raises in both."""
    ended = subprocess.run([sys.executable, "-c", TWO_THREADS], capture_output=True, text=True, check=False)
    assert (ended.stdout, "Error" in ended.stderr) == ("both have it\n", False), ended.stderr
