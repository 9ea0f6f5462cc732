"""MLflow is imported where it is first needed, by whichever thread needs it first."""

from __future__ import annotations


def import_mlflow() -> None:
    """Before any import of a part of it, as ``mlflow.models``: the whole imports its parts, so a thread that begins
    with the whole and one that begins with a part wait for each other, and Python hands both what is half there."""
    import mlflow  # noqa: F401
