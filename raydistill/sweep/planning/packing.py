"""Whether a sweep's trials can be trained several as one network, and what that takes: said before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raydistill.sweep.file.load import Sweep
from raydistill.sweep.planning.plan import Plan
from raydistill.sweep.planning.runs import run_config
from raydistill.tasks import Task
from raydistill.training.packing.cost import TrialBytes, bytes_of_trial, fits
from raydistill.training.packing.member import always_alone

AUTO = "auto"


@dataclass(frozen=True)
class Packing:
    """asked: how many trials together; None: as many as are measured to be fastest. why: trials are trained one by one,
    for this reason; "": they are not. bytes: of one trial; None where they are trained one by one."""

    asked: int | None
    why: str = ""
    bytes: TrialBytes | None = None

    @property
    def wanted(self) -> bool:
        """Whether several trials may be trained together."""
        return self.asked != 1 and not self.why

    def __str__(self) -> str:
        if self.why:
            return f"none, trials are trained one by one: {self.why}"
        if self.bytes is None:
            return "none"
        each = f"{_mib(self.bytes.total)} a trial"
        if self.asked is None:
            return f"as many trials as are measured to be fastest as one network, {each}"
        return f"{self.asked} trials as one network, about {_mib(self.asked * self.bytes.total)} ({each})"


def packing_of(sweep: Sweep, plan: Plan, task: Task) -> Packing:
    """What the file asks for, tried on the untrained network."""
    section = sweep.sections.resources_per_trial
    asked = None if section is None or section.pack == AUTO else int(section.pack)
    if section is None or asked == 1:
        return Packing(1)
    why = _why_not(sweep, plan)
    if why:
        return Packing(asked, why)
    training = sweep.sections.training
    with torch.random.fork_rng(devices=[]):
        network = task.network(sweep.sections.model.arch, sweep.sections.model.args, fetch=False)
        network = network.to(memory_format=torch.channels_last)
        found = fits(network, task, training.batch_size)
        if found.why:
            return Packing(asked, found.why)
        return Packing(asked, "", bytes_of_trial(network, task, training.batch_size))


def _why_not(sweep: Sweep, plan: Plan) -> str:
    sections = sweep.sections
    if sections.workers_per_trial > 1:
        return "each trains on workers of its own"
    if sections.train is not None:
        return "the training loop is one's own"
    if sections.distillation is not None:
        return "a teacher watches each network by itself"
    runs = [trial.run for trial in plan.trials] or [run_config(sweep, sections.training, sweep.schedule)]
    if all(run.schedule is not None and any(i.section == "quantizers" for i in run.schedule.instances) for run in runs):
        return "their networks are quantized"
    return next((why for why in map(always_alone, runs) if why), "")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
