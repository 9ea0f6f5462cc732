"""A pruned detector is thinned, costs less, and MLflow serves the boxes that the masked network finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.datasets import DatasetConfig
from raydistill.schedule import parse_schedule
from raydistill.sweep.results.logged_model import delivered
from raydistill.tasks import TaskConfig
from raydistill.tasks.detection import Detection
from raydistill.tracking import SweepLog
from raydistill.training import RunConfig, fit, load_model
from raydistill.training.footprint import footprint
from tests.tasks.detection.shapes import write

NET = "tests.tasks.detection.shapes:small"
FILTERS = parse_schedule({
    "pruners": {"p": {
        "class": "L1RankedStructureParameterPruner_AGP", "initial_sparsity": 0.2, "final_sparsity": 0.5,
        "group_type": "Filters", "weights": ["backbone.0.weight", "backbone.3.weight"],
    }},
    "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}],
}, "filters")  # fmt: skip
ASK = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict({"image": [open(sys.argv[2], "rb").read()]}, params={"score": 0.05})))
assert "raydistill" not in sys.modules
"""


@pytest.mark.slow  # trains, and exports to ONNX
def test_a_pruned_detector_is_served_as_it_is_thinned(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    root = write(tmp_path / "shapes", {"train": 40, "val": 8})
    config = RunConfig(
        NET, DatasetConfig(data_dir=str(root)), task=TaskConfig("detection"), epochs=6, batch_size=4, lr=0.05,
        threads=1, out_dir=str(tmp_path / "run"), tensorboard=False, device="cpu", schedule=FILTERS,
    )  # fmt: skip
    task = Detection(str(root))
    (*_, last) = fit(config, task=task)
    path = tmp_path / "run/checkpoint.pt"
    found = delivered(task, path, NET)
    assert found is not None
    thin = found.network.network_itself  # one filter of each stays for what meets the padding behind it
    assert [thin.backbone[i].out_channels for i in (0, 3, 6)] == [9, 17, 32]  # type: ignore[index,union-attr]
    costs, dense = footprint(path, task, arch=NET), tmp_path / "dense"
    list(fit(replace(config, schedule=None, epochs=1, out_dir=str(dense)), task=task))
    whole = footprint(dense / "checkpoint.pt", task, arch=NET)
    assert costs["macs"] < whole["macs"]
    assert costs["size_bytes"] < whole["size_bytes"]
    log = SweepLog(None, tmp_path / "store", "shapes", "sweep-1")
    log.start()
    found.log(log, "", last, None, {})
    assert log.finish() == 0
    assert log.errors == []
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/store/mlflow.db")
    (logged,) = client.search_logged_models([e.experiment_id for e in client.search_experiments()])
    image = next((root / "val").glob("*.png"))
    (tmp_path / "away/raydistill").mkdir(parents=True)
    (tmp_path / "away/raydistill/__init__.py").write_text("raise ImportError('raydistill is not here')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "away")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, logged.artifact_location, str(image)], env=environment, text=True,
        capture_output=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (boxes,) = json.loads(done.stdout.strip().splitlines()[-1])
    from PIL import Image

    pixels = torch.from_numpy(np.asarray(Image.open(image), dtype=np.float32) / 255).permute(2, 0, 1)
    with torch.no_grad():
        (expected,) = load_model(path, NET).eval()([pixels])  # the masked network, full width
    sure = expected["scores"] >= 0.05
    assert len(boxes) == int(sure.sum()) > 0
    order = expected["scores"].argsort(descending=True, stable=True)[: len(boxes)]
    torch.testing.assert_close(torch.tensor([b["score"] for b in boxes]), expected["scores"][order], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor([b["box"] for b in boxes]), expected["boxes"][order], atol=1e-2, rtol=0)
    assert {box["class"] for box in boxes} <= {"bar", "square"}
