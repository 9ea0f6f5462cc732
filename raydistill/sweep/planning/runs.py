"""The runs that a sweep is made of, before they are placed: of a trial, of the dense baseline, of the trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.records import BASELINE, Scalar
from raydistill.schedule import ScheduleSpec, parse_schedule, policies_beyond
from raydistill.sweep.file.load import LOOP, Sweep, relocate
from raydistill.sweep.file.spec import TrainingSection
from raydistill.training import Distillation, RunConfig


def run_config(
    sweep: Sweep,
    training: TrainingSection,
    schedule: ScheduleSpec | None,
    values: Mapping[str, Scalar] | None = None,
) -> RunConfig:
    """The run of a trial with what was drawn for it, or of the baseline, before it is placed."""
    sections = sweep.sections
    drawn = values or {}
    of_loop = {path.removeprefix(LOOP): value for path, value in drawn.items() if path.startswith(LOOP)}
    return RunConfig(
        arch=sections.model.arch,
        model_args=sections.model.args,
        task=sweep.task,
        dataset=sweep.dataset,
        seed=sections.seed,
        schedule=schedule,
        train=None if sections.train is None else sections.train.loop(of_loop),
        values=dict(drawn) if sections.train is not None else {},
        **dict(training),
    )


def baseline_config(sweep: Sweep) -> RunConfig:
    """The run of the dense baseline.

    Raises:
        ConfigError: its schedule does more than change the learning rate.
    """
    section = sweep.sections.baseline
    said = section.of_training(sweep.sections.training.optimizer)
    training = sweep.sections.training.model_copy(update={**said, "trains": True})  # whatever trials do
    schedule = None
    if section.schedule is not None:
        source = f"{sweep.file}: baseline.schedule"
        try:
            schedule = parse_schedule(section.schedule, source)
        except ConfigError as error:
            raise ConfigError(*relocate(error.faults)) from error
        faults: list[Fault | str] = [
            Fault(f"{source}.{instance.path}", "the baseline is dense, only lr_schedulers may act", ABSENT)
            for instance in schedule.instances
            if instance.section != "lr_schedulers"
        ]
        faults += policies_beyond(schedule, training.epochs, "baseline.epochs")
        if faults:
            raise ConfigError(*relocate(tuple(faults)))
    return replace(run_config(sweep, training, schedule), mean=section.mean, std=section.std)


def trunk_config(sweep: Sweep) -> RunConfig:
    """The run of the trunk, before it is placed; only for a sweep that has one."""
    section = sweep.sections.trunk
    assert section is not None
    said = {"epochs": section.epochs, "trains": True, "checkpoint_every": 1}
    said |= {key: value for key in ("lr", "batch_size") if (value := getattr(section, key)) is not None}
    training = sweep.sections.training.model_copy(update=said)
    return run_config(sweep, training, parse_schedule(section.schedule(), f"{sweep.file}: trunk"))


def distillation_of(sweep: Sweep) -> Distillation | None:
    """The teacher of every trial; without a checkpoint it is the baseline, which is not there yet."""
    section = sweep.sections.distillation
    if section is None:
        return None
    return Distillation(
        teacher=section.arch,
        checkpoint=None if section.teacher == BASELINE else section.teacher,
        temperature=section.temperature,
        distill_wt=section.distill_wt,
        student_wt=section.student_wt,
        start_epoch=section.start_epoch,
        end_epoch=section.end_epoch,
        hidden=section.hidden or {},
        hidden_wt=section.hidden_wt,
        hidden_loss=section.hidden_loss,
    )
