"""A few epochs of plain training, in place: for candidates of a search that need no checkpoint of their own."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.early_exit import classification_loss
from raydistill.datasets import Dataset, Preprocessing
from raydistill.training.config import RunConfig
from raydistill.training.feed import TrainFeed


def fine_tune(
    model: nn.Module,
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    epochs: int,
    seen: Preprocessing | None = None,
) -> None:
    """Train with the run's SGD on its (fraction of the) train split; weights that are zero may come back.

    seen: how the model wants its images; None: as the dataset's own are.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    feed = TrainFeed(
        dataset, config.batch_size, device, config.seed, fraction=config.effective_train_size, preprocessing=seen
    )
    model.train()
    for epoch in range(epochs):
        for inputs, labels in feed.epoch(epoch):
            loss = classification_loss(model(inputs), labels, ())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    model.eval()
