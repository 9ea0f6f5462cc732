"""A real sweep whose constraints nothing keeps, and what becomes of it when they are loosened and tightened again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.records import BASELINE

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_constraints_decide_what_is_registered(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path, spared: None
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/sweeps/tiny/mlflow.db")

    def aliases() -> dict[str, object]:
        return {
            alias: version for model in client.search_registered_models() for alias, version in model.aliases.items()
        }

    own = {"dense-most": {"best": "top1", "where": "sparsity >= 0.01"}, "none": {"where": ["sparsity >= 0.9999"]}}
    write_sweep(("num_samples", 2), ("constraints", ["sparsity >= 0.999"]), ("aliases", own))
    shown = sweep_here("space.yaml", "--cpu")
    assert "no trial meets every constraint, the front is empty, and no model is registered: loosen them" in shown
    assert "models:/" not in shown
    assert aliases() == {}

    write_sweep(("num_samples", 2), ("constraints", ["sparsity >= 0.01"]), ("aliases", own))
    shown = sweep_here("space.yaml", "--cpu", "--resume")
    assert "models:/tiny@pareto-knee" in shown
    assert set(aliases()) == {"pareto-knee", "pareto-max-top1", "pareto-max-sparsity", "dense-most"}
    assert aliases()["dense-most"] == aliases()["pareto-max-top1"]
    assert "dense-most   models:/tiny@dense-most\n" in shown
    assert "warning: alias none: no trial meets sparsity >= 0.9999; nearest: t000" in shown
    assert "raydistill pick tiny --knee -o tiny-t000" in shown
    assert "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=front-" in shown
    run = client.get_run(client.search_model_versions("name = 'tiny'")[0].run_id)
    assert run.data.tags["raydistill.trial_id"] != BASELINE
    assert (run.data.tags["pareto"], run.data.tags["feasible"]) == ("true", "true")

    (model,) = client.search_registered_models()
    client.set_registered_model_alias("tiny", "by-hand", model.aliases["dense-most"])
    write_sweep(("num_samples", 2), ("constraints", ["sparsity >= 0.999"]), ("aliases", own))
    assert "models:/" not in sweep_here("space.yaml", "--cpu", "--resume")
    assert set(aliases()) == {"by-hand"}, "what was feasible once is not now, and nobody else's is taken"
