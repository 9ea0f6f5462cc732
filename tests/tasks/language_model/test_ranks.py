"""Two ranks, each with its columns of the text, learn what one process does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit, read_checkpoint
from tests.tasks.language_model.texts import folder_of
from tests.training.crew import crew

pytestmark = pytest.mark.slow


def trained(ranks: Ranks, config: RunConfig) -> list[dict[str, Any]]:
    return [dict(epoch.metrics) for epoch in fit(config, ranks=ranks)]


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("word_lang_model", {"emsize": 8, "nhid": 8, "dropout": 0.0, "tied": True}),
        ("decoder_lm", {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0, "context": 7}),
    ],
)
def test_they_learn_what_one_process_does(tmp_path: Path, arch: str, args: dict[str, Any]) -> None:
    config = RunConfig(
        arch, DatasetConfig(data_dir=str(folder_of(tmp_path))), model_args=args, epochs=2, batch_size=7, lr=0.3,
        momentum=0.9, weight_decay=0.0, precision="fp32", device="cpu", threads=1, tensorboard=False,
        task=TaskConfig("language_model", {"bptt": 7, "eval_batch_size": 3}), out_dir=str(tmp_path / "one"),
    )  # fmt: skip
    alone = trained(Ranks(), config)
    with crew(2) as ranks:
        found = ranks.run(trained, replace(config, out_dir=str(tmp_path / "two")), world=2)
    assert all(isinstance(one, list) for one in found), found
    assert found[0] == found[1]
    for one, two in zip(alone, found[0], strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    states = [read_checkpoint(tmp_path / place / "checkpoint.pt")["model"] for place in ("one", "two")]
    for name, weight in states[0].items():
        assert torch.allclose(weight, states[1][name], atol=1e-4), name
