"""What a goal of sparsity writes: a trunk, and where trials may branch off from it.

One gradual pruning passes every sparsity, and a short decay of the rate behind it is as good as a whole schedule
(Haegele et al. 2024, arXiv 2405.18392): what a bound asks for is a branch near it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raydistill.sweep.file.goal import SPARSITY, Goal
from raydistill.sweep.file.space_file import flow

EPOCHS = 4
"""Of a trunk, in those of a trial."""
_LEAST, _MOST = 0.5, 0.97
"""Where the bound is on the metric alone."""
_BEYOND = 0.8
"""The density at a trunk's end, of that which a bound asks for: most of its epochs lie before the bound."""
_BEGINS = 0.3
_SLOWER = 0.25
"""The lowest rate of a branch, of the trunk's."""


def levels(goal: Goal) -> tuple[float, float]:
    """The sparsities between which trials branch off; the trunk ends at the second."""
    asked = [bound.bound for bound in goal.bounds if bound.figure == SPARSITY]
    if not asked:
        return _LEAST, _MOST
    return max(asked), min(round(1 - _BEYOND * (1 - max(asked)), 4), 0.9999)


def trunk_lines(goal: Goal, epochs: int, weights: Sequence[str]) -> list[str]:
    """The section. epochs: of a trial. weights: names and globs; none: all."""
    _, most = levels(goal)
    begins = min(_BEGINS, round(most / 2, 4))
    said: dict[str, object] = {"epochs": EPOCHS * epochs, "initial_sparsity": begins, "final_sparsity": most}
    lines = ["# One gradual pruning of the dense network at a constant rate, one threshold over all weights."]
    if not weights:
        return [*lines, f"trunk: {flow(said)}"]
    lines += ["trunk:", *(f"  {key}: {flow(value)}" for key, value in said.items())]
    return [*lines, "  weights:", *(f"    - {flow(weight)}" for weight in weights)]


def search_lines(goal: Goal, training: Mapping[str, object]) -> list[str]:
    """What is drawn: where a trial branches off, and the rate that it begins to fall from."""
    optimizer = training.get("optimizer")
    inside = optimizer if isinstance(optimizer, Mapping) and "lr" in optimizer else training
    path, rate = ("training.lr" if inside is training else "training.optimizer.lr"), inside.get("lr")
    lines = [f"  trunk.sparsity: {{uniform: {flow(list(levels(goal)))}}}    # where a trial branches off"]
    if isinstance(rate, int | float):
        lines.append(f"  {path}: {{loguniform: {flow([float(f'{_SLOWER * rate:.3g}'), rate])}}}")
    return lines
