"""What ``raydistill check`` says of the structures that a network offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from raydistill.compression import CompressionScheduler
    from raydistill.compression.thinning.coupling import Coupling

REASONS_SHOWN = 4


def say_offered(
    console: Console, scheduler: CompressionScheduler, model: nn.Module, inputs: Sequence[object], asked: bool
) -> None:
    """Print it where the schedule prunes structures, or somebody asked; looking for them takes seconds, so it is not
    done for others."""
    from rich import box
    from rich.table import Table

    from raydistill.compression.thinning.coupling import couplings
    from raydistill.compression.thinning.depth import blocks_of
    from raydistill.compression.thinning.offered import BLOCKS, stays, structures_by_kind

    taking: dict[str, Sequence[Coupling]] = {}
    dropping: dict[str, int] = {}
    offer = None
    for scheduled in scheduler.scheduled:
        pruner = getattr(scheduled.policy, "pruner", None)
        offer = getattr(pruner, "offer", None) or offer
        if getattr(pruner, "blocks", ()):
            dropping[scheduled.spec.instance_name] = len(pruner.blocks)  # type: ignore[union-attr]
        if getattr(pruner, "offer", None) is not None:
            taking[scheduled.spec.instance_name] = pruner.couplings  # type: ignore[union-attr]
    if offer is None and (asked or dropping):
        offer = couplings(model, list(inputs))
    if offer is None:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("structures", no_wrap=True)
    for column in ("couplings", "of them", "% of parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("taken by", overflow="fold")
    for row in structures_by_kind(offer, model, blocks_of(model, list(inputs))):
        counts = {name: sum(each.kind == row.kind for each in found) for name, found in taking.items()}
        counts |= dropping if row.kind == BLOCKS else {}
        users = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
        table.add_row(row.kind, str(row.couplings), str(row.structures), f"{100 * row.share:.1f}", users)
    console.print(table)
    kept = stays(offer, model)
    for line in kept[:REASONS_SHOWN]:
        more = f" and {len(line.layers) - 1} more" if len(line.layers) > 1 else ""
        console.print(f"stays: {line.layers[0]}{more}: {line.reason}", soft_wrap=True, markup=False)
    if len(kept) > REASONS_SHOWN:
        console.print(f"... and {len(kept) - REASONS_SHOWN} more reasons: raydistill summary structures lists all")
