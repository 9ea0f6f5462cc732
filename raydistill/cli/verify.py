"""``raydistill verify``: is what lies in an artifact folder what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydistill.cli.kept import Arch, Formats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from raydistill.export import Manifest
    from raydistill.tasks import Task

_NONE = "none"


def verify(
    folder: Annotated[Path, typer.Argument(help="What pick or export wrote.", show_default=False)],
    split: Annotated[str, typer.Option(help="Evaluate on test, validation, or none: outputs alone.")] = "test",
    form: Formats = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data are; left out, as the sweep had them.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Another dataset than the manifest names.")] = None,
    task: Annotated[str | None, typer.Option(help="Your own task, as pkg.mod:Class.")] = None,
    arch: Arch = None,
) -> None:
    """Run each format of an artifact folder in its own runtime: outputs against the masked network, metrics on a split.

    Ends with exit code 1 where something is not as the manifest says.
    """

    from rich.console import Console

    from raydistill.cli.kept import format_names
    from raydistill.errors import ConfigError, Fault, close_match
    from raydistill.export import asked_for, read_manifest
    from raydistill.export.verify import changed_files, prepared, verified

    splits = ("test", "validation", _NONE)
    if split not in splits:
        raise ConfigError(Fault("--split", "no such split", split, close_match(split, splits)))
    console = Console(highlight=False)
    manifest = read_manifest(folder)
    forms = format_names(form) if form else manifest.formats
    for name in forms:
        if name not in manifest.formats:
            way_out = manifest.left_out.get(name) or f"it has {', '.join(manifest.formats)}"
            raise ConfigError(Fault("--format", f"{folder} was written without it", name, way_out))
    asked_for(forms, "--format")
    wrong = changed_files(folder, manifest)
    for line in wrong:
        console.print(line, style="bold red", soft_wrap=True, markup=False)
    data = None if split == _NONE else _task(manifest, folder, dataset, data_dir, task, console)
    if data is not None:
        data = prepared(folder, manifest, data, arch)
    bad = bool(wrong)
    for found in verified(folder, manifest, forms, data, split, arch):
        line = f"{found.form:<12} {found.runtime:<12} "
        if found.fault:
            console.print(f"{line}{found.fault}", style="bold red", soft_wrap=True, markup=False)
            bad = True
            continue
        line += manifest.kind.said(found.difference)
        if found.evaluation is not None and data is not None:
            from raydistill.cli.tables import first_in_words

            line += f"; {split} {first_in_words(found.evaluation.metrics, data.metrics)}"
            said, odd = _against(manifest, split, found.evaluation.metrics, found.evaluation.samples)
            line, bad = f"{line}, {said}", bad or odd
        console.print(line, soft_wrap=True, markup=False)
    console.print(
        "not as its manifest says" if bad else "all as its manifest says", style="bold red" if bad else "bold"
    )
    if bad:
        raise typer.Exit(1)


def _against(manifest: Manifest, split: str, metrics: Mapping[str, float], samples: int) -> tuple[str, bool]:
    """How a metric compares with the one the masked network had, and whether that is odd: by a sample in 1,000, for a
    tie may fall either way in another runtime."""
    name = next(iter(metrics))
    before = manifest.figures.get(split, {}).get(name)
    if before is None:
        return f"{samples:,} samples", False
    if manifest.partial:
        return f"the masked network with its state had {before:.6g}, {samples:,} samples", False
    off = abs(metrics[name] - before)
    if samples and round(off * samples) == 0:
        return f"that of the masked network, {samples:,} samples", False
    return f"the masked network had {before:.6g}, {samples:,} samples", off > 0.001 * max(1.0, abs(before))


def _task(
    manifest: Manifest, folder: Path, dataset: str | None, data_dir: Path | None, own: str | None, console: Console
) -> Task:
    from dataclasses import fields

    from raydistill import tasks
    from raydistill.datasets import DatasetConfig
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.tasks import TaskConfig, Weights

    name = own or manifest.task.get("name") or ""
    if ":" in name and own is None:
        rule = "is of a task of your own, which is called only where you name it yourself"
        raise ConfigError(Fault(str(folder), rule, name, f"--task {name}, or --split none"))
    if not name:
        raise ConfigError(Fault(str(folder), "does not say its task", ABSENT, "--task NAME, or --split none"))
    known = {field.name for field in fields(DatasetConfig)}
    said: dict[str, Any] = {}
    for key, value in manifest.task.get("dataset", {}).items():
        if key in known and value is not None:
            said[key] = tuple(value) if isinstance(value, list) else value
    said |= {"name": dataset} if dataset is not None else {}
    said |= {"data_dir": str(data_dir)} if data_dir is not None else {}
    if ":" in str(said.get("name", "")) and dataset is None:
        rule = "is of a dataset of your own, which is called only where you name it yourself"
        raise ConfigError(Fault(str(folder), rule, said["name"], f"--dataset {said['name']}, or --split none"))
    config = DatasetConfig(**said)
    weights = Weights(manifest.arch, manifest.model_args, where=str(folder))
    args = manifest.task.get("args", {}) if name == manifest.task.get("name") else {}
    found = tasks.load(TaskConfig(name, args), config, weights)
    if found.used_fallback and found.name != manifest.task.get("data"):
        rule = f"its data cannot be had, only {found.name} in their place"
        raise ConfigError(Fault(str(folder), rule, ABSENT, "name them: --data-dir DIR; or --split none"))
    for line in filter(None, (found.note, "" if found.used_fallback else found.warning)):
        console.print(line, soft_wrap=True, markup=False)
    return found
