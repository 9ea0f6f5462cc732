"""What pruners have in common that decide layer by layer, from what each layer reads of calibration data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.compression.calibration import SQUARES
from raydistill.compression.masks import pruned_count
from raydistill.compression.pruners.arguments import (
    checked_level,
    checked_mapping,
    checked_number,
    checked_pattern,
    checked_weights,
)
from raydistill.compression.pruners.base import ComposedPruner, Moment
from raydistill.compression.rates import PolicyTime, constant
from raydistill.errors import ABSENT, ConfigError, Fault, close_match

UNIFORM, OWL = "uniform", "owl"


@dataclass(frozen=True)
class Settled:
    """One weight's mask, and its values where they change; both (rows, columns)."""

    mask: Tensor
    values: Tensor | None = None


class OneShotPruner(ComposedPruner):
    """levels, or weights with final_sparsity, or with n and m, as its children say.

    evidence: ``squares`` or ``products``, see `calibration`: by weight name (groups, columns) or (groups, columns,
    columns); a weight without any is ranked by magnitude.

    pattern: (n, m), or None.
    """

    layer_by_layer = True

    def __init__(
        self,
        name: str,
        evidence: str,
        levels: Mapping[str, float] | None,
        weights: Sequence[str] | None,
        final_sparsity: float | None,
        n: int | None,
        m: int | None,
        allocation: str,
        outlier: float,
        spread: float,
    ) -> None:
        others = {"weights": weights, "final_sparsity": final_sparsity, "n": n, "m": m}
        said = [key for key, value in others.items() if value is not None]
        if said and levels is not None:
            way_out = "keep levels, or weights with final_sparsity, or with n and m"
            raise ConfigError(Fault(said[0], "cannot stand beside levels", others[said[0]], way_out))
        self.pattern = _pattern(said, n, m)
        if not said:
            given = checked_mapping("levels", levels, "{'blocks.*.weight': 0.5}")
            self.levels = {weight: checked_level(f"levels.{weight}", level) for weight, level in given.items()}
        elif self.pattern is None:
            level = checked_level("final_sparsity", final_sparsity)
            self.levels = dict.fromkeys(checked_weights("weights", weights), level)
        else:
            kept, of = self.pattern
            self.levels = dict.fromkeys(checked_weights("weights", weights), 1.0 - kept / of)
        super().__init__(name, {weight: constant(level) for weight, level in self.levels.items()})
        self.evidence = evidence
        if allocation not in (UNIFORM, OWL):
            way_out = close_match(allocation, (UNIFORM, OWL)) if isinstance(allocation, str) else ""
            raise ConfigError(Fault("allocation", f"must be one of {UNIFORM}, {OWL}", allocation, way_out))
        if allocation == OWL and self.pattern is not None:
            raise ConfigError(Fault("allocation", "cannot stand beside n and m: every layer has the same", allocation))
        self.allocation = allocation
        self.outlier = checked_number("outlier", outlier, 1.0)
        self.spread = checked_number("spread", spread, 0.0, 1.0)
        self.allocated: dict[str, float] = {}

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        if weight.dim() < 2:
            return f"needs a weight of 2 or more dimensions, this one has {weight.dim()}"
        if self.pattern is not None and weight.shape[1] % self.pattern[1]:
            return f"m = {self.pattern[1]} does not divide its {weight.shape[1]} inputs"
        return ""

    def faults_together(self, weights: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        if self.allocation == OWL and len(weights) == 1:
            return [(next(iter(weights)), "allocation owl shares levels among several weights, this is the only one")]
        return []

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        return self._level(weight_name)

    def _level(self, weight_name: str) -> float:
        return self.allocated.get(weight_name, self.levels[weight_name])

    def by_magnitude(self) -> ComposedPruner:
        return self  # without evidence, it is

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        return {
            name: self.settled(name, weight, moment.evidence.get(name), moment.masks.get(name))[0]
            for name, weight in weights.items()
        }

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return self.settled(weight_name, weight, None, None)[0]

    def settled(
        self, name: str, weight: Tensor, sums: Tensor | None, before: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The weight's mask and, where they change, its values, both of its shape. before: its mask so far."""
        order = _adjacent_inputs(weight) if self.pattern is not None else None
        rows, held = _rows(weight.detach(), order), None if before is None else _rows(before, order)
        if sums is None:
            sums = torch.ones(1, rows.shape[1], dtype=torch.float64, device=weight.device)
            sums = sums if self.evidence == SQUARES else torch.diag_embed(sums)
        elif order is not None:
            sums = sums[:, order] if self.evidence == SQUARES else sums[:, order][:, :, order]
        found = self.settle(rows, sums, pruned_count(self._level(name), weight.numel()), held)
        mask = _weight(found.mask, order, weight)
        if before is not None:
            mask = mask * (before != 0)
        return mask, None if found.values is None else _weight(found.values, order, weight) * mask

    @abstractmethod
    def settle(self, rows: Tensor, sums: Tensor, count: int, before: Tensor | None) -> Settled:
        """rows: the weight (rows, columns), adjacent columns are adjacent inputs where there is a pattern. sums: of its
        evidence. count: to be pruned in all. before: its mask so far."""

    def state_dict(self) -> dict[str, object]:
        return {"allocated": dict(self.allocated)} if self.allocated else {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.allocated = dict(state.get("allocated", {}))  # type: ignore[call-overload]


def _pattern(said: Sequence[str], n: int | None, m: int | None) -> tuple[int, int] | None:
    """(n, m) where they are said. said: of weights, final_sparsity, n and m those that are."""
    wanted = ("weights", "n", "m") if {"n", "m"} & set(said) else ("weights", "final_sparsity") if said else ()
    for argument in wanted:
        if argument not in said:
            way_out = "as in final_sparsity: 0.5, or n: 2 and m: 4"
            raise ConfigError(Fault(argument, f"is missing beside {said[0]}", ABSENT, way_out))
    if "n" not in wanted:
        return None
    if "final_sparsity" in said:
        raise ConfigError(Fault("n", "cannot stand beside final_sparsity", n, "keep one of the two"))
    return checked_pattern(n, m)


def _adjacent_inputs(weight: Tensor) -> Tensor | None:
    """The order of a row's columns in which channels at one kernel position are adjacent; None: it is theirs."""
    if weight.dim() == 2:
        return None
    places = torch.arange(weight[0].numel(), device=weight.device)
    return places.view(weight.shape[1], -1).T.reshape(-1)


def _rows(weight: Tensor, order: Tensor | None) -> Tensor:
    rows = weight.flatten(1)
    return rows if order is None else rows[:, order]


def _weight(rows: Tensor, order: Tensor | None, like: Tensor) -> Tensor:
    """Rows back in the weight's shape and dtype."""
    if order is not None:
        back = torch.empty_like(rows)
        back[:, order] = rows
        rows = back
    return rows.view(like.shape).to(like.dtype)
