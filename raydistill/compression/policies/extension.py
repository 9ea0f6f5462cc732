"""An extension acts on the model as a whole (thinning does) and is told of it before training begins."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy


class Extension(Policy):
    """Base of the classes in a schedule's ``extensions``; its ``__init__`` takes a name and the file's arguments."""

    def bind(
        self, model: nn.Module, optimizer: Optimizer, masks: MaskSet, example_input: Sequence[object] | None
    ) -> None:
        """Called once, before the first epoch. example_input: the model's positional inputs, None if not known."""
