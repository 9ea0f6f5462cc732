from __future__ import annotations

import pytest
import torch

from raydistill.compression.pruners import MENU
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError


def test_one_weight_may_be_named_without_a_list() -> None:
    pruner = MENU["AutomatedGradualPruner"]("p", initial_sparsity=0.1, final_sparsity=0.5, weights="fc.weight")
    assert pruner.weights == ("fc.weight",)


def test_the_largest_weights_are_kept_whatever_their_sign() -> None:
    pruner = MENU["SparsityLevelParameterPruner"]("p", levels={"w": 0.5})
    mask = pruner.mask("w", torch.tensor([[0.1, -5.0], [3.0, -0.2]]), PolicyTime(0, 0, 1, 1))
    assert mask.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"initial_sparsity": 0.5, "final_sparsity": 0.2, "weights": ["w"]}, "final_sparsity: must not be below"),
        ({"initial_sparsity": 0.5, "final_sparsity": 80, "weights": ["w"]}, "did you mean 0.8?"),
        ({"initial_sparsity": -0.1, "final_sparsity": 0.2, "weights": ["w"]}, "initial_sparsity: must be a fraction"),
        ({"initial_sparsity": "x", "final_sparsity": 0.2, "weights": ["w"]}, "initial_sparsity: must be a number"),
        ({"initial_sparsity": float("nan"), "final_sparsity": 0.2, "weights": ["w"]}, "must be a number"),
        ({"initial_sparsity": 0.1, "final_sparsity": 1.0, "weights": ["w"]}, "must be a fraction in [0, 1)"),
        ({"initial_sparsity": 0.1, "final_sparsity": 0.2, "weights": []}, "weights: must be a list"),
        ({"initial_sparsity": 0.1, "final_sparsity": 0.2, "weights": {"w": 1}}, "weights: must be a list"),
        ({"initial_sparsity": 0.1, "final_sparsity": 0.2, "weights": ["w", "w"]}, "names a weight twice"),
    ],
)
def test_arguments_are_checked_by_the_constructor(args: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MENU["AutomatedGradualPruner"]("p", **args)
    assert says in str(caught.value)


def test_levels_must_be_a_mapping_of_fractions() -> None:
    with pytest.raises(ConfigError, match=r"levels.w: must be a fraction"):
        MENU["SparsityLevelParameterPruner"]("p", levels={"w": 1.5})
    with pytest.raises(ConfigError, match="levels: must map"):
        MENU["SparsityLevelParameterPruner"]("p", levels={})
