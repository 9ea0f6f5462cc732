from __future__ import annotations

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
