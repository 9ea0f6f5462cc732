"""torchvision's published weights: found in torch's own cache, downloaded where the network allows, never unpickled."""

from __future__ import annotations

import http.client
import re
import urllib.request
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault, close_match
from raydistill.models import from_torchvision
from raydistill.models.menu import OWN
from raydistill.tensor_file import read_tensors

PATIENCE_S = 10.0
_FIRST = "IMAGENET1K_V1"
_HASH = re.compile(r"-([0-9a-f]{8,})\.")


def load_pretrained(
    model: nn.Module, arch: str, weights: bool | str = True, where: str = "model.args.pretrained"
) -> str:
    """Load torchvision's published weights of `arch` into `model`; returns their name (``IMAGENET1K_V1``).

    weights: their name; True stands for ``IMAGENET1K_V1``, the ones that `pretrained` has always meant, or for the
    default ones of an architecture that has no such. The images must be normalised as ImageNet's are. Where the model
    has another number of classes than the 1000 of ImageNet, its last layer stays as it is: random, to be trained.

    Raises:
        ConfigError: there are no such weights, or they are of another shape.
        CheckpointError: they cannot be had, or their file is damaged.
    """
    entry = published(arch, weights, where)
    state = _read(entry.url, f"{where} '{arch}'")
    own = model.state_dict()
    from_torchvision.with_present_names(state, own)
    classes = len(entry.meta["categories"])
    head = [key for key, value in state.items() if key in own and _is_head(value, own[key], classes)]
    for key in head:
        del state[key]
    wrong = [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        height, width = entry.meta["min_size"]
        fixed = (
            f" for images of {height}x{width}" if height >= 224 else ""
        )  # a transformer's, which is built for a size
        _refuse(wrong[0], where, f"of '{arch}'{fixed}")
    missing = set(model.load_state_dict(state, strict=False).missing_keys) - set(head)
    if missing:
        _refuse(min(missing), where, f"of '{arch}'")
    return entry.name


def published(arch: str, weights: bool | str, where: str) -> Any:
    """torchvision's entry for these weights; nothing is downloaded.

    Raises:
        ConfigError: there are none, or `weights` does not name any of them.
    """
    if not isinstance(weights, (bool, str)) or weights is False:
        raise ConfigError(Fault(where, "must be true or the name of published weights", weights))
    if arch in OWN or arch not in from_torchvision.names():
        way_out = "train it, or start from a checkpoint"
        raise ConfigError(Fault(where, f"there are no published weights of '{arch}'", ABSENT, way_out))
    import torchvision

    members = {entry.name: entry for entry in torchvision.models.get_model_weights(arch)}
    if isinstance(weights, str):
        if weights not in members:
            rule = f"'{arch}' has no such published weights"
            raise ConfigError(Fault(where, rule, weights, close_match(weights, members)))
        return members[weights]
    return members.get(_FIRST, next(iter(members.values())))


def _is_head(value: torch.Tensor, own: torch.Tensor, classes: int) -> bool:
    """A layer with one row a class, of another number of classes than the published one."""
    return (
        value.dim() > 0
        and value.dim() == own.dim()
        and value.shape[0] == classes != own.shape[0]
        and value.shape[1:] == own.shape[1:]
    )


def _refuse(name: str, where: str, whose: str) -> None:
    rule = f"the model differs in '{name}' from the published weights {whose}"
    raise ConfigError(Fault(where, rule, ABSENT, "leave its other arguments out or give those of the weights"))


def _read(url: str, where: str) -> MutableMapping[str, Any]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not file.exists():
        _download(url, file, where)
    state = read_tensors(file, "delete it")
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(Fault(str(file), "is damaged, or not published weights", ABSENT, "delete it"))
    return state


def _download(url: str, file: Path, where: str) -> None:
    match = _HASH.search(file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # torch's download waits for ever for a server that does not answer: ask for the headers first
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE_S):  # nosec B310 - torchvision's address
            pass
        torch.hub.download_url_to_file(url, str(file), match[1] if match else None, progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        rule = f"its published weights cannot be downloaded ({reason})"
        raise CheckpointError(Fault(where, rule, ABSENT, f"put {url} at {file} yourself")) from error
