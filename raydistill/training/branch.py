"""Networks kept along a run, for other runs to branch off from: weights and masks after some of its epochs.

Gradual pruning passes every sparsity on its way. A branch begins with the network that a run had there, keeps its
masks, and trains it on with a rate that falls: many sparsities for little more than one run. After a constant rate a
short decay is as good as a whole schedule of its own (Haegele et al. 2024, arXiv 2405.18392).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from raydistill.training.checkpoint import read_checkpoint, without_training, write_checkpoint

_OF_RUN = ("scheduler", "rng", "schedule", "schedule_hash")
"""What a checkpoint says of how its run goes on, besides the optimizer's state."""


def branch_name(epochs: int) -> str:
    """The file of the network after so many epochs, beside the run's checkpoint."""
    return f"after-{epochs:04d}.pt"


def keep_branch(checkpoint: str | Path, keep: Collection[int]) -> Path | None:
    """Keep the network of a run's last checkpoint, if it is one of those to keep: atomically, and once.

    keep: numbers of epochs. The file can be what a run starts from (``init_from``): it brings its masks.

    Raises:
        CheckpointError: the checkpoint cannot be read. StorageError: the file cannot be written.
    """
    content = read_checkpoint(checkpoint)
    epochs = int(content["epoch"]) + 1
    path = Path(checkpoint).with_name(branch_name(epochs))
    if epochs not in keep or path.exists():
        return None
    kept = {key: value for key, value in without_training(content).items() if key not in _OF_RUN}
    write_checkpoint(path, {**kept, "masks": content["scheduler"]["masks"], "history": content["history"][-1:]})
    return path
