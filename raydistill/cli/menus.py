"""``raydistill models`` and ``raydistill tasks``: what there is to name in a file."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    pattern: Annotated[str, typer.Argument(help="Of names, as 'resnet*'.")] = "*",
) -> None:
    """List the networks that --arch and a file's model.arch may name; your own is pkg.mod:factory."""
    import inspect
    import textwrap
    from fnmatch import fnmatchcase

    from rich.console import Console

    from raydistill.errors import ConfigError, Fault, close_match
    from raydistill.models import MENU, domain
    from raydistill.models.menu import OWN

    names = [name for name in MENU if fnmatchcase(name, pattern)]
    if not names:
        raise ConfigError(Fault("PATTERN", "matches no network", pattern, close_match(pattern, MENU)))
    console = Console(highlight=False)
    for name in names:
        if name not in OWN:
            console.print(f"{name:<32} torchvision", soft_wrap=True, markup=False)
            continue
        made_for = domain(name, {}).image_shape
        takes = "x".join(map(str, made_for)) if made_for is not None else "no images"
        arguments = [argument for argument in inspect.signature(MENU[name]).parameters if argument != "num_classes"]
        line = f"{name:<32} {takes:<9}  {', '.join(arguments)}".rstrip()
        wrapped = textwrap.fill(line, console.width, subsequent_indent=" " * 44)
        console.print(wrapped, soft_wrap=True, markup=False)


def tasks() -> None:
    """List the tasks that --task and a file's task.name may name; your own is pkg.mod:Class."""
    import inspect
    import textwrap

    from rich.console import Console

    from raydistill.resolve import resolve
    from raydistill.tasks import MENU, TaskConfig, metrics_of

    console = Console(highlight=False)
    for name, place in MENU.items():
        kind = resolve(place, {}, "task", "task")
        about = " ".join((inspect.getmodule(kind).__doc__ or "").partition("\n\n")[0].split())
        said = ", ".join(f"{metric} ({found.direction})" for metric, found in metrics_of(TaskConfig(name)).items())
        for label, text in ((name, about), ("", f"Metrics: {said}.")):
            begins = f"{label:<16}"
            wrapped = textwrap.fill(text, console.width, initial_indent=begins, subsequent_indent=" " * len(begins))
            console.print(wrapped, soft_wrap=True, markup=False)
