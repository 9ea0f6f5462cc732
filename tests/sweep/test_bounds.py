"""What constraints leave of the figures that a searcher weighs, and of those beside them."""

from __future__ import annotations

import pytest

from raydistill.metrics import Metric
from raydistill.records import BASELINE, FINISHED, EpochMetrics, TrialRecord
from raydistill.search import parse_objectives
from raydistill.search.constraints import parse_constraints
from raydistill.search.searchers import Aim
from raydistill.sweep.bounds import aim_of, bounded_beside, counted_by, unit_of

TOP1, PERPLEXITY = {"top1": Metric("max")}, {"perplexity": Metric("min")}


@pytest.mark.parametrize(
    ("metrics", "objectives", "bounds", "expected"),
    [
        (TOP1, {"top1": "max", "sparsity": "max"}, [], Aim(dense=0.0)),
        (TOP1, {"top1": "max", "sparsity": "max"}, ["top1_drop <= 0.02"], Aim(metric=0.68, dense=0.0)),
        (TOP1, {"top1": "max", "sparsity": "max"}, ["top1 >= 0.6", "top1_drop < 0.05"], Aim(metric=0.65, dense=0.0)),
        (TOP1, {"top1": "max", "sparsity": "max"}, ["sparsity >= 0.8", "top1 <= 0.9"], Aim(figure=0.8, dense=0.0)),
        (TOP1, {"macs": "min", "top1": "max"}, ["macs <= 0.5x"], Aim(figure=-20e6, dense=-40e6)),
        (TOP1, {"macs": "min", "top1": "max"}, ["sparsity >= 0.5"], Aim(dense=-40e6)),
        (PERPLEXITY, {"perplexity": "min", "macs": "min"}, ["perplexity_rise <= 0.3"], Aim(metric=-1.0, dense=-40e6)),
        (PERPLEXITY, {"perplexity": "min", "macs": "min"}, ["perplexity <= 0.9"], Aim(metric=-0.9, dense=-40e6)),
    ],
)
def test_what_constraints_leave(
    metrics: dict[str, Metric],
    objectives: dict[str, str],
    bounds: list[str],
    expected: Aim,
) -> None:
    baseline = dense(next(iter(metrics)))
    constraints = [bound.against(baseline) for bound in parse_constraints(bounds, "c", metrics)]
    aim = aim_of(parse_objectives(objectives, "o", metrics), constraints, baseline)
    assert (aim.metric, aim.figure, aim.dense) == pytest.approx((expected.metric, expected.figure, expected.dense))


def dense(metric: str) -> TrialRecord:
    last = EpochMetrics(
        epoch=0, epochs=1, train_loss=1.0, metrics={metric: 0.70}, learning_rate=0.1, sparsity=0.0,
        layer_sparsity={}, samples_per_second=1.0, seconds=1.0, timestamp_ms=1, footprint={"macs": 40e6},
    )  # fmt: skip
    return TrialRecord(BASELINE, {}, FINISHED, "net", "digits", seed=0, epochs=1, last=last)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (["macs <= 0.5x", "macs < 30e6"], {"macs": -20e6}),  # the tighter one
        (["sparsity >= 0.8"], {}),  # the figure that is optimised
        (["macs >= 1e6"], {}),  # nothing has to be pruned for it
        (["top1 >= 0.5", "latency_ms <= 3"], {"latency_ms": -3.0}),
        (["size_bytes <= 0.5x"], {}),  # the dense network's is not known
    ],
)
def test_the_figures_that_are_bounded_beside_the_one_optimised(bounds: list[str], expected: dict[str, float]) -> None:
    constraints = [bound.against(dense("top1")) for bound in parse_constraints(bounds, "c", TOP1)]
    assert bounded_beside(constraints, "sparsity") == expected


def test_a_latency_goes_with_the_macs() -> None:
    record = dense("top1")
    assert record.last is not None
    record.last.footprint.update(latency_ms=2.0)  # type: ignore[attr-defined]
    assert (counted_by("latency_ms"), counted_by("size_bytes")) == ("macs", "size_bytes")
    assert unit_of("latency_ms", record) == pytest.approx(2.0 / 40e6)
    assert unit_of("macs", record) == 1.0
