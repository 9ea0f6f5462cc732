"""Ranks whose loops go different ways are told so: nobody waits for one who will never come."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.compression.ranks import Ranks
from raydistill.training.watched import WatchedRanks
from tests.training.crew import crew
from tests.training.test_own_loop_on_ranks import run, trained


def test_one_process_waits_for_nobody() -> None:
    with WatchedRanks(Ranks()) as ranks:
        ranks.meet("the end")
        assert ranks.gather(3) == [3]
        assert ranks.mean({"mae": 1.0}) == {"mae": 1.0}
        assert ranks.together(lambda: 4) == ranks.of_first(4) == 4


GOES_ON = r"worker 1 exchanges more than worker 0, which is there already; give every worker as many batches"
WRONG = {
    "one_batch_more": rf"train: .*: {GOES_ON}",
    "yields_twice": r"train: epoch 1: (workers 0 and 1 go different ways|worker 0 exchanges more than worker 1)",
    "ends_early": r"^(worker 1: )?train: ended after 2 of 4 epochs; yield once an epoch",
    "yields_once_more": r"^(worker 1: )?train: yields more than the 4 epochs of a trial, got 5$",
    "each_for_itself": r"epoch 0: the weights must be the same on all 2 workers, .*; average the gradients: trial.repl",
    "other_names": r"metrics: worker 1 must have the same as worker 0, \['mae', 'loss'\], got \['mae'\]",
    "raises": r"(^of worker 1$|worker 1: ZeroDivisionError: of worker 1)",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "loop",
    [
        "one_batch_more",
        "ends_early",
        *(pytest.param(name, marks=pytest.mark.long) for name in WRONG if name not in ("one_batch_more", "ends_early")),
    ],
)
def test_what_would_hang_is_one_line(loop: str, tmp_path: Path) -> None:
    with crew(2) as processes:
        answers = processes.run(trained, replace(run(tmp_path, loop), deterministic=False), world=2)
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(errors) == 2, answers
    said = [str(error) for error in errors if "lost the connection" not in str(error)]
    assert said
    for line in said:
        assert re.search(WRONG[loop], line), line
        assert len(line.splitlines()) == 1
