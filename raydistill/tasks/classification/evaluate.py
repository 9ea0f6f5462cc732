"""Accuracy and loss over a split. top1 and top5 are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.early_exit import answers, exits, exits_taken
from raydistill.compression.ranks import Ranks
from raydistill.metrics import LOSS
from raydistill.records import Evaluation
from raydistill.tasks.base import Batch, autocast
from raydistill.tasks.classification.metrics import TOP1, TOP5


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    split: str,
    device: torch.device,
    precision: str = "fp32",
    thresholds: Sequence[float] = (),
    ranks: Ranks | None = None,
) -> Evaluation:
    """One pass over `batches` in eval mode; the model's own mode is put back.

    With fewer than five classes top5 counts all of them (and is 1). Of a model with early exits the last one counts;
    thresholds: those of `EarlyExit`, an image counts then by the exit that it leaves by. ranks: each has batches of its
    own; the figures are of all of them, the same on every rank.
    """
    training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    by_exit: Tensor | None = None
    images = 0
    try:
        for inputs, labels in batches:
            with autocast(precision, device):
                outputs = [logits.float() for logits in exits(model(inputs))]
            logits = outputs[-1]
            if len(outputs) > 1:
                taken = exits_taken(outputs, thresholds)
                logits = answers(outputs, taken)
                counted = _count_exits(outputs, taken, labels)
                by_exit = counted if by_exit is None else by_exit + counted
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([top[:, 0].sum().double(), top.sum().double(), loss.double()])
            images += len(labels)
    finally:
        model.train(training)
    if ranks is not None and ranks.several:
        every = ranks.gather((sums.cpu(), None if by_exit is None else by_exit.cpu(), images))
        sums = torch.stack([part[0] for part in every]).sum(0)
        seen = [part[1] for part in every if part[1] is not None]
        by_exit = torch.stack(seen).sum(0) if seen else None
        images = sum(part[2] for part in every)
    top1, top5, loss_sum = (sums / max(1, images)).tolist()
    per_exit = _by_name(by_exit / max(1, images), bool(thresholds)) if by_exit is not None else {}
    metrics = {TOP1: top1, TOP5: top5, LOSS: loss_sum, **per_exit}
    return Evaluation(split=split, metrics=metrics, samples=images)


def _count_exits(outputs: Sequence[Tensor], taken: Tensor, labels: Tensor) -> Tensor:
    """Of each exit: how many images it classifies rightly, how many leave by it; float64 (exits, 2)."""
    right = torch.stack([(logits.argmax(1) == labels).sum() for logits in outputs])
    return torch.stack([right, torch.bincount(taken, minlength=len(outputs))], dim=1).double()


def _by_name(fractions: Tensor, with_taken: bool) -> dict[str, float]:
    named = {}
    for index, (top1, taken) in enumerate(fractions.tolist()):
        named[f"exit{index}/top1"] = top1
        if with_taken:
            named[f"exit{index}/taken"] = taken
    return named
