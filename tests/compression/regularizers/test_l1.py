"""The lasso."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.regularizers.l1 import L1Regularizer
from raydistill.errors import ConfigError


def test_the_term_is_numpys_sum_and_the_gradient_is_the_sign() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    weight = torch.tensor(values, requires_grad=True)
    term = L1Regularizer("r", {"w": 0.25, "other": 9}).term("w", weight)
    term.backward()
    assert float(term.detach()) == pytest.approx(0.25 * np.abs(values).sum(), rel=1e-5)
    assert weight.grad is not None
    assert np.array_equal(weight.grad.numpy(), 0.25 * np.sign(values))


def test_the_strength_is_the_threshold_too_and_what_equals_it_goes() -> None:
    mask = L1Regularizer("r", {"w": 0.5}, "Max").threshold_mask("w", torch.tensor([0.5, -0.75, 0.25, -0.5]))
    assert mask.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("regims", [{}, [1], {"w": -1}, {"w": True}, {"w": float("inf")}, {"w": "x"}])
def test_wrong_strengths_are_one_line(regims: object) -> None:
    with pytest.raises(ConfigError, match=r"^reg_regims"):
        L1Regularizer("r", regims)  # type: ignore[arg-type]
