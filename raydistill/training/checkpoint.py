"""Checkpoints: one file an epoch replaces the one before, atomically; loadable with ``weights_only=True``.

Keys: format, epoch (last finished), run (what the training depends on), schedule (YAML text, "" if dense),
schedule_hash, precision, dataset, task (as the user named it, with its data), model, structure (the changes made to the
network that its factory builds, to be made again before its weights fit), optimizer, scheduler, rng and history; and
what the task says of itself: of a classification num_classes, classes and preprocessing (mean, std and image_shape
stand beside it too), of others sizes that factories of networks ask for (see `models.create`). inputs: what the network
reads (see `training.inputs`).
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.quantizers.network import CHILD
from raydistill.compression.ranks import Ranks
from raydistill.compression.structure import Change, Quantized, replay, structure_from
from raydistill.compression.thinning import reshape_like
from raydistill.errors import ABSENT, CheckpointError, Fault, close_match
from raydistill.files import write_atomically
from raydistill.records import EpochMetrics
from raydistill.tensor_file import read_tensors
from raydistill.training.inputs import are_inputs
from raydistill.training.weights_file import fitted, num_classes_of

FORMAT = 1
FILE_NAME = "checkpoint.pt"
_WAY_OUT = "give a checkpoint.pt that raydistill wrote"
_MOST_CLASSES = 10_000_000
_MOST_VALUES = 1 << 26  # of one input
_MOST_BYTES = 1 << 30


def _is_run(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("arch"), str)
        and isinstance(value.get("model_args"), dict)
        and all(isinstance(key, str) for key in value["model_args"])
    )


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _is_count(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_shape(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not all(_is_count(1, _MOST_VALUES)(size) for size in value):
        return False
    return 0 < len(value) <= 8 and math.prod(value) <= _MOST_VALUES


def _are_sizes(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and _is_count(1, _MOST_CLASSES)(size) for name, size in value.items()
    )


def _is_scheduler(value: object) -> bool:
    return isinstance(value, dict) and _is_state(value.get("masks", {}))


def _are_numbers(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(number, (int, float)) and math.isfinite(number) for number in value
    )


_NEEDED: dict[str, Callable[[object], bool]] = {
    "run": _is_run,
    "model": _is_state,
}
"""What a checkpoint must hold to be looked at in any way, and whether a value is that."""

_OF_TRAINING = ("format", "optimizer", "optimizer_name", "stepping", "trained", "average", "plain")
_OTHERS: dict[str, Callable[[object], bool]] = {
    "num_classes": _is_count(1, _MOST_CLASSES),
    "sizes": _are_sizes,
    "epoch": _is_count(-1, 2**31),
    "history": lambda value: isinstance(value, list),
    "trained": _is_state,
    "average": lambda value: isinstance(value, dict) and _is_count(0, 2**62)(value.get("steps")),
    "stepping": lambda value: isinstance(value, dict),
    "scheduler": _is_scheduler,
    "masks": _is_state,
    "optimizer": lambda value: value is None or isinstance(value, dict),
    "precision": lambda value: value in ("fp32", "bf16", "fp16"),
    "dataset": lambda value: isinstance(value, str),
    "classes": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "task": lambda value: isinstance(value, dict),
    "schedule": lambda value: isinstance(value, str),
    "structure": lambda value: isinstance(value, list),
    "mean": _are_numbers,
    "std": _are_numbers,
    "image_shape": _is_shape,
    "inputs": are_inputs,
}
"""What it must be where it is there; who goes on from a checkpoint asks for it with `require`."""


def require(content: Mapping[str, object], where: str, *keys: str) -> None:
    """Raises CheckpointError where a checkpoint lacks what going on from it needs."""
    for key in keys:
        if key not in content:
            raise CheckpointError(Fault(where, f"is damaged: its '{key}' is missing", ABSENT, _WAY_OUT))


def schedule_hash(text: str) -> str:
    """Content hash of a schedule's YAML text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Save `content` (tensors and plain values) so that a crash leaves the old file or the new one.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **_owned(content)}, buffer)
    write_atomically(path, buffer.getvalue())


def _owned(value: object) -> Any:
    """The same with tensors of their own: torch saves the whole of what a tensor is a view of."""
    if isinstance(value, Tensor):
        return value.clone() if value.untyped_storage().nbytes() > value.numel() * value.element_size() else value
    if isinstance(value, dict):
        return {key: _owned(entry) for key, entry in value.items()}
    return [_owned(entry) for entry in value] if isinstance(value, list) else value


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without running code from it.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint of raydistill.
    """
    content = read_tensors(path, _WAY_OUT)
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise CheckpointError(Fault(str(path), "is not a checkpoint of raydistill", ABSENT, _WAY_OUT))
    require(content, str(path), *_NEEDED)
    for key, is_right in {**_NEEDED, **_OTHERS}.items():
        if key in content and not is_right(content[key]):
            raise CheckpointError(Fault(str(path), f"is damaged: its '{key}' is not what it must be", ABSENT, _WAY_OUT))
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


def load_model(path: str | Path, arch: str | None = None) -> nn.Module:
    """The model of a checkpoint on the CPU, pruned weights zero, in eval mode; of weights in any file that `read_any`
    reads.

    arch: what it is of, as the caller calls it. A factory of one's own (``pkg.mod:factory``) is called only where it is
    named here: a file may not name what runs.

    Raises:
        CheckpointError, ConfigError: the file cannot be used, or its architecture cannot be built here.
    """
    from raydistill.training.distiller_checkpoint import read_any  # it imports this module

    return model_of(read_any(path), str(path), arch)


def model_of(content: Mapping[str, object], where: str, arch: str | None = None) -> nn.Module:
    """`load_model` from a checkpoint that is read already; where: its path, for errors."""
    return built(content, where, arch)[0]


def built(content: Mapping[str, Any], where: str, arch: str | None = None) -> tuple[nn.Module, tuple[Change, ...]]:
    """`model_of`, and the changes that were made to what its factory builds."""
    known, arguments = arch_of(content, where, arch), content["run"]["model_args"]
    if content.get("plain"):
        content = {**content, "num_classes": num_classes_of(content, known)}
    elif known in models.MENU and models.takes_num_classes(known):
        require(content, where, "num_classes")
    _check_size(known, content, where)
    model = models.create(known, content.get("num_classes"), arguments, fetch=False, sizes=content.get("sizes"))
    structure = load_weights(model, content, where)
    return model.eval(), structure


def arch_of(content: Mapping[str, Any], where: str, arch: str | None = None) -> str:
    """The architecture to build for a checkpoint's weights: what the user calls it, else what the file says, if that is
    on the menu.

    Where the file's own is not on the menu, the user's counts: the weights show whether it is the right one.

    Raises:
        CheckpointError: the file names another one of the menu, none at all, or something that is not on it.
    """
    said = content["run"]["arch"]
    if said is not None and said in models.MENU:
        if arch not in (None, said):
            raise CheckpointError(Fault(where, f"is of {said}", arch, f"name that, or leave it out: --arch {said}"))
        return said
    if arch is not None:
        return arch
    if said is None:
        raise CheckpointError(Fault(where, "does not say its architecture", ABSENT, "name it: --arch ARCH"))
    if ":" in said:
        rule = "is of a factory of your own, which is called only where you name it yourself"
        raise CheckpointError(Fault(where, rule, said, f"--arch {said}, or arch= in Python"))
    way_out = f"{close_match(said, models.MENU)} Name what builds it: --arch ARCH or pkg.mod:factory"
    raise CheckpointError(Fault(where, "is of an architecture that is not known here", said, way_out))


def _check_size(arch: str, content: Mapping[str, Any], where: str) -> None:
    """A file may not ask for a network that is many times larger than the weights it holds."""
    if arch not in models.MENU:
        return
    with torch.device("meta"):
        said = content["run"]["model_args"]
        model = models.create(arch, content.get("num_classes"), said, fetch=False, sizes=content.get("sizes"))
    wanted, held = (
        sum(t.numel() * t.element_size() for t in state.values()) for state in (model.state_dict(), content["model"])
    )
    if wanted > max(_MOST_BYTES, 64 * held):
        rule = f"holds {held:,} bytes of weights and describes a network of {wanted:,}"
        raise CheckpointError(Fault(where, rule, ABSENT, _WAY_OUT))


def without_training(content: Mapping[str, object]) -> dict[str, Any]:
    """What a checkpoint says of its network, without what a run goes on with: of a network that is changed."""
    return {key: value for key, value in content.items() if key not in _OF_TRAINING}


def load_weights(
    model: nn.Module, content: Mapping[str, Any], where: str, begun: Sequence[Change] = ()
) -> tuple[Change, ...]:
    """Copy a checkpoint's weights into a fresh model of the same architecture, and return the changes that were made to
    it; CheckpointError names the first difference.

    The changes that its structure lists are made first, but those that the model went through already (begun), which
    must be the first ones of the list; the model's parameters stay the same objects. A file that says
    nothing of its structure is of an older version or of Distiller: its shapes tell what was thinned.
    """
    if content.get("plain"):
        content = {**content, "model": fitted(model, content, where)}
    state = content["model"]
    listed = not content.get("plain") and "structure" in content
    structure = structure_from(content["structure"], f"{where}: structure") if listed else ()
    now: tuple[Change, ...] = ()
    if not any(isinstance(change, Quantized) for change in structure):  # weights of floats, quantized from here on
        now = tuple(change for change in begun if isinstance(change, Quantized))
        begun = tuple(change for change in begun if change not in now)
        state = {**_of_quantization(model), **state}
    if listed:
        if structure[: len(begun)] != tuple(begun):
            rule = "begins with other changes than those of the network that the run starts from"
            raise CheckpointError(Fault(f"{where}: structure", rule, ABSENT, _WAY_OUT))
        _replay(model, structure[len(begun) :], state, where)
    own = model.state_dict()
    for name in (*own, *state):
        if name not in state:
            raise CheckpointError(Fault(where, f"has no '{name}'", ABSENT, "it belongs to another architecture"))
        if name not in own:
            raise CheckpointError(Fault(where, f"has '{name}', the model does not", ABSENT, "choose its architecture"))
    if content.get("plain") or "structure" in content:
        _check_shapes(model, state, where)
    else:
        change = reshape_like(model, state, where)
        structure = (*begun, change) if change else tuple(begun)
    model.load_state_dict(state)
    return (*now, *structure)


def _of_quantization(model: nn.Module) -> dict[str, Tensor]:
    """What a network that is quantized has beside a float one, by its name."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{CHILD}.")}


def _replay(model: nn.Module, structure: Sequence[Change], state: Mapping[str, Tensor], where: str) -> None:
    fresh = list(model.state_dict())
    try:
        replay(model, structure, f"{where}: structure")
    except CheckpointError:
        for name in fresh:  # what the user can mend is the architecture, not the list of changes
            if name not in state:
                raise CheckpointError(
                    Fault(where, f"has no '{name}'", ABSENT, "it belongs to another architecture")
                ) from None
        raise


def _check_shapes(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.shape != state[name].shape:
            rule = f"'{name}' must have shape {tuple(tensor.shape)}"
            way_out = "choose its architecture or dataset"
            raise CheckpointError(Fault(where, rule, tuple(state[name].shape), way_out))


def rng_state() -> dict[str, object]:
    """The global random states of torch (CPU, GPUs), numpy and Python, as tensors and plain values."""
    version, python_state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, torch.tensor(python_state, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
    }


def same_rng_state(ranks: Ranks, device: torch.device) -> None:
    """Give every rank the first one's random states: of the CPU, and of the GPU that each trains on."""
    if not ranks.several:
        return
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    state, of_gpu = ranks.of_first(({**rng_state(), "cuda": []}, own))
    set_rng_state(state)
    if of_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(of_gpu, device)


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, python_state, gauss = state["python"]
    random.setstate((version, tuple(python_state.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
