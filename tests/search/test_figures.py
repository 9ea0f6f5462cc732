"""Figures of the network of one's own, by the name of their module."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.metrics import Metric, NetworkFigure
from raydistill.search.figures import own_figure


def energy(model: object, example_input: object) -> float:
    raise AssertionError("it is called")


ENERGY = NetworkFigure("energy", Metric("min", "mJ"), energy)
DROP = NetworkFigure("energy_drop", Metric("min", "mJ"), energy)
WORDS = NetworkFigure("two words", Metric("min", "mJ"), energy)
MACS = NetworkFigure("macs", Metric("min", "mJ"), energy)
TOP1 = NetworkFigure("f1", Metric("min", "mJ"), energy)
UP = NetworkFigure("energy", Metric("up", "mJ"), energy)
NUMBER = NetworkFigure("energy", Metric("min", "mJ"), 3)  # type: ignore[arg-type]
METRICS = {"f1": Metric("max"), "loss": Metric("min")}


def test_it_is_found_and_not_called() -> None:
    assert own_figure(f"{__name__}:ENERGY", "s.yaml: objectives", METRICS) is ENERGY


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("DROP", "must have an identifier for its name, got 'energy_drop'"),
        ("WORDS", "must have an identifier for its name, got 'two words'"),
        ("MACS", "has a name that is taken, got 'macs'"),
        ("TOP1", "has a name that is taken, got 'f1'"),
        ("UP", "must have a Metric and a function"),
        ("NUMBER", "must have a Metric and a function"),
        ("METRICS", "is not a NetworkFigure"),
        ("NOTHING", "has no such figure"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^s\.yaml: objectives: ") as caught:
        own_figure(f"{__name__}:{name}", "s.yaml: objectives", METRICS)
    assert says in str(caught.value)
