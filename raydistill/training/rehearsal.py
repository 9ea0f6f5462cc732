"""A schedule tried for a few minibatches on random data: does it run on this model?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression import CompressionScheduler, build, sparsity
from raydistill.schedule import ScheduleSpec


def rehearsed_epochs(spec: ScheduleSpec) -> tuple[int, ...]:
    """The first, a middle and the last epoch in which anything but the learning rate changes, every epoch of an
    extension, and the schedule's last."""
    acting = {epoch for policy in spec.policies if policy.kind != "lr_scheduler" for epoch in policy.active_epochs()}
    every = {epoch for policy in spec.policies for epoch in policy.active_epochs()}
    epochs = sorted(acting or every)
    if not epochs:
        return ()
    extensions = {epoch for p in spec.policies if p.kind == "extension" for epoch in p.active_epochs()[:3]}
    return tuple(sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1], max(every), *extensions}))


def rehearse(
    spec: ScheduleSpec, model: nn.Module, example_input: Sequence[object], strict: bool = True, minibatches: int = 2
) -> list[tuple[int, float]]:
    """Run the scheduled epochs `rehearsed_epochs` names on `example_input`; (epoch, total sparsity after it) each.

    The model is trained, pruned and perhaps thinned on the way: hand in one that is not needed afterwards.

    Raises:
        ConfigError: the schedule does not fit the model.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    scheduler = build(spec, model, optimizer, example_input, strict, calibration=lambda: [example_input])
    done = []
    for epoch in rehearsed_epochs(spec):
        _train(scheduler, model, optimizer, example_input, epoch, minibatches)
        done.append((epoch, sparsity(model)[0]))
    return done


def _train(
    scheduler: CompressionScheduler,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    example_input: Sequence[object],
    epoch: int,
    minibatches: int,
) -> None:
    model.train()
    scheduler.on_epoch_begin(epoch)
    loss = torch.zeros(())
    for index in range(minibatches):
        scheduler.on_minibatch_begin(epoch, index, minibatches)
        loss = scheduler.before_backward(epoch, index, minibatches, _loss(model(*example_input)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        scheduler.before_parameter_optimization(epoch, index, minibatches)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, index, minibatches)
    scheduler.before_validation(epoch)
    scheduler.on_epoch_end(epoch, metric=0.0, loss=float(loss.detach()))


def _loss(output: Any) -> Tensor:
    """Cross-entropy against class 0, summed over all outputs that have classes (exits, or logits and hidden state)."""
    if isinstance(output, Tensor):
        return -torch.log_softmax(output.float(), dim=-1)[..., 0].mean()
    tensors = [value for value in output if isinstance(value, Tensor)]
    return torch.stack([_loss(value) for value in tensors]).sum()
