"""A few epochs of plain training, in place: for candidates of a search that need no checkpoint of their own."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.tasks import TRAIN, Loading, Task
from raydistill.training.config import RunConfig
from raydistill.training.optimizer import make_optimizer


def fine_tune(
    model: nn.Module,
    config: RunConfig,
    task: Task,
    device: torch.device,
    epochs: int,
) -> None:
    """Train with the run's optimizer on its (fraction of the) train split; weights that are zero may come back."""
    optimizer = make_optimizer(model, config)
    feed = task.feed(TRAIN, Loading(device, config.batch_size, config.seed, config.effective_train_size))
    model.train()
    for epoch in range(epochs):
        for batch in feed.epoch(epoch):
            loss = task.loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    model.eval()
