"""Distiller's checkpoints (``*.pth.tar``): read without running code from them.

Distiller saved class objects and named tuples next to the weights, so its files are no ``weights_only`` ones. Here the
pickle is looked through first, without loading it; what it names of Distiller, of torch's optimizers and of numpy's
scalars is then loaded by ``torch.load(weights_only=True)`` with a stand-in in its place, which keeps the arguments and
does nothing. Any other name that torch does not allow by itself is refused. The result is plain data.

Both formats of ``torch.save`` are read: zip files, and the one before torch 1.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.tensor_file import StandIn, look_through, read_tensors, stand_ins
from raydistill.training import checkpoint as saved
from raydistill.training.weights_file import is_plain, read_weights

_PACKAGES = ("distiller", "torch.optim")
_NUMPY = {
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}
_ABOUT = {"epoch", "arch", "state_dict", "optimizer", "optimizer_state_dict", "optimizer_type", "compression_sched",
          "thinning_recipe", "thinning_recipes", "quantizer_metadata", "extras"}  # fmt: skip
_SGD = {"lr", "momentum", "dampening", "weight_decay", "nesterov"}
_IN_A_BLOCK = re.compile(r"layer\d+\.\d+\.conv[12]\.weight")
_FLOAT = "float_"
_OF_QUANTIZER = re.compile(r"(^|\.)(fake_q|inputs_quant)\.|\.clip_val$")
_WAY_OUT = "give a checkpoint that raydistill or Distiller wrote"


@dataclass(frozen=True)
class DistillerCheckpoint:
    """What a file of Distiller holds, as plain data on the CPU; names are without DataParallel's ``module.``.

    epoch: the last finished one, None if the file does not say. weights: in the order of the model. masks: of the
    pruned weights, 1 keeps. optimizer: its ``state_dict()``; optimizer_type: ``torch.optim.sgd.SGD``.
    thinning_recipes: ``modules`` and ``parameters`` of each, as Distiller documents them; the weights are thinned
    already. quantizer: ``type`` and ``params``. extras: whatever else there is, such as ``best_top1`` (in percent).
    """

    source: str
    arch: str | None
    epoch: int | None
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer_type: str | None = None
    optimizer: Mapping[str, Any] | None = None
    thinning_recipes: tuple[Mapping[str, Any], ...] = ()
    quantizer: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def is_distiller_checkpoint(path: str | Path) -> bool:
    """Whether a file is one of Distiller's, judged by its content; nothing is loaded."""
    return "state_dict" in look_through(path)[1]


def read_distiller_checkpoint(path: str | Path) -> DistillerCheckpoint:
    """Read a file of Distiller.

    Raises:
        CheckpointError: no such file, damaged, not of Distiller, or it names something that may run code.
    """
    path = Path(path)
    content = _load(path)
    try:
        return _checkpoint(_plain(content, {}), str(path))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        rule = f"holds what no checkpoint of Distiller does ({error})"
        raise CheckpointError(Fault(str(path), rule, ABSENT, _WAY_OUT)) from error


def read_any(path: str | Path) -> dict[str, Any]:
    """A checkpoint under raydistill's keys, whoever wrote it.

    One of Distiller has run (arch only), num_classes, epoch, precision, model (pruned weights zero), scheduler (masks
    only) and optimizer; besides those `masks`, and `parameters`: the names in the order of its optimizer. See
    `optimizer_state`. Of others only the weights are known, see `weights_file`.

    Raises:
        CheckpointError: the file cannot be used.
    """
    if is_plain(path):
        return read_weights(path)
    return _as_own(read_distiller_checkpoint(path)) if is_distiller_checkpoint(path) else saved.read_checkpoint(path)


def optimizer_state(
    content: Mapping[str, Any], names: Sequence[str], where: str, wanted: str = "SGD", groups: int = 1
) -> tuple[dict[str, object] | None, str]:
    """The optimizer's state in a content of `read_any`, and "".

    names: the parameters in the order of the optimizer that takes it. wanted, groups: its class, and how many it has.

    None, and why, where its momenta are of other shapes than the weights: of a network that was thinned after them.
    Training goes on with a fresh optimizer then, as it does with Distiller.

    Raises:
        CheckpointError: there is none, it is of another class, or of other parameters.
    """
    kind, state = content.get("optimizer_type"), content.get("optimizer")
    way_out = "start with a fresh one at epoch 0 (init_from, --reset-optimizer)"
    if not state:
        raise CheckpointError(Fault(where, "has no optimizer to go on with", ABSENT, way_out))
    if not _is_optimizer(state):
        raise CheckpointError(Fault(where, "has an optimizer that cannot be read", ABSENT, way_out))
    of_groups, found = state["param_groups"], state["state"]
    trained_with = content.get("optimizer_name", "SGD") if kind in (None, "torch.optim.sgd.SGD") else kind
    if trained_with == "SGD":
        other = sorted({key for entry in found.values() for key in entry} - {"momentum_buffer"})
        if other or not all(group.keys() >= _SGD for group in of_groups):
            trained_with = f"one with {', '.join(map(str, other))}" if other else "one without momentum"
    if trained_with != wanted:
        raise CheckpointError(Fault(where, f"was trained with another optimizer than {wanted}", trained_with, way_out))
    # Before torch 1.5 the keys were addresses; in all versions they stand in the order of the optimizer's parameters.
    keys = [key for group in of_groups for key in group["params"]]
    ordered = content.get("parameters", names)
    if len(of_groups) != groups or sorted(ordered) != sorted(names) or len(keys) != len(names):
        raise CheckpointError(Fault(where, "has an optimizer of other parameters", len(keys), way_out))
    by_name = {name: found[key] for name, key in zip(ordered, keys, strict=True) if key in found}
    for name, entry in by_name.items():
        if any(not isinstance(value, (Tensor, int, float, NoneType)) for value in entry.values()):
            raise CheckpointError(Fault(where, f"has an optimizer whose state of '{name}' is no tensor", entry))
        momentum = entry.get("momentum_buffer")
        if momentum is not None and not isinstance(momentum, Tensor):
            raise CheckpointError(Fault(where, f"has an optimizer whose state of '{name}' is no tensor", momentum))
        if wanted == "SGD" and name in content["model"] and _other_shape(momentum, content["model"][name]):
            rule = f"its optimizer's state of '{name}' is of another shape than the weight"
            return None, str(
                Fault(where, rule, tuple(entry["momentum_buffer"].shape), "going on with a fresh optimizer")
            )
    at = iter(range(len(names)))
    renumbered = [{**group, "params": [next(at) for _ in group["params"]]} for group in of_groups]
    states = {index: by_name[name] for index, name in enumerate(names) if name in by_name}
    return {"state": states, "param_groups": renumbered}, ""


def _other_shape(momentum: Tensor | None, weight: Tensor) -> bool:
    return momentum is not None and momentum.shape != weight.shape


def _checkpoint(content: object, source: str) -> DistillerCheckpoint:
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if (
        not isinstance(content, dict)
        or not isinstance(weights, dict)
        or not all(isinstance(value, Tensor) for value in weights.values())
    ):
        raise CheckpointError(Fault(source, "is not a checkpoint of Distiller", ABSENT, _WAY_OUT))
    masks = _mapping(_mapping(content.get("compression_sched")).get("masks_dict"))
    recipes = content.get("thinning_recipes", content.get("thinning_recipe"))
    recipes = recipes if isinstance(recipes, list) else [recipes]
    others = {key: value for key, value in content.items() if key not in _ABOUT}
    epoch, optimizer = content.get("epoch"), content.get("optimizer_state_dict", content.get("optimizer"))
    return DistillerCheckpoint(
        source=source,
        arch=content.get("arch"),
        epoch=None if epoch is None else int(epoch),
        weights=_without_module(weights),
        masks=_without_module({name: mask for name, mask in masks.items() if isinstance(mask, Tensor)}),
        optimizer_type=content.get("optimizer_type"),
        optimizer=optimizer if _is_optimizer(optimizer) else None,
        thinning_recipes=tuple(_recipe(recipe) for recipe in recipes if isinstance(recipe, dict)),
        quantizer=content.get("quantizer_metadata"),
        extras={**others, **_mapping(content.get("extras"))},
    )


def _in_floats(checkpoint: DistillerCheckpoint) -> DistillerCheckpoint:
    """A quantized network with the weights it was trained in; what they were rounded to is left out."""
    trained = {_trained_name(name) for name in checkpoint.weights if name != _trained_name(name)}
    if not trained:
        rule = "was quantized by Distiller, and holds no float weights"
        way_out = "give one from before quantization, and quantize that"
        found = (checkpoint.quantizer or {}).get("type")
        raise CheckpointError(Fault(checkpoint.source, rule, found, way_out))
    beside = {name + ending for name in trained for ending in ("", "_scale", "_zero_point")}
    weights = {
        _trained_name(name): value
        for name, value in checkpoint.weights.items()
        if name not in beside and not _OF_QUANTIZER.search(name)
    }
    return replace(checkpoint, weights=weights, masks={_trained_name(name): m for name, m in checkpoint.masks.items()})


def _trained_name(name: str) -> str:
    """``conv1.weight`` of ``conv1.float_weight``."""
    layer, dot, attribute = name.rpartition(".")
    return layer + dot + attribute.removeprefix(_FLOAT)


def _as_own(checkpoint: DistillerCheckpoint) -> dict[str, object]:
    if checkpoint.quantizer is not None:
        checkpoint = _in_floats(checkpoint)
    weights = dict(checkpoint.weights)
    for name, mask in checkpoint.masks.items():
        if name not in weights or weights[name].shape != mask.shape:
            raise CheckpointError(Fault(checkpoint.source, f"has a mask of no weight ('{name}')", tuple(mask.shape)))
        weights[name] = weights[name] * mask.to(weights[name].dtype)
    for name in [name for name in weights if name.endswith(".running_var")]:  # files from before torch 0.4.1
        weights.setdefault(name.replace(".running_var", ".num_batches_tracked"), torch.tensor(0))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    shaped = [value for value in checkpoint.weights.values() if value.dim() > 1]
    return {
        "run": {"arch": checkpoint.arch, "model_args": _removed(checkpoint)},
        "num_classes": shaped[-1].shape[0] if shaped else 0,
        "precision": "fp32",
        "epoch": -1 if checkpoint.epoch is None else checkpoint.epoch,
        "schedule_hash": None,
        "model": weights,
        "masks": dict(checkpoint.masks),
        "scheduler": {"masks": dict(checkpoint.masks)},
        "optimizer": checkpoint.optimizer,
        "optimizer_type": checkpoint.optimizer_type,
        "parameters": [name for name in checkpoint.weights if not name.endswith(buffers)],
        "rng": None,
    }


def _removed(checkpoint: DistillerCheckpoint) -> dict[str, object]:
    """Layers that were removed by their block's gates: the file does not name them, but their weights are all zero, and
    no mask keeps them so.
    """
    if not re.fullmatch(r"resnet\d+_cifar", checkpoint.arch or ""):
        return {}
    closed = [
        name.removesuffix(".weight")
        for name, weight in checkpoint.weights.items()
        if _IN_A_BLOCK.fullmatch(name) and name not in checkpoint.masks and not weight.any()
    ]
    return {"removed": closed} if closed else {}


def _load(path: Path) -> object:
    names, _ = look_through(path)
    inert = {
        (module, name)
        for module, name in names
        if (module, name) in _NUMPY or any(module == p or module.startswith(f"{p}.") for p in _PACKAGES)
    }
    return read_tensors(path, _WAY_OUT, stand_ins(inert))


def _plain(value: object, done: dict[int, object]) -> object:
    """The value with stand-ins turned into plain data: a class into its dotted name, an object into a mapping."""
    if id(value) in done:
        if done[id(value)] is done:
            raise ValueError("an object that holds itself")
        return done[id(value)]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, (StandIn, dict, list, tuple, set)) or isinstance(value, torch.Size):
        return value
    done[id(value)] = done  # under way
    result: object
    if isinstance(value, StandIn):
        result = _object(value, done)
    elif isinstance(value, dict):
        result = {_plain(key, done): _plain(entry, done) for key, entry in value.items()}
    else:
        result = [_plain(entry, done) for entry in value]
        result = result if isinstance(value, list) else tuple(result)
    done[id(value)] = result
    return result


def _object(value: StandIn, done: dict[int, object]) -> object:
    kind = type(value)
    if kind.__qualname__ == "ThinningRecipe" and len(value.args) == 2:
        return dict(zip(("modules", "parameters"), (_plain(entry, done) for entry in value.args), strict=True))
    if kind.__qualname__ == "scalar" and kind.__module__.startswith("numpy"):
        return _numpy_scalar(value)
    named = {"class": f"{kind.__module__}.{kind.__qualname__}", "arguments": _plain(list(value.args), done)}
    return named if value.state is None else {**named, "state": _plain(value.state, done)}


def _numpy_scalar(value: StandIn) -> object:
    """numpy pickles a scalar as its type, such as ('f8', byte order in the state), and its bytes."""
    dtype, data = value.args
    if not isinstance(dtype, StandIn):
        raise ValueError("a numpy value without a type")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    if not re.fullmatch(r"[biuf]\d", str(dtype.args[0])) or order not in "<>|=" or not isinstance(data, bytes):
        raise ValueError("a numpy value that is no number")
    return np.frombuffer(data, np.dtype(f"{order}{dtype.args[0]}"))[0].item()


def _recipe(recipe: Mapping[str, object]) -> Mapping[str, Any]:
    return {part: _without_module(_mapping(recipe.get(part))) for part in ("modules", "parameters")}


def _without_module(named: Mapping[str, object]) -> dict[str, Any]:
    """Names without the component ``module`` that DataParallel puts in, at the front or (VGG, AlexNet) inside."""
    return {re.sub(r"(^|\.)module\.", r"\1", name, count=1): value for name, value in named.items()}


def _is_optimizer(value: object) -> bool:
    """Whether it has the shape of an optimizer's ``state_dict()``."""
    value = _mapping(value)
    groups, states = value.get("param_groups"), value.get("state")
    return (
        isinstance(groups, list)
        and all(isinstance(_mapping(group).get("params"), list) for group in groups)
        and isinstance(states, dict)
        and all(isinstance(state, dict) for state in states.values())
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
