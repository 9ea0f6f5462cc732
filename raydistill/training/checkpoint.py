"""Checkpoints: one file an epoch replaces the one before, atomically; loadable with ``weights_only=True``.

Keys: format, epoch (last finished), run (what the training depends on), schedule (YAML text, "" if dense),
schedule_hash, precision, num_classes, mean, std, image_shape, dataset, classes, model, optimizer, scheduler, rng and
history.
"""

from __future__ import annotations

import hashlib
import io
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raydistill import models
from raydistill.compression.thinning import reshape_like
from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.files import missing, write_atomically
from raydistill.records import EpochMetrics

FORMAT = 1
FILE_NAME = "checkpoint.pt"


def schedule_hash(text: str) -> str:
    """Content hash of a schedule's YAML text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Save `content` (tensors and plain values) so that a crash leaves the old file or the new one.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without running code from it.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint of raydistill.
    """
    way_out = "give a checkpoint.pt that raydistill wrote"
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise CheckpointError(Fault(str(path), "no such checkpoint", ABSENT, missing(path, way_out))) from error
    except OSError as error:
        raise CheckpointError(Fault(str(path), f"cannot be read ({error.strerror or error})")) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about the protocol of what is no pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows in any way, as an OSError too
        rule = "is damaged, or no checkpoint that can be loaded without running code from it"
        raise CheckpointError(Fault(str(path), rule, ABSENT, way_out)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise CheckpointError(Fault(str(path), "is not a checkpoint of raydistill", ABSENT, way_out))
    return content


def read_history(path: str | Path) -> list[EpochMetrics]:
    """The metrics of every epoch the run behind a checkpoint has trained, oldest first; their checkpoint is this one.

    Raises:
        CheckpointError: as `read_checkpoint`, or it holds no such history.
    """
    content = read_checkpoint(path)
    try:
        return [replace(EpochMetrics.from_json(entry), checkpoint=str(path)) for entry in content["history"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(Fault(str(path), "is damaged: the history of its epochs cannot be read")) from error


def load_model(path: str | Path) -> nn.Module:
    """The model of a checkpoint on the CPU, pruned weights zero, in eval mode.

    Raises:
        CheckpointError, ConfigError: the file cannot be used, or its architecture cannot be built here.
    """
    return model_of(read_checkpoint(path), str(path))


def model_of(content: dict[str, Any], where: str) -> nn.Module:
    """`load_model` from a checkpoint that is read already; where: its path, for errors."""
    run = content["run"]
    model = models.create(run["arch"], content["num_classes"], run["model_args"], fetch=False)
    load_weights(model, content["model"], where)
    return model.eval()


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Copy weights into a model of the same architecture; CheckpointError names the first difference.

    A model that was thinned comes back in its own shapes: this one is cut to them; its parameters stay the same
    objects.
    """
    own = model.state_dict()
    for name in (*own, *state):
        if name not in state:
            raise CheckpointError(Fault(where, f"has no '{name}'", ABSENT, "it belongs to another architecture"))
        if name not in own:
            raise CheckpointError(Fault(where, f"has '{name}', the model does not", ABSENT, "choose its architecture"))
    reshape_like(model, state, where)
    model.load_state_dict(state)


def rng_state() -> dict[str, Any]:
    """The global random states of torch (CPU, GPUs), numpy and Python, as tensors and plain values."""
    version, python_state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, torch.tensor(python_state, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, python_state, gauss = state["python"]
    random.setstate((version, tuple(python_state.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
