from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.errors import ConfigError
from raydistill.search import Choice, LogUniform, QUniform, RandInt, Uniform, parse_distribution
from raydistill.search.distributions import is_distribution_name, looks_like_number, text_number


def parse(text: str):
    return parse_distribution(yaml.safe_load(text), "space.yaml: search.x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{uniform: [0.1, 0.9]}", Uniform(0.1, 0.9)),
        ("{uniform: [-1, 2]}", Uniform(-1, 2)),
        ("{loguniform: [0.001, 1]}", LogUniform(0.001, 1)),
        ("{quniform: [0.1, 0.9, 0.05]}", QUniform(0.1, 0.9, 0.05)),
        ("{randint: [1, 5]}", RandInt(1, 5)),
        ("{choice: [1, 2.5, true, adam]}", Choice((1, 2.5, True, "adam"))),
        ("{choice: [7]}", Choice((7,))),
    ],
)
def test_yaml_forms(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{unifrom: [0, 1]}", ["unknown distribution", "'unifrom'", "did you mean 'uniform'?"]),
        ("{5: [0, 1]}", ["unknown distribution", "use one of"]),
        ("0.5", ["mapping", "0.5", "{uniform: [low, high]}"]),
        ("[1, 2]", ["mapping", "{choice: [1, 2]}"]),
        ("{}", ["exactly one distribution"]),
        ("{uniform: [0, 1], choice: [1]}", ["exactly one distribution", "uniform, choice"]),
        ("{uniform: [0.9, 0.1]}", ["search.x.uniform", "low must be below high", "[0.9, 0.1]", "swap them"]),
        ("{uniform: [0.5, 0.5]}", ["low must be below high", "widen"]),
        ("{randint: [3, 3]}", ["low must be below high"]),
        ("{uniform: [a, 1]}", ["low must be a number", "'a'"]),
        ("{uniform: [0, null]}", ["high must be a number"]),
        ("{uniform: [false, 1]}", ["low must be a number", "False"]),
        ("{uniform: [0, .nan]}", ["high must be finite", "nan"]),
        ("{uniform: [-.inf, 1]}", ["low must be finite", "inf"]),
        ("{uniform: [1]}", ["takes 2 numbers [low, high]", "1 given"]),
        ("{uniform: [0, 1, 0.1]}", ["takes 2 numbers", "3 given"]),
        ("{quniform: [0, 1]}", ["takes 3 numbers [low, high, q]"]),
        ("{uniform: {low: 0, high: 1}}", ["must be a list [low, high]"]),
        ("{loguniform: [0, 1]}", ["above 0"]),
        ("{loguniform: [-2, -1]}", ["above 0"]),
        ("{loguniform: [1e-3, 1]}", ["text", "'1e-3'", "write 1.0e-3"]),
        ("{uniform: [1.5e3, 9999]}", ["write 1.5e+3"]),
        ("{quniform: [0, 1, 0]}", ["q must be above 0"]),
        ("{quniform: [0, 1, -0.1]}", ["q must be above 0"]),
        ("{quniform: [0.1, 0.9, 2]}", ["no multiple of q lies in [0.1, 0.9]"]),
        ("{quniform: [0, 1000000000000, 1.0e-300]}", ["too many"]),
        ("{randint: [0.5, 3]}", ["whole numbers"]),
        ("{randint: [0, 10000000000000000000000]}", ["64 bits"]),
        ("{choice: []}", ["at least one option"]),
        ("{choice: 3}", ["takes a list"]),
        ("{choice: [1, [2, 3], null]}", ["choice[1]", "choice[2]"]),
        ("{choice: [.nan]}", ["finite"]),
        ("{choice: [1e-3, 0.1]}", ["choice[0]", "write 1.0e-3"]),
    ],
)
def test_faults_are_one_line_with_a_way_out(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert all(word in message for word in words), message
    for line in message.splitlines():
        assert line.startswith("space.yaml: search.x"), line
        assert "; " in line, f"no way out: {line}"


SOME = [
    Uniform(0.1, 0.9),
    LogUniform(1e-4, 1),
    QUniform(0.1, 0.9, 0.1),
    QUniform(32, 256, 32),
    RandInt(-2, 3),
    Choice((1, 2.5, True, "adam")),
]


@pytest.mark.parametrize("distribution", SOME, ids=lambda d: d.describe())
def test_draws_are_builtins_inside_and_survive_json(distribution) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        value = distribution.sample(rng)
        assert type(value) in (bool, int, float, str)
        assert distribution.contains(value)
        back = json.loads(json.dumps(value))
        assert back == value
        assert type(back) is type(value)


@pytest.mark.parametrize(
    ("distribution", "outside"),
    [
        (Uniform(0.1, 0.9), [0.05, 0.95, True, "0.5", None]),
        (LogUniform(0.1, 10), [0.05, 11, True]),
        (QUniform(0.1, 0.9, 0.1), [0.0, 1.0, 0.25, True]),
        (RandInt(1, 4), [0, 4, 1.5, True]),
        (Choice((1, "a")), [True, 2, "b", None]),
        (Choice((True,)), [1, False]),
    ],
)
def test_contains_rejects(distribution, outside: list) -> None:
    assert not any(distribution.contains(value) for value in outside)


@pytest.mark.parametrize(
    ("distribution", "lowest", "highest"),
    [
        (Uniform(0.1, 0.9), 0.1, 0.9),
        (LogUniform(0.001, 1), 0.001, 1),
        (QUniform(0.05, 0.95, 0.1), 0.1, 0.9),
        (QUniform(33, 256, 32), 64, 256),
        (RandInt(1, 5), 1, 4),
        (Choice((8, 2, 4.5)), 2, 8),
        (Choice((True, False)), False, True),
        (Choice(("sgd", "adam", 3)), "sgd", 3),
    ],
)
def test_ends_are_the_lowest_and_the_highest_that_are_drawn(distribution, lowest: object, highest: object) -> None:
    assert distribution.ends == (lowest, highest)
    assert [type(end) for end in distribution.ends] == [type(lowest), type(highest)]
    assert all(distribution.contains(end) for end in distribution.ends)


def test_randint_leaves_out_its_upper_bound_and_draws_all_else() -> None:
    rng = np.random.default_rng(0)
    assert {RandInt(1, 4).sample(rng) for _ in range(200)} == {1, 2, 3}


def test_quniform_gives_every_multiple_the_same_chance_and_spells_it_shortly() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(QUniform(0.1, 0.5, 0.1).sample(rng) for _ in range(5000))
    assert set(counts) == {0.1, 0.2, 0.3, 0.4, 0.5}  # 0.3, not 0.30000000000000004
    assert min(counts.values()) > 850  # 1000 expected, sigma 28; halved ends would have 500


def test_whole_q_gives_ints() -> None:
    assert type(QUniform(32, 256, 32).sample(np.random.default_rng(0))) is int


def test_loguniform_gives_every_decade_the_same_chance() -> None:
    rng = np.random.default_rng(0)
    decades = Counter(math.floor(math.log10(LogUniform(1e-4, 1).sample(rng))) for _ in range(4000))
    assert set(decades) == {-4, -3, -2, -1}
    assert min(decades.values()) > 850


@pytest.mark.slow
@settings(deadline=None)  # machines are slow at times
@given(
    low=st.integers(-1000, 1000), width=st.integers(1, 1000), q=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 1, 7]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_quniform_stays_inside_for_any_bounds(low: int, width: int, q: float, seed: int) -> None:
    low_f, high_f = low / 100, (low + width) / 100
    multiples = [k for k in range(math.floor(low_f / q) - 1, math.ceil(high_f / q) + 2)
                 if low_f - 1e-9 <= k * q <= high_f + 1e-9]  # fmt: skip
    node = {"quniform": [low_f, high_f, q]}
    if not multiples:
        with pytest.raises(ConfigError):
            parse_distribution(node, "x")
        return
    distribution = parse_distribution(node, "x")
    value = distribution.sample(np.random.default_rng(seed))
    assert any(math.isclose(value, k * q, abs_tol=1e-9) for k in multiples)
    assert low_f <= value <= high_f


@pytest.mark.parametrize(
    ("distribution", "units", "values"),
    [
        (Uniform(-1, 3), (-0.5, 0.0, 0.25, 1.0, 1.5), (-1, -1, 0, 3, 3)),
        (LogUniform(0.001, 10), (-1.0, 0.0, 0.25, 0.5, 1.0, 2.0), (0.001, 0.001, 0.01, 0.1, 10, 10)),
        (QUniform(0.1, 0.5, 0.1), (-0.1, 0.0, 0.19, 0.21, 0.99, 1.0), (0.1, 0.1, 0.1, 0.2, 0.5, 0.5)),
        (RandInt(1, 5), (0.0, 0.24, 0.26, 0.99, 1.0), (1, 1, 2, 4, 4)),
        (Choice(("a", "b", "c", "d")), (0.0, 0.24, 0.26, 0.99, 1.0), ("a", "a", "b", "d", "d")),
    ],
)
def test_equal_shares_of_the_unit_interval_have_equal_chances(distribution, units: tuple, values: tuple) -> None:
    found = [distribution.from_unit(unit) for unit in units]
    assert found == [pytest.approx(value) if not isinstance(value, str) else value for value in values]


@pytest.mark.parametrize(
    ("distribution", "values", "units"),
    [
        (Uniform(-1, 3), (-9, -1, 0, 3, 9), (0, 0, 0.25, 1, 1)),
        (LogUniform(0.001, 10), (0.0, 0.001, 0.1, 10, 100), (0, 0, 0.5, 1, 1)),
        (QUniform(0.1, 0.5, 0.1), (-2.0, 0.1, 0.3, 0.5, 2.0), (0, 0.1, 0.5, 0.9, 1)),
        (RandInt(1, 5), (-9, 1, 2, 4, 9), (0, 0.125, 0.375, 0.875, 1)),
        (Choice(("a", "b", "c", "d")), ("a", "d", "unknown"), (0.125, 0.875, 0.625)),  # what it lacks: the middle
        (Choice((1, True)), (1, True), (0.25, 0.75)),
    ],
)
def test_a_value_is_the_middle_of_its_share(distribution, values: tuple, units: tuple) -> None:
    assert [distribution.to_unit(value) for value in values] == pytest.approx(list(units))


@pytest.mark.parametrize("distribution", SOME, ids=lambda d: d.describe())
def test_a_distribution_is_a_value(distribution) -> None:
    """Equal ones are one key, and nobody changes one that others hold too."""
    again = type(distribution)(**vars(distribution))
    assert {distribution: 1}[again] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(distribution, next(iter(vars(distribution))), 0)


def test_bounds_may_be_as_large_as_can_be_counted() -> None:
    assert parse_distribution({"randint": [0, 2**63 - 1]}, "x") == RandInt(0, 2**63 - 1)
    assert parse_distribution({"randint": [1 - 2**63, 0]}, "x") == RandInt(1 - 2**63, 0)
    assert parse_distribution({"quniform": [0, 2**62 - 1, 1]}, "x") == QUniform(0, 2**62 - 1, 1)
    for wrong in ({"randint": [0, 2**63]}, {"randint": [-(2**63), 0]}, {"quniform": [0, 2**62, 1]}):
        with pytest.raises(ConfigError, match=r"64 bits|too many"):
            parse_distribution(wrong, "x")
    assert parse("{quniform: [0.1, 0.4, 0.3]}").ends == (0.3, 0.3)  # one multiple is enough


def test_which_keys_are_taken_for_a_distribution() -> None:
    assert all(is_distribution_name(name) for name in ("uniform", "unifrom", "choices", "randint"))
    assert not any(is_distribution_name(name) for name in ("training.uniform", "level", "", 5, None))


@pytest.mark.parametrize(
    ("text", "way_out"),
    [("1e-3", "1.0e-3"), ("1.5e3", "1.5e+3"), (" -2E7 ", "-2.0e+7"), ("1e+3", "1.0e+3"), ("3.e5", "3.e+5")],
)
def test_a_number_that_yaml_takes_for_text_is_spelt_so_that_it_does_not(text: str, way_out: str) -> None:
    assert looks_like_number(text)
    assert f"write {way_out}" in str(text_number("x", text))
    assert yaml.safe_load(way_out) == float(text)
    assert not any(looks_like_number(other) for other in ("1", "e3", "1e", "1e3x", "adam"))
