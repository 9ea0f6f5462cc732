"""``raydistill compress run.yaml``: one run, said in the sections of a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from raydistill.errors import ConfigError, Fault
from raydistill.parts import Optimizer
from raydistill.parts.kinds import Whole
from raydistill.schedule import ScheduleSpec, parse_schedule, read_yaml
from raydistill.schedule.file_kind import RUN, check_kind
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.load import relocate
from raydistill.sweep.file.spec import (
    DatasetSection,
    ModelSection,
    Section,
    TaskSection,
    TrainingSection,
    TrainSection,
    beside,
)
from raydistill.sweep.file.warm_entries import schedule_file
from raydistill.training.optimizer import check_optimization


class RunSections(Section):
    """The whole file; each section is that of a sweep file."""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)] | None = None
    model: ModelSection
    task: TaskSection = Field(default_factory=TaskSection)
    train: TrainSection | None = None
    dataset: DatasetSection = Field(default_factory=DatasetSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    schedule: str | dict[str, Any] | None = None
    seed: Whole = 0


class RunFile:
    """A run file, read. sections: as typed values. schedule: None trains densely."""

    def __init__(self, file: Path, sections: RunSections, schedule: ScheduleSpec | None) -> None:
        self.file, self.sections, self.schedule = file, sections, schedule

    def said(self) -> dict[str, Any]:
        """What is written there of the parts of a run, by the names of `RunConfig`'s fields and `DatasetConfig`'s."""
        sections = self.sections
        found = {name: getattr(sections.training, name) for name in sections.training.model_fields_set}
        found |= {name: getattr(sections.dataset, name) for name in sections.dataset.model_fields_set}
        if "seed" in sections.model_fields_set:
            found["seed"] = sections.seed
        if found.get("data_dir") is not None:
            found["data_dir"] = str(beside(self.file, found["data_dir"]))
        return found

    @property
    def optimizer(self) -> Mapping[str, Any]:
        """What is written in ``training.optimizer``."""
        said, plain = self.sections.training.optimizer, Optimizer()
        return {name: value for name, value in vars(said).items() if value != getattr(plain, name)}


def load_run(file: Path) -> RunFile:
    """Read a run file.

    Raises:
        ConfigError: everything that is wrong, as far as it shows without the network and the data.
    """
    raw = read_yaml(file)
    check_kind(raw, RUN, str(file))
    sections, found = validate(RunSections, raw, str(file))
    faults: list[Fault | str] = [*found]
    schedule = None
    node = raw.get("schedule")
    try:
        if isinstance(node, str):
            schedule = schedule_file(file, node, f"{file}: schedule")
        elif isinstance(node, Mapping):
            schedule = parse_schedule(node, f"{file}: schedule")
    except ConfigError as error:
        faults += relocate(error.faults)
    if sections is not None:
        faults += check_optimization(sections.training, f"{file}: training")
    if faults:
        raise ConfigError(*faults)
    return RunFile(file, sections, schedule)
