"""Structures that several layers share, pruned from all of them at once."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raydistill.compression import rates
from raydistill.compression.masks import mask_of_smallest, pruned_count, smallest_mask
from raydistill.compression.pruners.arguments import (
    checked_level,
    checked_number,
    checked_ranking,
    checked_rise,
    checked_weights,
    chosen,
)
from raydistill.compression.pruners.base import Moment, Pruner
from raydistill.compression.rankings import L1, share_of_no_smaller
from raydistill.compression.rates import Curve, PolicyTime
from raydistill.compression.structure import StructureChange
from raydistill.errors import ABSENT, ConfigError, Fault, close_match

if TYPE_CHECKING:
    from raydistill.compression.thinning.coupling import Coupling, Offer

STRUCTURES = ("Filters", "Neurons", "Heads", "Units", "Embedding")
SCOPES = ("layer", "global", "isomorphic")
_TINY = 1e-30
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(0),
    "mean": lambda scores: scores.mean(0),
    "max": lambda scores: scores.amax(0),
    "first": lambda scores: scores[0],
}
NORMALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda scores: scores,
    "mean": lambda scores: scores / scores.mean().clamp_min(_TINY),
    "sum": lambda scores: scores / scores.sum().clamp_min(_TINY),
    "max": lambda scores: scores / scores.max().clamp_min(_TINY),
    "standardization": lambda scores: (scores - scores.min()) / (scores.max() - scores.min() + 1e-8),
    "lamp": share_of_no_smaller,
    "gaussian": lambda scores: (scores - scores.mean()) / (scores.std() + 1e-8),
}


class CoupledPruner(Pruner):
    """Prunes whole structures from all layers that hold a part of them, so that thinning takes each out without a rest.

    structures: of which kinds: ``Filters`` (of convolutions, with what residual sums couple), ``Neurons`` (of linear
    layers), ``Heads`` (of attention, with the keys and values that several share), ``Units`` (of recurrent layers),
    ``Embedding`` (channels of a residual stream, from embeddings to head; only where it is named).
    weights: those that write them; what reads them follows. Found out on the run's example input.
    initial_sparsity, final_sparsity: fractions of structures in [0, 1). rate, ranking: see `RankedPruner`.
    reduction: how the scores of a structure's parts make one: mean, sum, max, or first (its first layer's alone).
    norms, biases: whether scales of norms and biases are parts too, as in Torch-Pruning (rankings of weights alone).
    scope: ``layer``: each coupling to the level; ``global``: one threshold for all; ``isomorphic``: one threshold for
    couplings of the same kinds of layers (Fang et al. 2024, arXiv 2407.04616). normalizer: what a coupling's scores are
    divided by where one threshold serves several: mean, sum, max, none; standardization: to 0 ... 1; gaussian: to mean
    0 and deviation 1; lamp: by the sum of those that are no smaller.
    max_sparsity, min_sparsity: no coupling loses more, none less. round_to: what stays is a multiple of it, rounded up.

    offer: all structures of the network that it is bound to, and what has none; None before.
    """

    releases = False

    def __init__(
        self,
        name: str,
        final_sparsity: float,
        weights: list[str],
        structures: list[str] | str = list(STRUCTURES[:-1]),  # noqa: B006 - never changed; shown as the default
        initial_sparsity: float = 0.0,
        rate: str = "cubic",
        ranking: str = "magnitude",
        reduction: str = "mean",
        scope: str = "layer",
        max_sparsity: float = 0.95,
        min_sparsity: float = 0.0,
        round_to: int = 1,
        normalizer: str = "mean",
        norms: bool = False,
        biases: bool = False,
    ) -> None:
        initial, final = checked_rise(initial_sparsity, final_sparsity)
        self._rate = chosen("rate", rate, rates.MENU, Curve).rate(initial, final)
        self.ranking = checked_ranking(ranking)
        if self.ranking.filters_only:
            raise ConfigError(Fault("ranking", "must rank parts of any shape", ranking, "such as magnitude or taylor"))
        self.evidence = self.ranking.evidence
        kinds = (structures,) if isinstance(structures, str) else tuple(structures)
        for kind in kinds or ("",):
            if kind not in STRUCTURES:
                near = "BlockPruner prunes those" if kind == "Blocks" else close_match(str(kind), STRUCTURES)
                raise ConfigError(Fault("structures", f"must be of {', '.join(STRUCTURES)}", kind, near))
        menus = (
            ("reduction", reduction, REDUCTIONS),
            ("scope", scope, SCOPES),
            ("normalizer", normalizer, NORMALIZERS),
        )
        for argument, said, menu in menus:
            if said not in menu:
                rule = f"must be one of {', '.join(menu)}"
                raise ConfigError(Fault(argument, rule, said, close_match(str(said), menu)))
        if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
            raise ConfigError(Fault("round_to", "must be a whole number from 1 up", round_to, "such as 8"))
        self.most = checked_number("max_sparsity", max_sparsity, 0.0, 1.0)
        self.least = checked_level("min_sparsity", min_sparsity)
        if self.least > self.most:
            raise ConfigError(Fault("min_sparsity", f"must not be above max_sparsity {self.most:g}", self.least))
        self.structures, self.reduction, self.scope, self.round_to = kinds, reduction, scope, round_to
        for argument, wanted in (("norms", norms), ("biases", biases)):
            if not isinstance(wanted, bool):
                raise ConfigError(Fault(argument, "must be true or false", wanted))
            if wanted and self.evidence != "none":
                rule = "is for rankings of the weights alone"
                raise ConfigError(Fault(argument, rule, ranking, "such as l2_squared, or leave it out"))
        self.normalizer, self._norms, self._biases = normalizer, norms, biases
        self._writers = frozenset(checked_weights("weights", weights))
        self._couplings: tuple[Coupling, ...] | None = None
        self.offer: Offer | None = None
        self._network: tuple[nn.Module, Sequence[object]] | None = None
        super().__init__(name, tuple(sorted(self._writers)))

    def bind(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        if example_input is None:
            way_out = "give the run's dataset or task, or example_input from Python"
            raise ConfigError(Fault("structures", "are found out on an example input", ABSENT, way_out))
        known = dict(model.named_parameters())
        for weight in self._writers:
            if weight not in known:
                rule = "the model has no such weight"
                raise ConfigError(Fault("weights", rule, weight, close_match(weight, known)))
        self._network = (model, tuple(example_input))
        self._find()

    def _find(self) -> None:
        from raydistill.compression.thinning.coupling import known_couplings  # imports Torch-Pruning

        assert self._network is not None
        model, example = self._network
        offer = self.offer = known_couplings(model, example)
        found = [
            each
            for each in offer.couplings
            if each.kind in self.structures and self._writers & set(each.writers) and each.count > 1
        ]
        if not found:
            raise ConfigError(self._nothing(offer))
        self._couplings = tuple(found)
        self.weights = tuple(dict.fromkeys(part.weight for each in found for part in each.slices))

    def _nothing(self, offer: Offer) -> Fault:
        own = sorted({each.kind for each in offer.couplings if self._writers & set(each.writers) and each.count > 1})
        every = sorted({each.kind for each in offer.couplings})
        layers = {weight.rpartition(".")[0] for weight in self._writers}
        why = "" if own else next((reason for layer, reason in offer.refused.items() if layer in layers), "")
        rule = f"write no {' or '.join(self.structures)} that can go{f' ({why})' if why else ''}"
        has = f"they write {', '.join(own)}" if own else f"the network has {', '.join(every) or 'nothing'} to prune so"
        return Fault("weights", rule, sorted(self._writers)[0], has)

    @property
    def couplings(self) -> tuple[Coupling, ...]:
        if self._couplings is None:
            self._find()
        assert self._couplings is not None
        return self._couplings

    def by_magnitude(self) -> CoupledPruner:
        other = copy.copy(self)
        other.ranking, other.evidence = L1, L1.evidence
        return other

    def on_structure_change(self, happened: StructureChange) -> None:
        self._couplings = None  # found anew on what is left

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        return self._rate(when)

    def fraction(self, weight_name: str, weight: Tensor, when: PolicyTime) -> float | None:
        """Known where each coupling goes to the level by itself: what rows and columns leave of the weight."""
        if self.scope != "layer":
            return None
        left: dict[int, float] = {}
        for each in self.couplings:
            for part in each.slices:
                if part.weight == weight_name:
                    share = self._pruned(each, pruned_count(self._rate(when), each.count)) / each.count
                    left[part.dim] = left.get(part.dim, 1.0) - share * part.where.numel() / weight.shape[part.dim]
        return 1.0 - math.prod(left.values())

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        raise NotImplementedError("structures are decided for all of their weights together")

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        scores = {index: self.scores(each, weights, moment.evidence) for index, each in enumerate(self.couplings)}
        for index, each in enumerate(self.couplings):  # what is gone already goes first
            scores[index] = scores[index].masked_fill(_gone(each, weights), -torch.inf)
        counts = self._counts(scores, self._rate(moment.when))
        # Another pruner's masks of the same weights are of other structures, so that both hold.
        found = {
            name: torch.ones_like(weight) if name not in moment.masks else (moment.masks[name] != 0).to(weight)
            for name, weight in weights.items()
        }
        for index, each in enumerate(self.couplings):
            keep = mask_of_smallest(scores[index], counts[index])
            for name, mask in each.expand(keep, dict(weights)).items():
                found[name] *= mask
        return found

    def scores(self, coupling: Coupling, weights: Mapping[str, Tensor], evidence: Mapping[str, Tensor]) -> Tensor:
        """One for each structure, (structures,)."""
        parts = []
        beside = (coupling.norms * self._norms, coupling.biases * self._biases)
        shifts = coupling.shifts * (self._norms and self._biases)
        for part in (*coupling.slices, *itertools.chain(*beside), *shifts):
            weight = weights[part.weight] if part.weight in weights else self._parameter(part.weight)
            if weight.dim() < 2 and part in coupling.slices:  # a bias goes with its row
                continue
            seen = evidence.get(part.weight)
            parts.append(self.ranking.score(part.of(weight.detach()), None if seen is None else part.of(seen)))
        return REDUCTIONS[self.reduction](torch.stack([score.float() for score in parts]))

    def _parameter(self, name: str) -> Tensor:
        assert self._network is not None
        return self._network[0].get_parameter(name)

    def _counts(self, scores: Mapping[int, Tensor], level: float) -> dict[int, int]:
        """How many structures each coupling loses."""
        classes: dict[str, list[int]] = {}
        for index, each in enumerate(self.couplings):
            key = {"layer": str(index), "global": "", "isomorphic": each.topology}[self.scope]
            classes.setdefault(key, []).append(index)
        counts: dict[int, int] = {}
        for members in classes.values():
            if len(members) == 1:
                counts[members[0]] = pruned_count(level, self.couplings[members[0]].count)
                continue
            relative = [self._normalized(scores[index]) for index in members]
            keep = smallest_mask(torch.cat(relative), level)
            for index, kept in zip(members, keep.split([len(each) for each in relative]), strict=True):
                counts[index] = int((kept == 0).sum())
        counts = {index: self._pruned(self.couplings[index], count) for index, count in counts.items()}
        for index, each in enumerate(self.couplings):
            if each.tied:
                same = [counts[i] for i, other in enumerate(self.couplings) if other.tied == each.tied]
                counts[index] = min(same)
        return counts

    def _normalized(self, scores: Tensor) -> Tensor:
        """What is gone already stays below all others, and does not count."""
        there = scores.isfinite()
        found = torch.full_like(scores, -torch.inf)
        if there.any():
            found[there] = NORMALIZERS[self.normalizer](scores[there]).to(scores.dtype)
        return found

    def _pruned(self, coupling: Coupling, count: int) -> int:
        """A number of structures to prune, within the bounds: one stays, and what stays is rounded up."""
        most = min(coupling.count - 1, math.floor(self.most * coupling.count))
        kept = coupling.count - min(max(count, math.ceil(self.least * coupling.count - 1e-9)), most)
        kept = min(coupling.count, -(-kept // self.round_to) * self.round_to)
        return coupling.count - kept


def _gone(coupling: Coupling, weights: Mapping[str, Tensor]) -> Tensor:
    """Which structures are zero in all their parts, (structures,)."""
    return torch.stack([(part.of(weights[part.weight]) == 0).all(1) for part in coupling.slices]).all(0)
