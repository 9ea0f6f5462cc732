from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.tracking.keys import key, model_name, param_text, registered_name, tag_text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pruners.conv1_pruner.final_sparsity", "pruners.conv1_pruner.final_sparsity"),
        ("policies[0].frequency", "policies.0.frequency"),
        ("größe:x", "gr__e_x"),
        ("a//b/../c", "a/c"),
        ("", "_"),
    ],
)
def test_keys_by_hand(name: str, expected: str) -> None:
    assert key(name) == expected


@pytest.mark.slow
@settings(deadline=None)  # machines are slow at times
@given(st.text(max_size=400))
def test_mlflow_takes_every_key_and_text(text: str) -> None:
    """The second route is MLflow's own validation."""
    from mlflow.utils import validation

    validation._validate_metric(key(text), 1.0, 0, 0)
    validation._validate_param(key(text), param_text(text * 40))
    validation._validate_tag(key(text), tag_text(text * 40))
    validation._validate_logged_model_name(model_name(text))
    validation._validate_model_name(registered_name(text))


@pytest.mark.parametrize(
    ("name", "expected"), [("simplenet", "simplenet"), ("a/b:c", "a-b-c"), ("..0", "_..0"), ("", "_")]
)
def test_registered_names_by_hand(name: str, expected: str) -> None:
    assert registered_name(name) == expected


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    assert key("a" * 300 + "1") != key("a" * 300 + "2")
    assert len(key("a" * 300)) == 250


def test_texts() -> None:
    assert param_text(0.1 + 0.2) == "0.30000000000000004"  # exact: a trial can be repeated from it
    assert tag_text(True) == "true"
    assert tag_text(0) == "0"
    assert param_text(True) == "True"
