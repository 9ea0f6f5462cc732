"""The optimizer of a run, and what is done with gradients and weights around its steps.

Its annotations are no strings: pydantic before 2.10 would look for their names in the sections' module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from raydistill.parts.kinds import Count, Fraction, NotNegative, Positive
from raydistill.parts.setting import Setting

SGD = "SGD"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A class of torch.optim and its arguments.

    name: of `torch.optim`, or one's own as ``pkg.mod:Class``. lr, weight_decay: left out, SGD takes those of the
    section around this one, any other class its own defaults. args: its other arguments. no_decay: parameters without
    weight decay: ``norms`` (of normalisation layers), ``biases``, or globs of names. groups: parameters with arguments
    of their own, each ``{parameters: [globs], lr: ..., ...}``; the first that matches counts. clip_norm: the gradients'
    norm over all parameters is cut to this, clip_value: each gradient's size. accumulate: minibatches a step.
    warmup_epochs: in which the rate rises from 0, step by step, whatever the schedule makes of it. ema: the decay a
    step of an exponential moving average of the weights, which is what is validated and kept; None: none.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    name: Annotated[str, Setting("A class of torch.optim, or pkg.mod:Class.", option="optimizer")] = SGD
    lr: Annotated[Positive | None, Setting(option=None)] = None
    weight_decay: Annotated[NotNegative | None, Setting(option=None)] = None
    args: Annotated[
        Mapping[str, Any],
        Setting(
            "Its other arguments, as '{betas: [0.9, 0.98]}'.", option="optimizer-args", metavar="YAML", searchable=False
        ),
    ] = field(default_factory=dict)
    no_decay: Annotated[
        tuple[str, ...],
        Setting("No weight decay for norms, biases, or globs of names.", metavar="WORDS", searchable=False),
    ] = ()
    groups: Annotated[tuple[Mapping[str, Any], ...], Setting(option=None, searchable=False)] = ()
    clip_norm: Annotated[Positive | None, Setting("Cut the gradients' norm to this.", ("--clip",))] = None
    clip_value: Annotated[Positive | None, Setting("Cut each gradient to this size.")] = None
    accumulate: Annotated[Count, Setting("Minibatches a step.")] = 1
    warmup_epochs: Annotated[NotNegative, Setting("The learning rate rises from 0 in so many epochs.")] = 0.0
    ema: Annotated[Fraction | None, Setting("Average the weights, with this decay a step.")] = None
