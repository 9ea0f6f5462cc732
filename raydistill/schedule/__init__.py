"""Compression schedules: YAML to frozen values and back, without torch."""

from raydistill.schedule.extent import policies_beyond
from raydistill.schedule.globs import WITH_WEIGHTS, each_named, without_globs
from raydistill.schedule.load import dump_schedule, load_schedule, naming_weights, parse_schedule
from raydistill.schedule.override import get_value, of_weight, read_value, scale_epochs, split_per_weight, with_values
from raydistill.schedule.spec import KINDS, SECTIONS, InstanceSpec, PolicySpec, ScheduleSpec
from raydistill.schedule.yaml_file import dump_yaml, parse_yaml, read_yaml

__all__ = [
    "KINDS",
    "SECTIONS",
    "WITH_WEIGHTS",
    "InstanceSpec",
    "PolicySpec",
    "ScheduleSpec",
    "dump_schedule",
    "dump_yaml",
    "each_named",
    "get_value",
    "of_weight",
    "read_value",
    "load_schedule",
    "naming_weights",
    "parse_schedule",
    "parse_yaml",
    "policies_beyond",
    "read_yaml",
    "scale_epochs",
    "split_per_weight",
    "with_values",
    "without_globs",
]
