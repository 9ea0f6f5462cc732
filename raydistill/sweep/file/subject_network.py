"""The network of a sweep that is to be written: built as its task and data want it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from raydistill import models, tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.models.menu import MENU, domain
from raydistill.sweep.file.first_space import Subject
from raydistill.tasks import Weights
from raydistill.training.distiller_checkpoint import read_any


@dataclass(frozen=True)
class Built:
    """subject: with the size of images that its network takes. example: its positional inputs. notes: what was found
    out on the way, in lines."""

    subject: Subject
    model: nn.Module
    example: Sequence[object]
    notes: tuple[str, ...] = ()


def network_of(subject: Subject, where: str = "--arch") -> Built:
    """Reads the data where only they say what the network has to be like.

    Raises:
        RaydistillError: the network, the task and the data do not go together.
    """
    data = DatasetConfig(**dict(subject.dataset))
    tasks.check(subject.task, data)
    shape = tasks.foreseen(subject.task, data)
    if shape is None or subject.checkpoint is not None:
        shape = tasks.load(subject.task, data, _weights(subject))
    model = shape.network(subject.arch, subject.model_args, where, fetch=False)
    example = shape.example_input()
    try:
        models.check_input(model, example, subject.arch, where)
    except ConfigError:
        made_for = domain(subject.arch, dict(subject.model_args)).image_shape if subject.arch in MENU else None
        if made_for is None or data.image_size is not None:
            raise
        side = list(made_for[1:])
        note = f"image_size {side}: {subject.arch} takes no other"
        resized = replace(subject, dataset={**subject.dataset, "image_size": side})
        built = network_of(resized, where)
        return replace(built, notes=(note, *built.notes))
    return Built(subject, model, example)


def _weights(subject: Subject) -> Weights:
    content = None if subject.checkpoint is None else read_any(subject.checkpoint)
    return Weights(subject.arch, subject.model_args, content, str(subject.checkpoint or "model.arch"))
