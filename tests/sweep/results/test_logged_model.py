"""What MLflow is given of a checkpoint, for a front's member and a single run alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydistill.errors import CheckpointError
from raydistill.sweep.results.logged_model import delivered
from raydistill.tasks.classification import Classification
from raydistill.tracking.models import export
from raydistill.training import evaluate_checkpoint
from tests.export.conftest import CLASSES, SEEN, keep
from tests.sweep.sessions import epoch, finished, with_test


class Images:
    """A classification task of which only two validation images are asked for."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def wanted_by(self, weights: Any) -> Images:
        return self

    def feed(self, split: str, loading: Any) -> Images:
        assert (split, loading.batch_size) == ("validation", 2)
        return self

    def epoch(self, number: int) -> Any:
        return iter([(self.images, torch.zeros(2))])

    def inputs(self, batch: Any) -> Any:
        return batch[:-1]

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 3, 32, 32),)


class Told:
    def log_model(self, *said: Any) -> str:
        self.said = said
        return "member"


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_it_is_thinned_with_its_preprocessing_and_what_it_costs(tmp_path: Path) -> None:
    path = keep(tmp_path / "checkpoint.pt", "simplenet_cifar", multi_label=True)
    found = delivered(Images(IMAGES), path)  # type: ignore[arg-type]
    assert found is not None
    np.testing.assert_array_equal(found.example, IMAGES)
    dense = delivered(Images(IMAGES), keep(tmp_path / "dense.pt", "simplenet_cifar", 0.0))  # type: ignore[arg-type]
    assert dense is not None
    assert found.figures["macs"] < 0.8 * dense.figures["macs"]
    log, record = Told(), with_test(finished("t0000", 0.8, 0.5))
    assert record.last is not None
    assert found.log(log, "t0000", record.last, record.test, {"lr": 0.1}) == "member"  # type: ignore[arg-type]
    run, model, example, metrics, params, about = log.said
    assert (run, model, example is found.example) == ("t0000", found.network.model, True)
    assert metrics == {"top1": 0.8, "top5": 0.9, "loss": 1.0, "sparsity": 0.5, "test_top1": 0.5, "test_top5": 0.9,
                       "test_loss": 1.0}  # fmt: skip
    assert params == {"lr": 0.1, "deployed": found.changes}
    assert "removed" in found.changes
    seen = {**SEEN, "resize": None, "interpolation": "bilinear", "channels": "rgb"}
    assert {**about, "preprocessing": {**seen, **about["preprocessing"]}} == {
        "preprocessing": seen, "classes": CLASSES, "multi_label": True, "deployed": found.changes,
    }  # fmt: skip
    found.log(log, "", epoch(0), None, {})  # type: ignore[arg-type]
    assert "test_top1" not in log.said[3]


@pytest.mark.slow  # torch.export, and all test images as a server has them
def test_the_served_model_is_right_on_the_images_that_the_table_says(
    trained: Path, task: Classification, tmp_path: Path
) -> None:
    """Raw pixels through the logged preprocessing, to the image."""
    import mlflow

    found = delivered(task, trained)
    assert found is not None
    export(found.network.model, found.example, tmp_path / "model", found._about)
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    data = task.dataset
    right = (served.predict({"image": data.test_images}).argmax(1) == data.test_labels).mean()
    assert right == pytest.approx(evaluate_checkpoint(trained, task, "test", "cpu").metrics["top1"], abs=1e-9)
    (best,) = served.predict({"image": data.test_images[:1]}, params={"top": 1})[0]
    assert best["class"] in [str(digit) for digit in range(10)]


@pytest.mark.slow
def test_what_is_called_with_lists_is_none(tmp_path: Path) -> None:
    path = keep(tmp_path / "checkpoint.pt", "simplenet_cifar")
    assert delivered(Images([IMAGES[0], IMAGES[1]]), path) is None  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(CheckpointError):
        delivered(Images(IMAGES), tmp_path / "checkpoint.pt")  # type: ignore[arg-type]
