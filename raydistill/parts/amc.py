"""What ``sweep`` says of AMC in place of a file's ``searcher``, under Distiller's names.

Its annotations are no strings, as those of the other parts.
"""

from dataclasses import dataclass
from typing import Annotated

from raydistill.parts.setting import Role, Setting


def _free(help: str, option: str, metavar: str | None = None) -> Setting:
    return Setting(help, (), option, Role.FREE, metavar, searchable=False)


@dataclass(frozen=True, kw_only=True)
class AMC:
    """Fields are the options of the searcher ``amc``; None leaves one to it. target_density: what is to be left of the
    multiply-accumulates."""

    protocol: Annotated[
        str | None, _free("mac-constrained, punish-agent or accuracy-guaranteed: the searcher is amc.", "amc-protocol")
    ] = None
    agent: Annotated[str | None, _free("DDPG or Random-policy.", "amc-agent-algo")] = None
    heatup_episodes: Annotated[int | None, _free("Drawn before the agent learns.", "amc-heatup-episodes")] = None
    training_episodes: Annotated[int | None, _free("Those after them.", "amc-training-episodes")] = None
    action_range: Annotated[
        tuple[float, float] | None,
        _free("The least and the most that is pruned of a layer.", "amc-action-range", "LOW HIGH"),
    ] = None
    target_density: Annotated[
        float | None, _free("Of the MACs, what is left: --goal 'macs <= 0.5x' for 0.5.", "amc-target-density")
    ] = None
