"""How a sweep is judged, as its journal says it: what the figures mean, what is optimised, which bounds hold.

Whoever reads a sweep afterwards needs no code of the user's for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import DIRECTIONS, Metric
from raydistill.search import Objective, parse_objectives, usual_objectives
from raydistill.search.constraints import Constraint, parse_constraints
from raydistill.tasks import TaskConfig, metrics_of


@dataclass(frozen=True)
class Judgement:
    """metrics: the task's by name, the one that selects first."""

    metrics: Mapping[str, Metric]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "objectives": [asdict(objective) for objective in self.objectives],
            "constraints": [asdict(constraint) for constraint in self.constraints],
        }


def judgement_of(start: Mapping[str, Any], where: str) -> Judgement:
    """That of a sweep, from the event that started it.

    Raises:
        ConfigError: it is damaged; or the journal is older and names code of the user's, which only a sweep file may.
    """
    said = start.get("judged_by")
    try:
        return _read(said) if said is not None else _of_config(start["config"], where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(Fault(where, f"does not say what its figures mean ({error})")) from error


def _read(said: Any) -> Judgement:
    metrics = {str(name): _metric(metric) for name, metric in said["metrics"].items()}
    if not metrics:
        raise ValueError("it has no metrics")
    objectives = tuple(
        Objective(str(o["name"]), _direction(o["direction"]), str(o["path"]), o["metric"] and _metric(o["metric"]))
        for o in said["objectives"]
    )
    constraints = tuple(Constraint(**constraint) for constraint in said["constraints"])
    return Judgement(metrics, objectives, constraints)


def _metric(said: Mapping[str, object]) -> Metric:
    return Metric(_direction(said["direction"]), str(said["unit"]), str(said["label"]))


def _direction(said: object) -> str:
    if said not in DIRECTIONS:
        raise ValueError(f"no direction: {said!r}")
    return str(said)


def _of_config(config: Mapping[str, Any], where: str) -> Judgement:
    """Of a journal that was written before it said so."""
    task = config.get("task") or {}
    named = [str(task.get("name", "")), *(config.get("objectives") or {}), *(config.get("constraints") or ())]
    if any(":" in name for name in named) or config.get("train"):
        rule = "was written before journals said what the figures of one's own code mean"
        raise ConfigError(Fault(where, rule, ABSENT, "run the sweep once more with --resume, which writes it down"))
    metrics = metrics_of(TaskConfig(task.get("name", TaskConfig().name), task.get("args") or {}), f"{where}: task")
    directions = config.get("objectives") or usual_objectives(metrics)
    objectives = parse_objectives(directions, f"{where}: objectives", metrics)
    bounds: Sequence[str] = config.get("constraints") or []
    return Judgement(metrics, objectives, parse_constraints(list(bounds), f"{where}: constraints", metrics))
