"""Couplings and their scores, held against Torch-Pruning's own groups and importances."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner import function

from raydistill import models
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError
from tests.compression.pruners.test_coupled import Residual

ROWS = (function.prune_conv_out_channels, function.prune_linear_out_channels)
COLUMNS = (function.prune_conv_in_channels, function.prune_linear_in_channels)
TYPES = [nn.modules.conv._ConvNd, nn.Linear]
NORM = [nn.modules.batchnorm._BatchNorm]
REDUCED = [("small", reduction) for reduction in ("mean", "sum", "first")] + [
    pytest.param(name, reduction, marks=pytest.mark.slow)
    for name in ("resnet18", "vgg16_cifar")
    for reduction in ("mean", "sum", "max", "first")
]
"""Of columns behind a flattened map, which the small network has, Torch-Pruning's max is the last one's score."""
NETS = ("small", pytest.param("resnet18", marks=pytest.mark.slow), pytest.param("vgg16_cifar", marks=pytest.mark.slow))


def network(name: str) -> tuple[nn.Module, Tensor]:
    """With gradients, and norms and biases that are not all alike."""
    torch.manual_seed(0)
    size = 4 if name == "small" else 32
    model = (Residual() if name == "small" else models.create(name, 10, None, "name")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    x = torch.randn(2, 3, size, size)
    nn.functional.cross_entropy(model(x), torch.tensor([1, 3])).backward()
    return model, x


def groups_of(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Torch-Pruning's, by the weight that is their root, without the one of the outputs."""
    names = {module: name for name, module in model.named_modules()}
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    graph = tp.DependencyGraph().build_dependency(model, x)
    groups = list(graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]))
    for item in (item for group in groups for item in group):  # their Taylor sorts positions, but not their roots
        order = sorted(zip(item.idxs, item.root_idxs, strict=True))
        item.idxs[:], item.root_idxs[:] = [own for own, _ in order], [root for _, root in order]
    return {f"{names[group[0].dep.target.module]}.weight": group for group in groups}


def bound(model: nn.Module, x: Tensor, **arguments: Any) -> CoupledPruner:
    weights = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    pruner = CoupledPruner("p", 0.5, weights, **arguments)
    pruner.bind(model, (x,))
    return pruner


@pytest.mark.parametrize("name", NETS)
def test_the_same_rows_and_columns_stand_together(name: str) -> None:
    model, x = network(name)
    names = {module: own for own, module in model.named_modules()}
    expected = []
    for group in groups_of(model, x).values():
        found: dict[tuple[str, int], list[list[int]]] = {}
        for item in group:
            if item.dep.handler in (*ROWS, *COLUMNS):
                each: list[list[int]] = [[] for _ in group[0].idxs]
                for position, root in zip(item.idxs, item.root_idxs, strict=True):
                    each[root].append(position)
                found[f"{names[item.dep.target.module]}.weight", int(item.dep.handler in COLUMNS)] = each
        expected.append(found)
    ours = [
        {(part.weight, part.dim): part.where.sort(1).values.tolist() for part in coupling.slices}
        for coupling in bound(model, x).couplings
    ]
    assert sorted(ours, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize(("name", "reduction"), REDUCED)
def test_scores_are_those_of_torch_pruning(name: str, reduction: str) -> None:
    model, x = network(name)
    groups = groups_of(model, x)
    cases: list[tuple[Any, dict[str, Any]]] = [
        (
            tp.importance.MagnitudeImportance(p, reduction, None, biases, TYPES + NORM * norms),
            {"ranking": ranking, "norms": norms, "biases": biases},
        )
        for (p, ranking), norms, biases in itertools.product(
            ((1, "l1_norm"), (2, "l2_squared")), (False, True), (False, True)
        )
    ]
    # Of several columns behind a flattened map they take the absolute value of each column's sum, not of all of them.
    for ranking, together in (("snip", False), ("taylor", True)) if name != "small" else (("snip", False),):
        cases.append((tp.importance.TaylorImportance(reduction, None, together), {"ranking": ranking}))
    for theirs, ours in cases:
        pruner = bound(model, x, reduction=reduction, **ours)
        weights = {own: model.get_parameter(own).detach() for own in pruner.weights}
        evidence = {own: model.get_parameter(own).grad for own in pruner.weights} if pruner.evidence != "none" else {}
        for root, group in groups.items():
            (coupling,) = (each for each in pruner.couplings if root in each.writers)
            found, expected = pruner.scores(coupling, weights, evidence), theirs(group)  # type: ignore[arg-type]
            assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max()), (root, ours)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("normalizer", ["none", "mean", "sum", "max", "standardization", "gaussian", "lamp"])
def test_one_threshold_takes_what_their_pruner_takes(name: str, normalizer: str) -> None:
    model, x = network(name)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    spelt = {"none": None, "standardization": "standarization"}.get(normalizer, normalizer)
    importance = tp.importance.MagnitudeImportance(normalizer=spelt)
    theirs = tp.pruner.BasePruner(model, x, importance, True, 0.5, ignored_layers=[last])
    names = {module: own for own, module in model.named_modules()}
    expected = {names[g[0].dep.target.module]: sorted(g[0].idxs) for g in theirs.step(interactive=True)}
    ours = {"ranking": "l2_squared", "norms": True, "scope": "global", "max_sparsity": 1.0, "normalizer": normalizer}
    pruner = bound(model, x, **ours)
    weights = {own: model.get_parameter(own).detach() for own in pruner.weights}
    masks = pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1)))
    for own, rows in expected.items():
        gone = (masks[f"{own}.weight"].flatten(1).amax(1) == 0).nonzero().flatten().tolist()
        assert gone == rows, own


def test_norms_and_biases_are_for_rankings_of_the_weights() -> None:
    for arguments, says in (
        ({"norms": 1}, "norms: must be true or false, got 1"),
        ({"biases": True, "ranking": "taylor"}, "biases: is for rankings of the weights alone, got 'taylor'"),
        ({"normalizer": "means"}, "normalizer: must be one of .* did you mean 'mean'"),
    ):
        with pytest.raises(ConfigError, match=says):
            CoupledPruner("p", 0.5, ["a"], **arguments)  # type: ignore[arg-type]
