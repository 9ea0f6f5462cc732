"""Weights in whatever file people have them: a plain state_dict or one under a key, safetensors, Lightning's and timm's
files, a Hugging Face folder. Nothing in a file runs: objects of other packages become inert stand-ins, or are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.files import missing
from raydistill.models import takes_num_classes
from raydistill.tensor_file import look_through, read_tensors, stand_ins

SAFETENSORS = ".safetensors"
_WAY_OUT = "give a state_dict that torch.save wrote, safetensors, or a Hugging Face folder"
_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
_AVERAGED = ("ema", "model_ema", "ema_state_dict", "state_dict_ema")
"""Under which keys training frameworks keep a state_dict; an average of the weights counts where there is no other."""
_LIGHTNING = "pytorch-lightning_version"
_FOREIGN = {_LIGHTNING, "state_dict_ema", "model_state_dict"}
_OWN = {"format", "run", "num_classes", "precision", "schedule_hash", "structure", "scheduler", "history", "rng"}
"""Keys of a checkpoint of raydistill's; a damaged one lacks some, and is not to be taken for plain weights."""
_PACKAGES = (
    "pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "argparse", "pathlib", "numpy", "timm", "typing",
    "transformers", "torch.optim", "enum",
)  # fmt: skip
"""Whose objects stand beside the weights, and are of no use here."""
_WRAPPERS = ("module.", "_orig_mod.", "_forward_module.")


def is_plain(path: str | Path) -> bool:
    """Whether it is a file of none of the two tools that say more than weights; nothing is loaded."""
    if Path(path).is_dir() or Path(path).suffix == SAFETENSORS:
        return True
    names, strings = look_through(path)
    if strings & _FOREIGN:
        return True
    from_distiller = any(module.partition(".")[0] == "distiller" for module, _ in names)
    if from_distiller or ("state_dict" in strings and strings & {"arch", "compression_sched", "best_top1"}):
        return False
    return len(strings & _OWN) < 2


def read_weights(path: str | Path) -> dict[str, object]:
    """A content as `raydistill.training.checkpoint.read_checkpoint` gives it, of which only the weights are known.

    plain: True. Wrappers' prefixes (``module.``, ``_orig_mod.``) are gone from the names.

    Raises:
        CheckpointError: no such file, damaged, no weights in it, or it names what may run code.
    """
    path = Path(path)
    state: Mapping[str, Tensor]
    if path.is_dir():
        state = _folder(path)
    elif path.suffix == SAFETENSORS:
        state = _safetensors(path)
    else:
        state = _found(_loaded(path), str(path))
    return {
        "run": {"arch": None, "model_args": {}},
        "plain": True,
        "precision": "fp32",
        "epoch": -1,
        "schedule_hash": None,
        "model": _unwrapped(state),
        "scheduler": {"masks": {}},
        "optimizer": None,
        "rng": None,
        "history": [],
    }


def num_classes_of(content: Mapping[str, Any], arch: str) -> int | None:
    """How many a network of this arch has by its weights: the rows of the last one that has rows and columns.

    None for a factory that takes no such number.
    """
    shaped = [value for value in content["model"].values() if value.dim() > 1]
    return shaped[-1].shape[0] if shaped and takes_num_classes(arch) else None


def fitted(model: nn.Module, content: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The weights of a plain file by the model's own names.

    The model may have been an attribute of what was saved (Lightning's modules): then all its names have that prefix.
    Of tied weights one name is enough, and counters that old files lack are 0.

    Raises:
        CheckpointError: names the model has and the file lacks, and the other way round, by name.
    """
    own = model.state_dict()
    state: Mapping[str, Tensor] = content["model"]
    for prefix in _prefixes(state):
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if own.keys() <= inside.keys() | _supplied(inside, own):
            state = inside if prefix else state
            break
    supplied = _supplied(state, own)
    missing_ones = [name for name in own if name not in state and name not in supplied]
    unexpected = [name for name in state if name not in own]
    if missing_ones or unexpected:
        parts = [
            f"{verb} {_some(names)}"
            for verb, names in (("lacks", missing_ones), ("has, and the network lacks,", unexpected))
            if names
        ]
        way_out = "name the architecture and the arguments that it was trained with"
        raise CheckpointError(Fault(where, " and ".join(parts), ABSENT, way_out))
    found = {}
    for name in own:
        same = next((twin for twin in supplied.get(name, ()) if twin in state), None)
        found[name] = state[name] if name in state else own[name].zero_() if same is None else state[same]
    return found


def _prefixes(state: Mapping[str, Tensor]) -> Iterator[str]:
    yield ""
    yield from dict.fromkeys(f"{name.partition('.')[0]}." for name in state if "." in name)


def _supplied(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names a file need not have: by each its other names in the model; counters have none."""
    by_place: dict[tuple[int, torch.Size], list[str]] = {}
    for name, value in own.items():
        if value.numel():
            by_place.setdefault((value.data_ptr(), value.shape), []).append(name)
    found = {
        name: [twin for twin in names if twin != name]
        for names in by_place.values()
        for name in names
        if any(twin in state for twin in names if twin != name)
    }
    counters = (name for name in own if name.endswith(".num_batches_tracked") or name == "num_batches_tracked")
    return {**{name: [] for name in counters}, **found}


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _loaded(path: Path) -> Any:
    names, _ = look_through(path)
    inert = {
        (module, name)
        for module, name in names
        if any(module == package or module.startswith(f"{package}.") for package in _PACKAGES)
    }
    whole = next((f"{module}.{name}" for module, name in sorted(names) if _is_a_module(module)), "")
    if whole:
        rule = f"holds a whole network as an object ({whole}), which cannot be loaded without running code from it"
        raise CheckpointError(Fault(str(path), rule, ABSENT, "save its state_dict() instead"))
    return read_tensors(path, _WAY_OUT, stand_ins(inert))


def _is_a_module(module: str) -> bool:
    return module.startswith("torch.nn.modules.") or module == "torch.nn.parallel.data_parallel"


def _found(content: Any, where: str) -> Mapping[str, Tensor]:
    """The state_dict in what was saved."""
    if _is_state(content):
        return content  # type: ignore[no-any-return]
    if isinstance(content, Mapping):
        for key in (*_KEYS, *_AVERAGED):
            inside: Any = content.get(key)
            if _is_state(inside):
                return inside  # type: ignore[no-any-return]
            if isinstance(inside, Mapping):
                for name in _KEYS:
                    if _is_state(inside.get(name)):
                        return dict(inside[name])
        known = ", ".join(map(str, list(content)[:8]))
        places = f"neither as it is nor under {', '.join(_KEYS[:3])} or {_AVERAGED[0]}"
        rule = f"is no file of weights: it holds no state_dict, {places}"
        raise CheckpointError(Fault(where, rule, known, _WAY_OUT))
    raise CheckpointError(
        Fault(where, "is no file of weights: it holds no state_dict", type(content).__name__, _WAY_OUT)
    )


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in value.items())
    )


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {re.sub(r"(^|\.)_orig_mod\.", r"\1", name): value for name, value in state.items()}
    while found and (prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in found)), "")):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(Fault(str(path), "no such checkpoint", ABSENT, missing(path, _WAY_OUT)))
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, which derives from Exception only
        raise CheckpointError(
            Fault(str(path), f"is damaged, or no safetensors file ({error})", ABSENT, _WAY_OUT)
        ) from error


_IN_FOLDER: tuple[tuple[str, Callable[[Path], Mapping[str, Tensor]]], ...] = (
    ("model.safetensors", _safetensors),
    ("pytorch_model.bin", lambda path: _found(_loaded(path), str(path))),
)


def _folder(folder: Path) -> dict[str, Tensor]:
    """A Hugging Face folder: one file of weights, or several with an index."""
    for name, read in _IN_FOLDER:
        if (folder / name).is_file():
            return dict(read(folder / name))
        index = folder / f"{name}.index.json"
        if index.is_file():
            found: dict[str, Tensor] = {}
            for part in _parts(index):
                found |= read(folder / part)
            return found
    names = ", ".join(name for name, _ in _IN_FOLDER)
    raise CheckpointError(Fault(str(folder), f"holds no weights ({names})", ABSENT, "name the file itself"))


def _parts(index: Path) -> list[str]:
    try:
        parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(Fault(str(index), "is no index of weights", ABSENT, "copy the folder again")) from error
    outside = [part for part in parts if not isinstance(part, str) or Path(part).name != part]
    if outside:
        raise CheckpointError(Fault(str(index), "names a file outside the folder", outside[0]))
    return parts
