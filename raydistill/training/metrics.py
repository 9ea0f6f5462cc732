"""Accuracy and loss over a split. top1 and top5 are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.records import Evaluation
from raydistill.training.precision import autocast


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    split: str,
    device: torch.device,
    precision: str = "fp32",
) -> Evaluation:
    """One pass over `batches` in eval mode; the model's own mode is put back.

    With fewer than five classes top5 counts all of them (and is 1).
    """
    training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    images = 0
    try:
        for inputs, labels in batches:
            with autocast(precision, device):
                logits = model(inputs)
            logits = logits.float()
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([top[:, 0].sum().double(), top.sum().double(), loss.double()])
            images += len(labels)
    finally:
        model.train(training)
    top1, top5, loss_sum = (sums / max(1, images)).tolist()
    return Evaluation(split=split, top1=top1, top5=top5, loss=loss_sum, images=images)
