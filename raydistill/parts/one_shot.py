"""What ``compress`` says of pruning after training, in place of a schedule.

Its annotations are no strings, as those of the other parts.
"""

from dataclasses import dataclass
from typing import Annotated

from raydistill.parts.setting import Role, Setting


def _free(help: str, option: str, metavar: str | None = None) -> Setting:
    return Setting(help, (), option, Role.FREE, metavar, searchable=False)


@dataclass(frozen=True, kw_only=True)
class OneShot:
    """How a checkpoint is pruned at once, by the arguments of WandaPruner and SparseGPTPruner."""

    method: Annotated[str | None, _free("wanda or sparsegpt: prune --resume-from, without a schedule.", "one-shot")] = (
        None
    )
    weights: Annotated[
        tuple[str, ...], _free("Which, as blocks.*.weight,fc.weight; left out, all.", "one-shot-weights")
    ] = ("*",)
    types: Annotated[tuple[str, ...], _free("Of layers of these classes, as Linear.", "one-shot-types")] = ()
    excluded: Annotated[tuple[str, ...], _free("But not these, as lm_head.weight.", "one-shot-except")] = ()
    sparsity: Annotated[float | None, _free("Of each of them.", "one-shot-sparsity")] = None
    pattern: Annotated[str | None, _free("N:M in place of it, as 2:4.", "one-shot-pattern", "N:M")] = None
    allocation: Annotated[str, _free("uniform, or owl: levels by outliers.", "one-shot-allocation")] = "uniform"
    batches: Annotated[int, _free("Of training data that calibrate.", "one-shot-batches")] = 16
