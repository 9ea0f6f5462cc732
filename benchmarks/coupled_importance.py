"""`CoupledPruner`'s couplings, scores and choices against Torch-Pruning's groups, importances and pruner.

Torch-Pruning's own dependency graph (not the one that raydistill builds from its library) gives the groups of a
network, `tp.importance` their scores and `tp.pruner.BasePruner` what it would take: for each of its options, the same
option here. Shown are how many groups there are and how many of them hold the same rows and columns of the same layers,
the largest difference of a score relative to the largest of its group, and how many structures both take at one
threshold for all or for those of one topology (half of them in all). Weights are random, and norms and biases are set
at random too: where all are alike nothing could be told apart.

What differs, on purpose: filters of depthwise convolutions are parts here and none there; topologies are told apart by
layers here, and by operations between them (a pool) there. What is a defect there: of columns behind a flattened map,
``max`` takes the last one; Taylor sorts a group's positions without the channels that they are of.

    python benchmarks/coupled_importance.py [--only resnet18 vgg16_cifar ...]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner import function

from raydistill import models
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.compression.thinning.coupling import Coupling

NETWORKS = ("resnet18", "vgg16_cifar")
MATRICES = [nn.modules.conv._ConvNd, nn.Linear]
NORMS = [nn.modules.batchnorm._BatchNorm, nn.LayerNorm]
COLUMNS = (function.prune_conv_in_channels, function.prune_linear_in_channels)
ROWS = (
    function.prune_conv_out_channels, function.prune_linear_out_channels, function.prune_depthwise_conv_out_channels,
)  # fmt: skip
Entries = dict[tuple[str, str], list[list[int]]]
"""By weight and side: for each structure, its positions there, sorted."""


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = models.create(name, 10, None, "network").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    x = torch.randn(2, 3, 32, 32)
    nn.functional.cross_entropy(model(x), torch.tensor([3, 7])).backward()
    return model, x


def their_groups(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """By the first layer of each: Torch-Pruning's groups, but that of the network's outputs."""
    graph = tp.DependencyGraph().build_dependency(model, x)
    names = {module: name for name, module in model.named_modules()}
    last = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    groups = graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear])
    return {names[group[0].dep.target.module]: group for group in groups}


def their_entries(group: Any, model: nn.Module) -> Entries:
    names = {module: name for name, module in model.named_modules()}
    found: Entries = {}
    count = len(group[0].idxs)
    for dependency, positions in ((item.dep, item) for item in group):
        side = {True: "in"}.get(dependency.handler in COLUMNS, "out")
        if dependency.handler not in (*COLUMNS, *ROWS):
            continue
        each: list[list[int]] = [[] for _ in range(count)]
        for position, root in zip(positions.idxs, positions.root_idxs, strict=True):
            each[root].append(position)
        found[names[dependency.target.module] + ".weight", side] = [sorted(own) for own in each]
    return found


def our_entries(coupling: Coupling) -> Entries:
    return {
        (part.weight, "in" if part.dim else "out"): part.where.sort(dim=1).values.tolist() for part in coupling.slices
    }


def coupling_of(name: str, pruner: CoupledPruner) -> Coupling:
    rows = f"{name}.weight"
    return next(each for each in pruner.couplings if any(s.weight == rows and s.dim == 0 for s in each.slices))


def bound(model: nn.Module, x: Tensor, **arguments: Any) -> CoupledPruner:
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    pruner = CoupledPruner("p", arguments.pop("final_sparsity", 0.5), names, **arguments)
    pruner.bind(model, (x,))
    return pruner


def options() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What it is called, Torch-Pruning's importance, the same arguments of `CoupledPruner`."""
    rankings = {1: "l1_norm", 2: "l2_squared"}
    for reduction, p, norms, biases in itertools.product(
        ("mean", "sum", "max", "first"), (1, 2), (False, True), (0, 1)
    ):
        theirs = tp.importance.MagnitudeImportance(
            p=p, group_reduction=reduction, normalizer=None, bias=bool(biases),
            target_types=MATRICES + NORMS * norms,
        )  # fmt: skip
        ours = {"ranking": rankings[p], "reduction": reduction, "norms": norms, "biases": bool(biases)}
        beside = f"{', norms' * norms}{', biases' * biases}"
        yield f"magnitude p={p}, {reduction}{beside}", theirs, ours
    for reduction, together in itertools.product(("mean", "sum", "max", "first"), (False, True)):
        theirs = tp.importance.TaylorImportance(group_reduction=reduction, normalizer=None, multivariable=together)
        yield (
            f"Taylor{' of sums' * together}, {reduction}",
            theirs,
            {
                "ranking": "taylor" if together else "snip",
                "reduction": reduction,
            },
        )


def scores_apart(model: nn.Module, x: Tensor, groups: Mapping[str, Any], theirs: Any, ours: dict[str, Any]) -> float:
    """The largest difference of a score, relative to the largest of its group."""
    pruner = bound(model, x, **ours)
    weights = {name: model.get_parameter(name).detach() for name in pruner.weights}
    gradients = {name: model.get_parameter(name).grad for name in pruner.weights}
    evidence = {} if pruner.evidence == "none" else gradients
    worst = 0.0
    for name, group in groups.items():
        expected = theirs(group)
        found = pruner.scores(coupling_of(name, pruner), weights, evidence)  # type: ignore[arg-type]
        worst = max(worst, float((expected - found).abs().max() / expected.abs().max()))
    return worst


def chosen_by_them(model: nn.Module, x: Tensor, importance: Any, isomorphic: bool) -> dict[str, set[int]]:
    """The rows of the first layer of each group that go."""
    names = {module: name for name, module in model.named_modules()}
    last = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    pruner = tp.pruner.BasePruner(
        model, x, importance, global_pruning=True, isomorphic=isomorphic, pruning_ratio=0.5, ignored_layers=[last],
    )  # fmt: skip
    return {names[group[0].dep.target.module]: set(group[0].idxs) for group in pruner.step(interactive=True)}


def chosen_here(model: nn.Module, x: Tensor, names: Sequence[str], ours: dict[str, Any]) -> dict[str, set[int]]:
    pruner = bound(model, x, **ours)
    weights = {name: model.get_parameter(name).detach() for name in pruner.weights}
    masks = pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1)))
    return {name: set((masks[f"{name}.weight"].flatten(1).amax(1) == 0).nonzero().flatten().tolist()) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=NETWORKS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        model, x = network(name)
        groups = their_groups(model, x)
        ours = bound(model, x)
        same = sum(their_entries(g, model) == our_entries(coupling_of(n, ours)) for n, g in groups.items())
        print(f"\n{name}: Torch-Pruning has {len(groups)} groups, here are {len(ours.couplings)}; the same: {same}")
        for what, theirs, options_ in options():
            print(f"  {what:44} {scores_apart(model, x, groups, theirs, options_):9.1e}", flush=True)
        for normalizer, isomorphic in itertools.product(("mean", "max", "standardization", "lamp"), (False, True)):
            spelt = normalizer.replace("standardization", "standarization")
            importance = tp.importance.MagnitudeImportance(normalizer=spelt)
            scope = "isomorphic" if isomorphic else "global"
            theirs = chosen_by_them(model, x, importance, isomorphic)
            options_ = {
                "ranking": "l2_squared", "norms": True, "normalizer": normalizer, "scope": scope, "max_sparsity": 1.0,
            }  # fmt: skip
            here = chosen_here(model, x, tuple(groups), options_)
            both = sum(len(theirs.get(key, set()) & here[key]) for key in here)
            total = sum(map(len, theirs.values())), sum(map(len, here.values()))
            print(f"  taken, {scope}, normalizer {normalizer:16} {total[0]:6} {total[1]:6} both {both:6}", flush=True)


if __name__ == "__main__":
    main()
