"""``raydistill sweep --goal``: the sweep file is written from what is wanted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path


def space_of(
    file: Path | None,
    goal: list[str] | None,
    arch: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    epochs: int | None,
    num_samples: int | None,
    name: str | None,
    resume: bool,
    searcher: Mapping[str, object] | None = None,
) -> tuple[Path, str | None]:
    """The sweep file, and what is to stand in it where it is to be written first.

    Raises:
        RaydistillError: there is no file and no goal, or both; or the network and the data do not go together.
    """
    from raydistill.cli.init import checked, read_goal, usual_subject
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.sweep.file.space_file import file_for, sweep_name

    if not goal:
        idle = {"--arch": arch, "--from": checkpoint}
        given = [option for option, said in idle.items() if said is not None]
        if given:
            raise ConfigError(Fault(given[0], "is for --goal", ABSENT, "say it in the file"))
        if file is None:
            way_out = (
                "name one, as search_spaces/simplenet.yaml, or say what is wanted: --goal 'macs <= 0.5x' --arch ARCH"
            )
            raise ConfigError(Fault("FILE", "there is no sweep file", ABSENT, way_out))
        return file, None
    if file is not None:
        raise ConfigError(Fault("--goal", "takes the place of a file", str(file), "keep one; a file says 'goal: ...'"))
    subject = usual_subject(arch, checkpoint, dataset, data_dir, epochs, num_samples)
    if searcher is not None:
        subject = replace(subject, searcher=str(searcher["name"]))
    wanted = read_goal(goal, subject)
    assert wanted is not None
    space = file_for(f"{subject.arch}_{wanted.figure}")
    if name is not None:
        space = Path(f"{sweep_name(Path(f'{name}.yaml'))}.yaml")
    if space.exists():
        if resume:
            return space, None
        way_out = f"raydistill sweep {shlex.quote(str(space))} runs it; --name NAME writes another"
        raise ConfigError(Fault("--goal", f"{space} is there already", ABSENT, way_out))
    return space, checked(space, subject, wanted)[0]
