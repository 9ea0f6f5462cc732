"""A loss and an augmentation as a user would write them; and some that are wrong."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raydistill.datasets.augmentation import Augmentation
from raydistill.tasks.classification.loss import Loss


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Label smoothing by 0.2, written out."""
    logs = functional.log_softmax(logits, dim=1)
    right = logs.gather(1, labels[:, None])[:, 0]
    return -(0.8 * right + 0.2 * logs.mean(dim=1)).mean()


def erased(images: Tensor, generator: torch.Generator) -> Tensor:
    """A pixel of each image is black, the same in all of its channels."""
    count, channels, height, width = images.shape
    at = torch.randint(height * width, (count, 1, 1), generator=generator).to(images.device)
    return images.flatten(2).scatter(2, at.expand(-1, channels, -1), 0).view(images.shape)


SMOOTHED = Loss("smoothed", smoothed)
ERASED = Augmentation("erased", erased)


def soft_f1(logits: Tensor, labels: Tensor) -> Tensor:
    """Of all labels of the batch, each counted by its probability."""
    said = logits.sigmoid()
    return 1 - 2 * (said * labels).sum() / (said + labels).sum()


SOFT_F1 = Loss("soft f1", soft_f1)
A_LOSS_A_SAMPLE = Loss("each", lambda logits, labels: functional.cross_entropy(logits, labels, reduction="none"))
CONSTANT = Loss("constant", lambda logits, labels: torch.tensor(1.0))
LOSES_ITS_WAY = Loss("lost", lambda logits, labels: functional.cross_entropy(logits, labels[:1]))
OF_ITS_OWN_WILL = Augmentation("will", lambda images, generator: images.flip(3) if torch.rand(()) < 0.5 else images * 0)
HALVES = Augmentation("halves", lambda images, generator: images[:, :, ::2])
FLOATS = Augmentation("floats", lambda images, generator: images / 255)
FAILS = Augmentation("fails", lambda images, generator: images.no_such_method())
