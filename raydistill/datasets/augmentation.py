"""An augmentation of one's own, ``augment: pkg.mod:AUGMENTATION`` in the ``dataset`` section."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raydistill.datasets.split import raw_stream
from raydistill.errors import ConfigError, Fault, TrainingError, users_code
from raydistill.resolve import resolve_object

_OWN = 2
"""Its stream of chance, beside those of order, crops and flips."""


@dataclass(frozen=True)
class Augmentation:
    """A named change of training images, in place of crops and flips.

    change: (images, generator) to images: uint8 (B, C, H, W) of the dataset's size in (float32 where its images
    are), the same shape and type out, on their device. generator: a CPU generator, all the chance there is to be: it
    begins anew in each batch, by (seed, epoch, batch) alone. It is given the rows of all ranks together, so that these
    have what one process would have.
    """

    name: str
    change: Callable[[Tensor, torch.Generator], Tensor]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Raises TrainingError: it fails, or gives something else than such images."""
        with users_code("dataset.augment", self.name, kind=TrainingError):
            changed = self.change(images, generator)
        if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (images.shape, images.dtype):
            given = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            kind = str(images.dtype).removeprefix("torch.")
            rule = f"{self.name} must give {kind} images of the shape it gets, {tuple(images.shape)}"
            raise TrainingError(Fault("dataset.augment", rule, given))
        return changed


@functools.lru_cache(maxsize=16)
def own_augmentation(path: str) -> Augmentation:
    """The augmentation that ``pkg.mod:NAME`` names, tried on four small images.

    Raises:
        ConfigError: it is no `Augmentation`, fails, or draws from another generator than its own.
    """
    found = resolve_object(path, {}, Augmentation, "dataset.augment", "augmentation")
    pixels = torch.arange(4 * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(4, 3, 8, 8)
    try:
        with torch.random.fork_rng(devices=[]):
            once, again = (found(pixels.clone(), torch.Generator().manual_seed(7)) for _ in range(2))
    except TrainingError as error:
        raise ConfigError(*error.faults) from error
    if not torch.equal(once, again):
        rule = f"{found.name} must be a function of its images and its generator: of the same it gives others"
        raise ConfigError(Fault("dataset.augment", rule, path, "pass generator= to what draws"))
    return found


def batch_generator(batches: int, batch: int, seed: int, epoch: int) -> torch.Generator:
    """The chance of one of an epoch's `batches`."""
    bits = raw_stream(batches, seed, epoch, _OWN)[batch] >> np.uint64(1)
    return torch.Generator().manual_seed(int(bits))
