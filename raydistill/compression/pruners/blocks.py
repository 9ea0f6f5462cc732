"""Depth: whole blocks, all of their weights at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from raydistill.compression import rates
from raydistill.compression.masks import mask_of_smallest, pruned_count
from raydistill.compression.names import names_of
from raydistill.compression.pruners.arguments import checked_rise, checked_weights, chosen
from raydistill.compression.pruners.base import Moment, Pruner
from raydistill.compression.rates import Curve, PolicyTime
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.schedule import Targets

INFLUENCE, MAGNITUDE, RANDOM = RANKINGS = ("block_influence", "magnitude", "random")


class BlockPruner(Pruner):
    """Prunes whole residual blocks, those of least influence first (Men et al. 2024, ShortGPT, arXiv 2403.03853); where
    the network is deployed they are gone.

    final_sparsity, initial_sparsity: fractions of the blocks in [0, 1); at least one stays. blocks: names, globs or
    regular expressions (``re:``) of modules; left out, all that give their input as it is once their weights are zero,
    the innermost where some lie in others.
    ranking: ``block_influence``: 1 - the mean cosine of the angle between what a block reads and what it gives, over
    the minibatches that the policy looks at (``evidence_minibatches``); ``magnitude``: the mean absolute weight;
    ``random``. rate: see `RankedPruner`. What is decided is not taken back: a gradual rate measures what is left.
    """

    releases = False

    def __init__(
        self,
        name: str,
        final_sparsity: float,
        blocks: list[str] | None = None,
        initial_sparsity: float = 0.0,
        rate: str = "cubic",
        ranking: str = INFLUENCE,
    ) -> None:
        initial, final = checked_rise(initial_sparsity, final_sparsity)
        self._rate = chosen("rate", rate, rates.MENU, Curve).rate(initial, final)
        if ranking not in RANKINGS:
            rule = f"must be one of {', '.join(RANKINGS)}"
            raise ConfigError(Fault("ranking", rule, ranking, close_match(str(ranking), RANKINGS)))
        self.ranking = ranking
        self.evidence = INFLUENCE if ranking == INFLUENCE else "none"
        self._said = None if blocks is None else checked_weights("blocks", blocks)
        self._parameters: dict[str, tuple[str, ...]] = {}
        super().__init__(name, ())

    def bind(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        from raydistill.compression.thinning.depth import blocks_of  # imports Torch-Pruning

        if example_input is None:
            way_out = "give the run's dataset or task, or example_input from Python"
            raise ConfigError(Fault("blocks", "are found out on an example input", ABSENT, way_out))
        offered = blocks_of(model, tuple(example_input))
        names = list(offered.innermost)
        if self._said is not None:
            names = Targets(self._said).names(names_of(model).layers, "blocks", strict=True)
        for name in names:
            if name not in offered.parameters:
                reason = offered.refused.get(name, "is no residual block whose input and output are alike")
                raise ConfigError(Fault("blocks", reason, name, close_match(name, offered.parameters)))
            outer = next((other for other in names if name.startswith(f"{other}.")), None)
            if outer is not None:
                raise ConfigError(Fault("blocks", f"lies in {outer}, which is named too", name, "name one of the two"))
        if len(names) < 2:
            why = next(iter(offered.refused.values()), "it has no such sequence of residual blocks")
            raise ConfigError(Fault("blocks", f"needs two or more blocks that can go ({why})", names))
        self._parameters = {name: offered.parameters[name] for name in names}
        self.blocks = tuple(names)
        self.weights = tuple(weight for own in self._parameters.values() for weight in own)

    def by_magnitude(self) -> BlockPruner:
        other = copy.copy(self)
        other.ranking, other.evidence = MAGNITUDE, "none"
        return other

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        return self._rate(when)

    def fraction(self, weight_name: str, weight: Tensor, when: PolicyTime) -> float | None:
        """Of all blocks together it would be known, of one it is not."""
        return None

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        raise NotImplementedError("blocks are decided together")

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        scores = self.scores(weights, moment.evidence)
        for index, own in enumerate(self._parameters.values()):  # what is gone already goes first
            if not any(bool(weights[name].any()) for name in own):
                scores[index] = -torch.inf
        count = min(pruned_count(self._rate(moment.when), len(scores)), len(scores) - 1)
        keep = mask_of_smallest(scores, count).tolist()
        return {
            name: torch.full_like(weights[name], stays)
            for stays, own in zip(keep, self._parameters.values(), strict=True)
            for name in own
        }

    def scores(self, weights: Mapping[str, Tensor], evidence: Mapping[str, Tensor]) -> Tensor:
        """One for each block, (blocks,)."""
        if self.ranking == INFLUENCE:
            return torch.stack([evidence[block].float().cpu() for block in self.blocks])
        if self.ranking == RANDOM:
            return torch.rand(len(self.blocks))
        means = []
        for own in self._parameters.values():
            matrices = [weights[name].abs().flatten() for name in own if weights[name].dim() > 1]
            means.append(torch.cat(matrices).mean().cpu() if matrices else torch.zeros(()))
        return torch.stack(means)
