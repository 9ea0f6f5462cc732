"""``raydistill init``: a sweep file to begin with, for the user's own network, data and task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raydistill.analysis.network import Network
    from raydistill.sweep.file.first_space import Subject
    from raydistill.sweep.file.goal import Goal
    from raydistill.tasks import TaskConfig

_WHERE = {"language_model": "the text is", "recommender": "the ratings are", "detection": "images and annotations are"}
"""Of tasks that cannot do without ``--data-dir``: what it is."""


def init(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A trained network to start from: it knows its arch, data and task.",
            metavar="FILE",
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", "-a", help="The network (raydistill models), or pkg.mod:factory.")
    ] = None,
    model_args: Annotated[
        str | None, typer.Option(help="Arguments of its factory, as 'width: 2'.", metavar="YAML")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What is trained (raydistill tasks), or pkg.mod:Class; left out, by arch."),
    ] = None,
    task_args: Annotated[str | None, typer.Option(help="Its arguments, as 'tokens: bytes'.", metavar="YAML")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="cifar10, imagefolder, ... or pkg.mod:factory; left out, as --data-dir looks.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="A tree of class folders, CIFAR-10's folder, a text, a table.")
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="A training loop of your own, pkg.mod:function.", metavar="pkg.mod:function")
    ] = None,
    train_args: Annotated[str | None, typer.Option(help="Its arguments, as 'lr: 0.02'.", metavar="YAML")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of a trial; left out, the checkpoint's or usual.")] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 16,
    goal: Annotated[
        list[str] | None,
        typer.Option(help="A bound on what is wanted, as 'macs <= 0.5x'; may be repeated.", metavar="BOUND"),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file; left out, ARCH.yaml here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a commented sweep file: what can be pruned and how far, schedule, objectives, resources.

    The file is checked as sweep checks it, data and all, before it is written.
    """
    import shlex

    from rich.console import Console

    from raydistill.cli.lines import warn
    from raydistill.files import write_atomically
    from raydistill.sweep.file.space_file import file_for, may_write

    network, arguments = _read(checkpoint, arch), _mapping(model_args, "--model-args")
    known = network.arch if network is not None else _asked(arch)
    file = output or file_for(known)
    may_write(file, overwrite, "-o")
    subject = _subject(
        known, network, arguments, _task(task, task_args, known, network, data_dir, arguments), dataset, data_dir,
        _loop(train, train_args), epochs, num_samples,
    )  # fmt: skip
    wanted = read_goal(goal, subject)
    text, notes = checked(file, subject, wanted)
    write_atomically(file, text)
    console = Console(highlight=False)
    for note in notes:
        warn(console, note)
    name = shlex.quote(str(file))
    console.print(
        f"{file}: change what you like, then\n  raydistill sweep {name} --dry-run\n  raydistill sweep {name}",
        soft_wrap=True,
        markup=False,
    )


def usual_subject(
    arch: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    epochs: int | None,
    num_samples: int | None,
) -> Subject:
    """What is known without a task, a loop or arguments of one's own."""
    network = _read(checkpoint, arch)
    known = network.arch if network is not None else _asked(arch)
    task = _task(None, None, known, network, data_dir, {})
    return _subject(known, network, {}, task, dataset, data_dir, None, epochs, num_samples or 16)


def read_goal(said: list[str] | None, subject: Subject) -> Goal | None:
    from raydistill.sweep.file.goal import parse_goal

    return parse_goal(said, "--goal", subject.metrics) if said else None


def _read(checkpoint: Path | None, arch: str | None) -> Network | None:
    if checkpoint is None:
        return None
    from raydistill.analysis.network import read_network

    return read_network(checkpoint, arch)


def _asked(arch: str | None) -> str:
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.models import MENU
    from raydistill.resolve import resolve

    if not arch:
        way_out = "name the network (raydistill models lists them), or give a checkpoint with --from"
        raise ConfigError(Fault("--arch", "is missing", ABSENT, way_out))
    resolve(arch, MENU, "--arch", "model")
    return arch


def _mapping(text: str | None, option: str) -> dict[str, Any]:
    from raydistill.cli.options import arguments

    return {} if text is None else dict(arguments(text, option))


def _loop(train: str | None, train_args: str | None) -> dict[str, object] | None:
    from raydistill.errors import ConfigError, Fault

    if train is None:
        if train_args is not None:
            raise ConfigError(Fault("--train-args", "is for a loop of one's own", train_args, "add --train"))
        return None
    args = _mapping(train_args, "--train-args")
    return {"name": train, **({"args": args} if args else {})}


def _task(
    name: str | None,
    args: str | None,
    arch: str,
    network: Network | None,
    data_dir: Path | None,
    model_args: Mapping[str, object],
) -> TaskConfig:
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.models.inputs import SEQUENCE_LENGTH
    from raydistill.tasks import TaskConfig
    from raydistill.tasks.of_checkpoint import task_by_arch, task_of_content

    said = _mapping(args, "--task-args")
    if name is None and network is not None:
        found = task_of_content(network.content, str(network.path))
    elif name is None:
        found = TaskConfig(task_by_arch(arch))
    else:
        found = TaskConfig(name)
    if found.name in _WHERE and data_dir is None:
        raise ConfigError(Fault("--data-dir", f"is missing: where {_WHERE[found.name]}", ABSENT, f"for {found.name}"))
    context = model_args.get("context")
    if found.name == "language_model" and isinstance(context, int) and context < SEQUENCE_LENGTH:
        said.setdefault("bptt", context)  # it sees no more at a time
    return TaskConfig(found.name, {**found.args, **said})


def _subject(
    arch: str,
    network: Network | None,
    model_args: dict[str, Any],
    task: TaskConfig,
    dataset: str | None,
    data_dir: Path | None,
    train: Mapping[str, object] | None,
    epochs: int | None,
    num_samples: int,
) -> Subject:
    """What is known of it all, from the options, the checkpoint and the folder with the data."""
    import shlex
    import sys

    from raydistill.sweep.file.first_space import Subject
    from raydistill.tasks import metrics_of

    run = network.content["run"] if network is not None else {}
    arguments = {key: value for key, value in (run.get("model_args") or {}).items() if key != "removed"}
    known_epochs = len(network.content.get("history") or ()) if network is not None else 0
    return Subject(
        arch=arch,
        task=task,
        metrics=metrics_of(task),
        dataset=_dataset(task, dataset, data_dir, network),
        command=shlex.join(["raydistill", *sys.argv[1:]]),
        model_args={**arguments, **model_args},
        train=train,
        checkpoint=None if network is None else network.path,
        epochs=epochs or known_epochs or None,
        training={key: run[key] for key in _of_training() if key in run},
        num_samples=num_samples,
    )


def _of_training() -> tuple[str, ...]:
    from raydistill.parts import Training, settings

    return tuple(field.name for field in settings(Training) if field.name != "epochs")


def _dataset(task: TaskConfig, name: str | None, data_dir: Path | None, network: Network | None) -> dict[str, Any]:
    """The dataset section: what is said, else what the checkpoint was trained on, else what the folder looks like."""
    from raydistill.errors import ConfigError, Fault
    from raydistill.tasks import MENU, TaskConfig

    content = network.content if network is not None else {}
    run = content.get("run", {})
    found: dict[str, Any] = {key: run[key] for key in ("validation", "split_seed", "augment") if key in run}
    if data_dir is not None:
        if not data_dir.expanduser().exists():
            raise ConfigError(Fault("--data-dir", "no such file or folder", str(data_dir), "check the path"))
        found["data_dir"] = str(data_dir.expanduser().resolve())
    if task.name != TaskConfig().name:
        usual = {"regression": "diabetes"} if task.name in MENU and data_dir is None else {}
        named = name or usual.get(task.name)
        found.pop("augment", None)
        return {**found, **({"name": named} if named else {"name": "cifar10"})}
    if name is None:
        name = _seen(content, network) or _looks(data_dir)
    if (content.get("preprocessing") or {}).get("channels") == "grey":
        found["channels"] = "grey"
    if name == "cifar10" and data_dir is None:
        found["fallback"] = "digits"
    return {"name": name, **found}


def _seen(content: Mapping[str, object], network: Network | None) -> str | None:
    """The dataset that a checkpoint was trained on, if that is on the menu."""
    from raydistill import datasets
    from raydistill.errors import ConfigError, Fault

    said = content.get("dataset")
    if network is None or said is None:
        return None
    if said not in datasets.NAMES:
        rule = f"{network.path} was trained on a dataset that is not on the menu"
        raise ConfigError(Fault("--dataset", rule, said, "name it yourself"))
    return str(said)


def _looks(data_dir: Path | None) -> str:
    """What a folder holds: classes in folders, or CIFAR-10's own files."""
    if data_dir is None:
        return "cifar10"
    folder = data_dir.expanduser()
    batches = [folder, folder / "cifar-10-batches-py"]
    return "cifar10" if any((place / "data_batch_1").exists() for place in batches) else "imagefolder"


def checked(file: Path, subject: Subject, goal: Goal | None = None) -> tuple[str, list[str]]:
    """The text of the file, which a sweep takes as it is, and what there is to say about it.

    Raises:
        RaydistillError: it would not take it.
    """
    from raydistill.sweep.file.first_space import first_space
    from raydistill.sweep.file.load import load_sweep
    from raydistill.sweep.file.subject_network import network_of
    from raydistill.sweep.planning.plan import plan_sweep
    from raydistill.sweep.planning.task import sweep_task

    built = network_of(subject)
    text = first_space(file, built.subject, built.model, goal, built.example)
    sweep = load_sweep(file, text=text)
    task = sweep_task(sweep)
    notes = [*built.notes, *(line for line in (task.warning, task.note) if line)]
    plan_sweep(sweep, task)
    return text, notes
