"""The parts of a training run: nothing is unsaid, and what is stored stays what it was."""

from __future__ import annotations

from raydistill.parts import settings
from raydistill.sweep.baseline import baseline_hash
from raydistill.sweep.file.spec import DatasetSection, TrainingSection
from raydistill.training import RunConfig


def test_every_field_of_the_parts_of_a_run_says_what_depends_on_it() -> None:
    own = {"arch", "dataset", "schedule", "strict", "distillation", "init_from", "continue_from", "model_args", "task",
           "train", "values"}  # fmt: skip
    described = {field.name for field in settings(RunConfig)}
    assert set(RunConfig.__dataclass_fields__) == described | own


def test_stored_hashes_stay_what_they_are() -> None:
    assert baseline_hash(RunConfig("simplenet_cifar"), "f") == "367cbbdc7dc95899"
    other = RunConfig("resnet20_cifar", epochs=3, lr=0.2, nesterov=True, precision="bf16", model_args={"width": 2})
    assert baseline_hash(other, "g") == "0faad72794afccea"


def test_the_sections_defaults_are_those_of_a_run() -> None:
    run = RunConfig("a")
    assert all(getattr(run, key) == value for key, value in dict(TrainingSection()).items())
    assert DatasetSection().config() == run.dataset
