"""Globs stand for the weights that they match."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.schedule.globs import each_named, matching, without_globs

NAMES = ["conv1.weight", "conv2.weight", "fc.weight"]


def test_a_list_keeps_its_order_and_each_weight_once() -> None:
    assert matching(["fc.weight", "conv*", "*2.weight"], NAMES, "w") == ["fc.weight", "conv1.weight", "conv2.weight"]
    for plain in (["fc.weight", "unknown"], {"fc.weight": 1}, "conv*", 3, None):
        assert matching(plain, NAMES, "w") is plain


def test_in_a_mapping_a_name_counts_before_a_glob_and_a_glob_before_those_below_it() -> None:
    given = {"conv[12].weight": 1, "*": 2, "conv2.weight": 3}
    assert matching(given, NAMES, "w") == {"conv1.weight": 1, "conv2.weight": 3, "fc.weight": 2}


def test_what_matches_nothing_is_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        each_named({"weights": ["x*", "fc.weight"], "levels": {"y?": 1}, "name": "z*"}, NAMES, "s.yaml: pruners.p")
    assert [str(fault).partition(":")[2] for fault in caught.value.faults] == [
        " pruners.p.weights: no weight of the model matches, got 'x*'; "
        "use one of: conv1.weight, conv2.weight, fc.weight",
        " pruners.p.levels: no weight of the model matches, got 'y?'; "
        "use one of: conv1.weight, conv2.weight, fc.weight",
    ]


def test_a_schedule_is_copied_and_only_what_names_weights_is_looked_at() -> None:
    schedule = {
        "pruners": {"p": {"class": "X", "weights": ["conv*"]}},
        "regularizers": {"r": {"class": "Y", "reg_regims": {"*": 0.1}}},
        "lr_schedulers": {"l": {"class": "Z", "weights": ["conv*"]}},
    }
    found = without_globs(schedule, NAMES, "s.yaml")
    assert found["pruners"] == {"p": {"class": "X", "weights": NAMES[:2]}}
    assert found["regularizers"] == {"r": {"class": "Y", "reg_regims": dict.fromkeys(NAMES, 0.1)}}
    assert found["lr_schedulers"] == schedule["lr_schedulers"]
    assert schedule["pruners"]["p"]["weights"] == ["conv*"]
