"""Models on torch's meta device: names and shapes without memory or time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from raydistill.models import create, default_num_classes


class _Unset(TorchFunctionMode):
    """Leaves parameters as they are: they have no values here, and torch takes longest to draw those."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            getattr(func, "__name__", "") in ("normal_", "uniform_")
            or getattr(func, "__module__", "") == "torch.nn.init"
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@cache
def _built(arch: str, num_classes: int | None, args: tuple[tuple[str, Any], ...]) -> nn.Module:
    with torch.device("meta"), _Unset():
        return create(arch, num_classes or default_num_classes(arch), dict(args), fetch=False).eval()


class Meta:
    """``meta(arch)`` is the model with its own number of classes, ``meta(arch, 10, width=...)`` another; shared."""

    def __call__(self, arch: str, num_classes: int | None = None, **args: Any) -> nn.Module:
        return _built(arch, num_classes, tuple(args.items()))

    def weights(self, arch: str) -> dict[str, tuple[int, ...]]:
        """Name to shape of what Distiller counts as weights: parameters of two dimensions and more."""
        return {name: tuple(p.shape) for name, p in self(arch).named_parameters() if p.dim() > 1}

    def count(self, arch: str) -> int:
        return sum(p.numel() for p in self(arch).parameters() if p.dim() > 1)


@pytest.fixture(scope="session")
def meta() -> Meta:
    return Meta()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a module with networks of a user's own."""
    source = (
        "from torch import nn\n"
        "def net(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))\n"
        "def pretrained(num_classes=6, pretrained='no'):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, len(pretrained)))\n"
        "def wrong(num_classes):\n    return 'no module'\n"
        "value = 3\n"
    )
    (tmp_path / "own_models_of_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_models_of_test"
