"""The networks and arrays of Distiller's quantizer oracles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Oracles:
    cases: dict[str, list[dict[str, Any]]]
    arrays: Any

    @classmethod
    def read(cls, compat: Path) -> Oracles:
        folder = compat / "quant_oracles"
        return cls(json.loads((folder / "cases.json").read_text()), np.load(folder / "arrays.npz", allow_pickle=False))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def network(self, number: int) -> nn.Sequential:
        said = self.cases["stats"][number]
        net = nn.Sequential()
        for name, kind, arguments in said["net"]:
            net.add_module(name, getattr(nn, kind)(**arguments))
        net.load_state_dict({name: self.tensor(array) for name, array in said["state"].items()})
        return net.eval()
