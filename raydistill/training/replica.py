"""The model as the training loop calls it: by itself, or as one replica of several that learn the same."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raydistill.compression.ranks import Ranks, statistics_over
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.training.batch_norm import is_over_ranks, over_ranks


class Replica:
    """Call it for the forward pass of a minibatch, and `exchange` after its backward pass: every rank's parameters then
    have the gradient of the mean over the ranks' losses.

    `torch.nn.parallel.DistributedDataParallel` does that while the backward pass runs. It has to know beforehand
    whether some parameters get no gradient, so the first minibatch is exchanged by hand; so is the one after thinning,
    which cuts parameters. The model itself stays what its masks, its checkpoints and its evaluation know.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._model, self._ranks = model, ranks
        self._wrapped: DistributedDataParallel | None = None
        self._parameters: list[nn.Parameter] = []
        self._shapes: list[torch.Size] = []
        self._own_buffers = False
        if ranks.several:
            over_ranks(model)
            self._own_buffers = any(
                not is_over_ranks(module) and any(True for _ in module.buffers(recurse=False))
                for module in model.modules()
            )

    def __call__(self, *inputs: object, **named: object) -> Any:
        """The model's output.

        Raises:
            ConfigError: a parameter that had a gradient in the first minibatch had none in the last one.
        """
        if not self._ranks.several:
            return self._model(*inputs, **named)
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        shapes = [parameter.shape for parameter in parameters]
        if shapes != self._shapes or not _identical(parameters, self._parameters):
            self._unwrap(parameters, shapes)
        with statistics_over(self._ranks):
            if self._wrapped is None:
                return self._model(*inputs, **named)
            try:
                return self._wrapped(*inputs, **named)
            except RuntimeError as error:
                if "finished reduction" not in str(error):
                    raise
                rule = "leaves parameters out in some minibatches, which several workers cannot follow"
                raise ConfigError(Fault("model", rule, ABSENT, "train it in one process")) from error

    @torch.no_grad()
    def exchange(self) -> None:
        """Between the backward pass and whatever looks at gradients."""
        if not self._ranks.several or self._wrapped is not None:
            return
        lacking = [index for index, parameter in enumerate(self._parameters) if parameter.grad is None]
        by_rank = [set(indices) for indices in self._ranks.gather(lacking)]
        nowhere = set.intersection(*by_rank)
        present = [parameter for index, parameter in enumerate(self._parameters) if index not in nowhere]
        for parameter in present:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(self._ranks.sum(parameter.grad) / self._ranks.world)
        self._wrap(some_unused=any(by_rank))

    def settle_buffers(self) -> None:
        """Bring every rank's buffers to the first one's: those of other layers than batch norm may have drifted."""
        if self._own_buffers:
            settle(self._model.named_buffers(), self._ranks)

    def _unwrap(self, parameters: list[nn.Parameter], shapes: list[torch.Size]) -> None:
        if self._wrapped is not None:
            self._wrapped = None
            gc.collect()  # its hooks on parameters that stayed go with it
        self._parameters, self._shapes = parameters, shapes

    def _wrap(self, some_unused: bool) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated.*")  # torch 2.6 has no other
            self._wrapped = DistributedDataParallel(
                self._model,
                process_group=self._ranks.group,
                broadcast_buffers=self._own_buffers,
                find_unused_parameters=some_unused,
                gradient_as_bucket_view=True,
            )


@torch.no_grad()
def settle(tensors: Iterable[tuple[str, Tensor]], ranks: Ranks) -> None:
    """Bring every rank's tensors to the first one's, in place."""
    if not ranks.several:
        return
    named = {name: tensor for name, tensor in tensors if tensor.numel()}
    for name, value in ranks.tensors_of_first(named).items():
        named[name].copy_(value)


def _identical(some: list[nn.Parameter], others: list[nn.Parameter]) -> bool:
    """The same objects: equality of tensors is another thing."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))
