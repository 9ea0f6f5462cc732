"""What a trial scheduler compares, and what it answers where it never pauses."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.search import Objective
from raydistill.search.constraints import Constraint
from raydistill.search.decisions import GO_ON, RunAll, Verdict, by_objectives, by_score

FIGURES = {"top1": 0.7, "loss": 1.5, "sparsity": 0.2, "macs": 1e6, "planned_sparsity": 0.9}


def test_quality_is_as_it_is_now_and_size_as_it_is_planned() -> None:
    top1, loss = Objective("top1", "max"), Objective("loss", "min")
    sparsity, macs = Objective("sparsity", "max"), Objective("macs", "min")
    assert (sparsity.of_network, macs.of_network, top1.of_network) == (True, True, False)
    assert by_objectives([top1, sparsity])(FIGURES) == (0.7, 0.9)
    assert by_objectives([macs, loss, sparsity])(FIGURES) == (-1.5, 0.9)  # once for all that pruning drives
    assert by_objectives([top1, loss])(FIGURES) == (0.7, -1.5)
    assert by_objectives([top1, Objective("sparsity", "min")])(FIGURES) == (0.7, -0.9)


def test_figures_that_are_foreseen_stand_for_themselves() -> None:
    top1, macs, size = Objective("top1", "max"), Objective("macs", "min"), Objective("size_bytes", "min")
    told = {**FIGURES, "planned_macs": 5e5}
    assert by_objectives([macs, top1])(told) == (0.7, -5e5)
    assert by_objectives([top1, macs, Objective("sparsity", "max")])(told) == (0.7, -5e5, 0.9)
    assert by_objectives([top1, macs, size])(told) == (0.7, -5e5, 0.9)  # the size is not: the sparsity stands for it


def test_what_is_bound_to_break_a_constraint_is_worse_in_everything_by_how_much() -> None:
    objectives = [Objective("top1", "max"), Objective("macs", "min")]
    measure = by_objectives(objectives, [Constraint("macs", "<=", 4e5), Constraint("top1_drop", "<=", 0.01)])
    kept, broken, worse = (measure({**FIGURES, "planned_macs": macs}) for macs in (4e5, 5e5, 6e5))
    assert kept == (0.7, -4e5)
    assert broken == pytest.approx((0.7 - 0.25, -5e5 - 0.25 * 5e5))
    assert all(a > b > c for a, b, c in zip(kept, broken, worse, strict=True))
    assert measure(FIGURES) == (0.7, 0.9)  # not foreseen: nothing is known of the bound
    sparse = by_objectives(objectives, [Constraint("sparsity", ">=", 0.95)])
    assert sparse(FIGURES)[0] == pytest.approx(0.7 - 0.05 / 0.95)


def test_a_score_is_the_weighted_sum() -> None:
    assert by_score({"top1": 2.0, "planned_sparsity": 0.5, "loss": -1.0})(FIGURES) == (2 * 0.7 + 0.5 * 0.9 - 1.5,)


def test_a_score_of_what_is_not_reported_is_one_line() -> None:
    """A training loop of one's own need not say its train_loss."""
    with pytest.raises(ConfigError) as caught:
        by_score({"top1": 1.0, "train_loss": -1.0})(FIGURES)
    line = "trial_scheduler.score: weighs 'train_loss', which the trials do not report, got ['top1', 'loss', 'sparsity'"
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith("yield train_loss, or weigh another")


def test_without_a_trial_scheduler_every_trial_goes_on_and_none_waits() -> None:
    everything = RunAll()
    assert everything.result(0, 5, FIGURES) == Verdict(GO_ON, "")
    everything.failed(0)
    everything.promoted(0)
    assert everything.promotable({0, 1}, drained=True) is None
    assert everything.until(0, 1) is None
    assert everything.why_not_promoted(0) == ""
