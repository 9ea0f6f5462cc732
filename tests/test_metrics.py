from __future__ import annotations

import pytest

from raydistill.metrics import FRACTION, MAX, MIN, OF_NETWORK, Metric, selecting, shown


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        (Metric(MAX, FRACTION), 0.78469, "78.47 %"),
        (Metric(MIN), 0.931234, "0.9312"),
        (None, 1234567.0, "1.235e+06"),
        (OF_NETWORK["sparsity"], 1.0, "100.00 %"),
    ],
)
def test_a_value_has_the_digits_that_mean_something(metric: Metric | None, value: float, expected: str) -> None:
    assert shown(metric, value) == expected


def test_the_first_selects() -> None:
    assert selecting({"perplexity": Metric(MIN), "loss": Metric(MIN)}) == "perplexity"


def test_every_figure_of_a_network_says_which_way_is_better_and_what_it_is() -> None:
    assert {name for name, metric in OF_NETWORK.items() if metric.maximise} == {"sparsity"}
    assert {name for name, metric in OF_NETWORK.items() if metric.is_large} == {
        "macs", "bops", "parameters", "size_bytes", "compressed_size_bytes",
    }  # fmt: skip
    assert all(metric.label for metric in OF_NETWORK.values())
