"""Images of which each may have several labels, or none: what a network says of each label by itself.

Shapes: logits are (B, labels), labels 0 and 1 of the same shape. A label is said where its probability, the sigmoid of
its logit, is above 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.ranks import Ranks
from raydistill.metrics import FRACTION, LOSS, MAX, MIN, Metric
from raydistill.records import Evaluation
from raydistill.tasks.base import Batch, autocast

MAP, F1 = "map", "f1"
METRICS: Mapping[str, Metric] = {
    MAP: Metric(MAX, FRACTION, "mean average precision"),
    F1: Metric(MAX, FRACTION, "F1 of all labels together"),
    LOSS: Metric(MIN),
}
"""map: the mean, over the labels that any image has, of the average precision. f1: of all decisions at 0.5 (micro)."""


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over images and labels."""
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


@torch.no_grad()
def evaluate_multi_label(
    model: nn.Module,
    batches: Iterable[Batch],
    split: str,
    device: torch.device,
    precision: str = "fp32",
    ranks: Ranks | None = None,
) -> Evaluation:
    """One pass over `batches` in eval mode; the model's own mode is put back.

    ranks: each has batches of its own; the figures are of all of them, the same on every rank.
    """
    training = model.training
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for inputs, wanted in batches:
            with autocast(precision, device):
                output = model(inputs)
            logits.append((output if isinstance(output, Tensor) else output[0]).float().cpu())
            labels.append(wanted.cpu())
    finally:
        model.train(training)
    own = (torch.cat(logits), torch.cat(labels)) if logits else None
    parts = [own] if ranks is None else ranks.gather(own)
    seen = [part for part in parts if part is not None]
    of_all = figures(torch.cat([part[0] for part in seen]), torch.cat([part[1] for part in seen]))
    return Evaluation(split=split, metrics=of_all, samples=sum(len(part[1]) for part in seen))


def figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`METRICS` of all images, (N, labels) each. Without any label at all map and f1 are 0."""
    from sklearn.metrics import average_precision_score, f1_score  # takes a second to import

    loss = float(binary_cross_entropy(logits.double(), labels))
    scores = logits.nan_to_num(0.0).numpy()  # a network that has come to nothing is judged, its loss says so
    truth = labels.numpy()
    present = truth.any(axis=0)
    mean = average_precision_score(truth[:, present], scores[:, present], average="macro") if present.any() else 0.0
    f1 = float(f1_score(truth, (scores > 0).astype(truth.dtype), average="micro", zero_division=0.0))
    return {MAP: float(mean), F1: f1, LOSS: loss}
