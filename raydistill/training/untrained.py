"""A run of no epochs: its schedule acts once, what comes of it is validated and kept, and nothing is trained."""

from __future__ import annotations

from dataclasses import replace

from raydistill.compression import CompressionScheduler
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.training.config import RunConfig


def as_run(config: RunConfig) -> RunConfig:
    """A run of no epochs is one epoch in which nothing is trained; any other is as it is."""
    return replace(config, epochs=1, trains=False) if config.epochs == 0 else config


def check_untrained(config: RunConfig) -> list[Fault]:
    """What has no meaning where nothing is trained."""
    faults = []
    if config.epochs != 1:
        rule = "must be 1 where nothing is trained"
        faults.append(Fault("training.epochs", rule, config.epochs, "leave trains out, or say 0"))
    if config.distillation is not None:
        rule, way_out = "is for training, and 0 epochs train nothing", "leave it out, or raise epochs"
        faults.append(Fault("distillation", rule, ABSENT, way_out))
    if config.train is not None:
        rule, way_out = "is a loop of one's own, which 0 epochs do not run", "raise epochs"
        faults.append(Fault("train", rule, config.train.name, way_out))
    return faults


def check_acts(scheduler: CompressionScheduler) -> None:
    """Raises ConfigError where a policy decides by what training does, which never comes."""
    faults = []
    for scheduled in scheduler.scheduled:
        if scheduled.policy.trains:
            rule = "decides by how training moves weights, and 0 epochs do not train"
            name = scheduled.spec.instance_name
            faults.append(Fault(f"training.epochs: {name}", rule, ABSENT, "raise epochs, or choose another ranking"))
    if faults:
        raise ConfigError(*faults)
