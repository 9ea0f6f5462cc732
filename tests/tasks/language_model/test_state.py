from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.tasks import TaskConfig
from raydistill.tasks.language_model.state import OfLength, Remembering, detached, told_apart
from raydistill.training import Distillation, RunConfig, fit
from tests.tasks.language_model.texts import Answer, Counting, folder_of

Pair = namedtuple("Pair", ["h", "c"])
LOGITS = torch.zeros(2, 3, 5)


@pytest.mark.parametrize(
    ("output", "state"),
    [(LOGITS, None), ((LOGITS, "state"), "state"), ([LOGITS, 3], 3), (Answer(LOGITS), None), ((LOGITS,), None),
     ((LOGITS, "past", "attentions"), None)],
)  # fmt: skip
def test_logits_and_state_are_told_apart(output: Any, state: Any) -> None:
    logits, found = told_apart(output)
    assert logits is LOGITS
    assert found == state


@pytest.mark.parametrize("output", [None, "logits", {"logits": LOGITS}, (), (3, LOGITS)])
def test_an_output_without_logits_is_one_line(output: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"model: gives {type(output).__name__}, whose logits cannot be told; return"
    ):
        told_apart(output)


def test_a_state_of_any_nesting_is_detached() -> None:
    weight = nn.Parameter(torch.ones(2))
    state = Pair((2 * weight, [3 * weight]), {"k": 4 * weight, "n": 5})
    found = detached(state)
    assert isinstance(found, Pair)
    assert found.c["n"] == 5
    for tensor, factor in ((found.h[0], 2), (found.h[1][0], 3), (found.c["k"], 4)):
        assert not tensor.requires_grad
        assert tensor.tolist() == [factor, factor]
    assert detached(None) is None


def test_a_teacher_goes_on_from_a_state_of_its_own() -> None:
    network = Counting(5)
    teacher = Remembering(network)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    for state in (None, "the student's", "the student's", None):
        assert teacher(tokens, state).shape == (2, 3, 5)
    assert network.seen == [0.0, 1.0, 2.0, 0.0]


@pytest.mark.slow
def test_a_small_network_learns_from_a_wide_one(tmp_path: Path) -> None:
    args = {"emsize": 16, "nhid": 16, "dropout": 0.0}
    config = RunConfig(
        "word_lang_model", DatasetConfig(data_dir=str(folder_of(tmp_path))), model_args=args, epochs=2, batch_size=8,
        lr=0.5, momentum=0.9, weight_decay=0.0, precision="fp32", device="cpu", threads=1, tensorboard=False,
        task=TaskConfig("language_model", {"bptt": 7}), out_dir=str(tmp_path / "wide"),
    )  # fmt: skip
    *_, wide = fit(config)
    small = replace(config, model_args={"emsize": 4, "nhid": 4, "dropout": 0.0}, epochs=1)
    alone = list(fit(replace(small, out_dir=None)))[-1]
    teaching = Distillation(checkpoint=str(wide.checkpoint), distill_wt=0.5, student_wt=0.5, temperature=2.0)
    taught = list(fit(replace(small, out_dir=None, distillation=teaching)))[-1]
    assert taught.metrics["perplexity"] != pytest.approx(alone.metrics["perplexity"], rel=1e-3)
    assert taught.metrics["perplexity"] < 11  # of a vocabulary of eleven


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_short_is_filled_up_behind_its_end(axis: int) -> None:
    seen = []

    class Sums(nn.Module):
        """Of each place the sum up to it: what comes behind does not count."""

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, str]:
            seen.append(tuple(tokens.shape))
            return tokens.cumsum(axis).unsqueeze(-1).float(), "state"

    tokens = torch.arange(1, 11).reshape(5, 2) if axis == 0 else torch.arange(1, 11).reshape(2, 5)
    network = OfLength(Sums(), 5, axis)
    whole, short = network(tokens), network(tokens.narrow(axis, 0, 3))
    assert torch.equal(short, whole.narrow(axis, 0, 3))
    assert set(seen) == {tuple(tokens.shape)}
