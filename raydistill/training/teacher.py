"""The teacher of a run with knowledge distillation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression import CompressionScheduler
from raydistill.compression.distillation import KnowledgeDistillationPolicy, check_weights
from raydistill.compression.hidden_states import check_hidden
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault
from raydistill.tasks import Task, Weights
from raydistill.training import checkpoint as saved
from raydistill.training.config import Distillation, RunConfig
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.start import removed_layers

_WHERE = "distillation"


def check_distillation(config: Distillation, epochs: int) -> list[Fault]:
    """What cannot be, before anything is read."""
    faults = []
    try:
        check_weights(config.temperature, config.distill_wt, config.student_wt, config.teacher_wt)
    except ConfigError as error:
        faults += [fault for fault in error.faults if isinstance(fault, Fault)]
    faults += check_hidden(config.hidden, config.hidden_wt, config.hidden_loss)
    if (config.checkpoint is None) == (not config.pretrained):
        rule = "needs a checkpoint (--kd-resume), or pretrained and the name of a teacher, and not both"
        faults.append(Fault(f"{_WHERE}.checkpoint", rule, config.checkpoint))
    elif config.pretrained and config.teacher is None:
        faults.append(Fault(f"{_WHERE}.teacher", "is missing", ABSENT, "name the architecture (--kd-teacher)"))
    end = epochs if config.end_epoch is None else config.end_epoch
    if not 0 <= config.start_epoch < end:
        rule = f"must be from 0 to below {end}, where distillation ends"
        faults.append(Fault(f"{_WHERE}.start_epoch", rule, config.start_epoch))
    return faults


def load_teacher(config: Distillation, task: Task, student: str | None = None) -> nn.Module:
    """The teacher on the CPU, in eval mode, as it can be handed the task's batches. student: the run's architecture,
    which its teacher may have too.

    Raises:
        CheckpointError, ConfigError: it cannot be had, or knows other classes.
    """
    if config.checkpoint is None:
        assert config.teacher is not None  # checked before
        arguments = {**config.model_args, "pretrained": True}
        where = f"{_WHERE}.teacher"
        network = task.network(config.teacher, arguments, where)
        return task.teach(network, Weights(config.teacher, arguments, None, where)).eval()
    content = read_any(config.checkpoint)
    arch = content["run"]["arch"]
    named = config.teacher or (student if arch == student else None)
    if config.teacher is not None and arch in models.MENU and arch != config.teacher:
        raise CheckpointError(Fault(config.checkpoint, f"is of '{arch}'", config.teacher, "name that one as teacher"))
    if named is None and arch not in models.MENU:
        rule = "does not say its architecture" if arch is None else "is of an architecture that is not on the menu"
        way_out = "name the teacher (--kd-teacher, distillation.arch)"
        raise CheckpointError(Fault(config.checkpoint, rule, ABSENT if arch is None else arch, way_out))
    task.check_knows(content, config.checkpoint)
    run = dict(content["run"])
    if config.model_args:
        run["model_args"] = {**removed_layers(content), **config.model_args}
    network = saved.model_of({**content, "run": run}, config.checkpoint, named)
    return task.teach(network, Weights.of_checkpoint(content, config.checkpoint, named or arch)).eval()


def add_teacher(
    config: RunConfig, task: Task, model: nn.Module, scheduler: CompressionScheduler, device: torch.device
) -> dict[str, Any]:
    """Let the run's teacher speak in the scheduler's loss; returns what the student's weights then depend on."""
    said = config.distillation
    assert said is not None
    teacher = load_teacher(said, task, config.arch)
    known = identity(said, teacher)
    teacher = teacher.to(device).to(memory_format=torch.channels_last)
    weights = (said.temperature, said.distill_wt, said.student_wt, said.teacher_wt)
    end = config.epochs if said.end_epoch is None else said.end_epoch
    hidden = {"hidden": said.hidden, "hidden_wt": said.hidden_wt, "hidden_loss": said.hidden_loss}
    policy = KnowledgeDistillationPolicy(model, teacher, *weights, **hidden)  # type: ignore[arg-type]
    scheduler.add(policy, said.start_epoch, end)
    return known


def identity(config: Distillation, teacher: nn.Module) -> dict[str, Any]:
    """What the student's weights depend on, as plain values: the teacher by its content, wherever its file lies."""
    values = asdict(config)
    for key in ("checkpoint", "pretrained", "teacher", "model_args"):
        del values[key]
    if not config.hidden:  # runs without are what they were
        values = {key: value for key, value in values.items() if not key.startswith("hidden")}
    return {**values, "teacher": digest(teacher.state_dict())}


def digest(state: Mapping[str, Tensor]) -> str:
    """A hash of tensors on the CPU and of their names."""
    content = hashlib.sha256()
    for name, value in state.items():
        content.update(name.encode())
        content.update(value.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
