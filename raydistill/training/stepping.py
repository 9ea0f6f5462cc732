"""What happens between a loss and the weights: scaled gradients, accumulation, clipping, warm-up, the step itself.

A *step* may take several minibatches (`accumulate`), whose gradients then are that of all their rows together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.parts import Optimizer
from raydistill.tasks import Feed


class Stepping:
    """Of one run. precision: fp16 needs its gradients scaled, so that small ones do not vanish; a step whose scaled
    gradients overflow is left out, and the scale halved (`torch.amp.GradScaler`).
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, said: Optimizer, device: torch.device
    ) -> None:
        self._model, self._optimizer, self._said = model, optimizer, said
        self._scaler: torch.amp.GradScaler | None = None
        self._device = device
        self._share = 1.0

    @property
    def learning_rate(self) -> float:
        """Of the first parameters, as far as it has risen."""
        return float(self._optimizer.param_groups[0]["lr"]) * self._share

    def compute_in(self, precision: str) -> None:
        if precision != "fp16":
            self._scaler = None
        elif self._scaler is None:
            self._scaler = torch.amp.GradScaler(self._device.type)

    def steps(self, minibatches: int) -> int:
        """Of an epoch."""
        return -(-minibatches // self._said.accumulate)

    def place(self, index: int, minibatches: int) -> tuple[int, bool, bool]:
        """(number of its step, whether a minibatch is the first of it, and whether the last)."""
        step, within = divmod(index, self._said.accumulate)
        return step, within == 0, within + 1 == self._said.accumulate or index + 1 == minibatches

    def rows(self, feed: Feed, index: int, minibatches: int) -> int:
        """All ranks' rows of the step that a minibatch belongs to."""
        first = index - index % self._said.accumulate
        return sum(feed.rows(i)[1] for i in range(first, min(first + self._said.accumulate, minibatches)))

    def scaled(self, loss: Tensor) -> Tensor:
        """What is to be differentiated."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def backward(self, loss: Tensor) -> None:
        self.scaled(loss).backward()

    def gradients_are_whole(self) -> None:
        """Bring the gradients to their own size, before anybody looks at them."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)

    @property
    def plain(self) -> bool:
        """Whether a step is one minibatch's, and nothing happens to its gradients but what the optimizer does."""
        said = self._said
        return self._scaler is None and said.accumulate == 1 and said.clip_value is None and said.clip_norm is None

    def warmed(self, done: float) -> float:
        """The share of its rate that a step is made with."""
        self._share = 1.0 if done >= self._said.warmup_epochs else done / self._said.warmup_epochs
        return self._share

    def step(self, done: float) -> None:
        """One step of the optimizer. done: epochs behind it, with the part of the present one."""
        parameters = [parameter for parameter in self._model.parameters() if parameter.grad is not None]
        if self._said.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self._said.clip_value)
        if self._said.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self._said.clip_norm)
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        if (
            self.warmed(done) < 1.0
        ):  # the schedule's own rate comes back behind the step: what it is computed from stays as it is
            for group in groups:
                group["lr"] = group["lr"] * self._share
        try:
            if self._scaler is None:
                self._optimizer.step()
            else:
                self._scaler.step(self._optimizer)
                self._scaler.update()
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {} if self._scaler is None else {"scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._scaler is not None and state.get("scaler"):
            self._scaler.load_state_dict(dict(state["scaler"]))
