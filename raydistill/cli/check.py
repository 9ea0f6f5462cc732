"""``raydistill check``: does a schedule fit a model, and what would it do, epoch by epoch?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from raydistill.compression import CompressionScheduler
    from raydistill.compression.timeline import Action
    from raydistill.schedule import ScheduleSpec

SHOWN = 40
NAMES_SHOWN = 6


def check(
    file: Annotated[Path, typer.Argument(help="The schedule.", show_default=False)],
    arch: Annotated[str, typer.Option("--arch", "-a", help="The model it is for, or pkg.mod:factory.")],
    input_shape: Annotated[
        str | None, typer.Option(help="Of one input, such as 3x32x32; left out, what the arch takes.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Classes; left out, what the arch is for.")] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Try its first, a middle and its last epoch on random data.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A weight that the model lacks, or a key given twice, is an error.")
    ] = False,
    every_epoch: Annotated[
        bool,
        typer.Option(
            "--all",
            help=f"All epochs and weights; left out, at most {SHOWN} lines and {NAMES_SHOWN} names.",
        ),
    ] = False,
    structures: Annotated[
        bool, typer.Option("--structures", help="What can be pruned by structures, also where the schedule does not.")
    ] = False,
) -> None:
    """Check a schedule against a model and print what it would do; every fault is a line, and the exit code is 2."""
    import torch
    from rich.console import Console

    from raydistill import compression, models
    from raydistill.cli.lines import warn
    from raydistill.cli.offered import say_offered
    from raydistill.cli.summary import parse_shape
    from raydistill.compression.timeline import taken, timeline
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.schedule import load_schedule
    from raydistill.training.rehearsal import rehearse

    console = Console(highlight=False)
    errors = Console(stderr=True, highlight=False)
    spec = load_schedule(file, strict)
    torch.manual_seed(0)
    classes = num_classes if num_classes is not None else models.default_num_classes(arch, "--arch")
    model = models.create(arch, classes, None, "--arch")
    shape = None if input_shape is None else parse_shape(input_shape)
    inputs = models.example_input(arch, batch=2, dataset_shape=shape, num_classes=classes, where="--arch")
    models.check_input(model, inputs, arch, "--arch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = compression.build(spec, model, optimizer, inputs, strict)
    for warning in scheduler.warnings:
        warn(errors, warning)
    actions = timeline(scheduler)
    console.print(_weights_table(taken(scheduler), None if every_epoch else NAMES_SHOWN))
    say_offered(console, scheduler, model, inputs, structures)
    console.print(_table(actions if every_epoch else actions[:SHOWN]))
    if len(actions) > SHOWN and not every_epoch:
        console.print(f"... and {len(actions) - SHOWN} more: --all shows them")
    if run:
        done = rehearse(spec, models.create(arch, classes, None, "--arch"), inputs, strict)
        ran = ", ".join(f"{epoch} ({fraction:.1%} sparse after it)" for epoch, fraction in done)
        console.print(f"ran on random data: epochs {ran}", soft_wrap=True)
    idle, pruners = _idle(spec, scheduler), [one.name for one in spec.instances if one.section == "pruners"]
    if pruners and len(idle) == len(pruners):
        rule = f"does not fit {arch}: it prunes nothing, " + "; ".join(f"{name} {why}" for name, why in idle.items())
        raise ConfigError(
            Fault(str(file), rule, ABSENT, f"raydistill summary sparsity --arch {arch} lists its weights")
        )
    unmatched = f", {len(scheduler.warnings)} warnings" if scheduler.warnings else ""
    without = f"; without use: {', '.join(f'{name} {why}' for name, why in idle.items())}" if idle else ""
    console.print(f"{file}: fits {arch}{unmatched}{without}", soft_wrap=True)


def _idle(spec: ScheduleSpec, scheduler: CompressionScheduler) -> dict[str, str]:
    """The pruners that prune nothing, and why."""
    found = {}
    for pruner in (one.name for one in spec.instances if one.section == "pruners"):
        acting = [one for one in scheduler.scheduled if (one.spec.kind, one.spec.instance_name) == ("pruner", pruner)]
        if not acting:
            found[pruner] = "is in no policy"
        elif not any(getattr(one.policy, "weights", ()) for one in acting):
            found[pruner] = "acts on no weight"
    return found


def _weights_table(taken: Mapping[str, Sequence[str]], most: int | None) -> Table:
    """Which weights each entry of the schedule acts on; at most so many names each."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what acts", overflow="fold")
    table.add_column("on", justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for path, names in taken.items():
        more = len(names) - (most or len(names))
        shown = [*names[:most], *([f"... and {more} more"] if more > 0 else [])]
        table.add_row(path, str(len(names)), "\n".join(shown))
    return table


def _table(actions: list[Action]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("what acts", overflow="fold")
    table.add_column("planned %", justify="right", no_wrap=True)
    for action in actions:
        first, last = action.epochs
        epochs = f"{first}" if first == last else f"{first}-{last}"
        table.add_row(epochs, "\n".join(action.does), f"{100 * action.sparsity:.2f}")
    return table
