"""What a dataset section may say to tasks without images; how files are found is tested with texts and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.tasks import TaskConfig, Weights
from raydistill.tasks.files import check_no_images

ARCHS = {"language_model": "decoder_lm", "regression": "mlp", "recommender": "neumf"}


@pytest.mark.parametrize("task", ARCHS)
@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"image_size": (32, 32)}, "dataset.image_size: is for images, and there are none, got (32, 32); leave it out"),
        ({"augment": "crop"}, "dataset.augment: is for images, and there are none, got 'crop'"),
        ({"channels": "grey"}, "dataset.channels: is for images, and there are none, got 'grey'"),
        ({"fallback": "digits"}, "dataset.fallback: is for images, and there are none, got 'digits'"),
        ({"name": "wikitext"}, "dataset.name: is not known to this task, got 'wikitext'; "),
        ({"args": {"rows": 3}}, "dataset.args: are for a factory of your own, got {'rows': 3}; leave them out"),
    ],
)
def test_what_is_for_images_is_refused_before_and_when_it_is_loaded(
    tmp_path: Path, task: str, said: dict[str, Any], says: str
) -> None:
    data = DatasetConfig(**{"data_dir": str(tmp_path), **said})
    for refuse in (
        lambda: tasks.check(TaskConfig(task), data),
        lambda: tasks.load(TaskConfig(task), data, Weights(ARCHS[task])),
    ):
        with pytest.raises(ConfigError) as caught:
            refuse()
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_faults_are_told_together_and_what_is_usual_is_none() -> None:
    check_no_images(DatasetConfig())
    check_no_images(DatasetConfig("diabetes", validation=0.3, split_seed=4), ("diabetes",))
    check_no_images(DatasetConfig("mine:rows", args={"count": 3}), own=True)
    with pytest.raises(ConfigError) as caught:
        check_no_images(DatasetConfig("diabetis", channels="grey"), ("diabetes",), own=True)
    assert len(caught.value.faults) == 2
    assert "use diabetes, pkg.mod:factory, or data_dir says where it is" in str(caught.value)
