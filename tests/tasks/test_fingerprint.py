from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from raydistill.tasks.fingerprint import fingerprint


@dataclass
class Part:
    rows: Any
    name: str = "a"


def value(**changed: Any) -> dict[str, Any]:
    return {"x": torch.arange(6.0), "y": [np.arange(3), Part((1, 2))], "n": 3, "z": None, **changed}


def test_equal_content_has_one_fingerprint_whatever_objects_hold_it() -> None:
    assert fingerprint(value()) == fingerprint(value(x=torch.arange(6.0).clone()))
    strided = torch.arange(12.0).reshape(6, 2).T[0]
    assert fingerprint(strided) == fingerprint(strided.contiguous())


@pytest.mark.parametrize(
    "changed",
    [
        {"x": torch.arange(6.0).reshape(2, 3)}, {"x": torch.arange(6)}, {"x": -torch.arange(6.0)}, {"n": 4},
        {"n": 3.0}, {"z": ""}, {"y": [np.arange(3), Part((1, 3))]}, {"y": [np.arange(3), Part((1, 2), "b")]},
        {"y": [np.arange(3, dtype=np.int8), Part((1, 2))]}, {"w": 1},
    ],
)  # fmt: skip
def test_anything_else_has_another(changed: dict[str, Any]) -> None:
    assert fingerprint(value(**changed)) != fingerprint(value())
