"""Statistics of calibration, kept for other runs of the same weights on the same data: trials that differ in their bits
alone need one pass over the data between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from raydistill.compression.quantizers.statistics import LayerRecords, as_mapping, statistics_of
from raydistill.compression.ranks import digest
from raydistill.errors import ConfigError
from raydistill.files import write_atomically

Collect = Callable[[], dict[str, LayerRecords]]


@dataclass(frozen=True)
class KeptStatistics:
    """folder: where, a file for each network. about: all besides its weights that the statistics depend on (what the
    network is, the data, how they are batched), in any text."""

    folder: Path
    about: str

    def of(self, model: nn.Module, extent: str, collect: Collect) -> dict[str, LayerRecords]:
        """Those that are there, else what is collected now. extent: which of a network's statistics are meant.

        Raises:
            StorageError: the file cannot be written. ConfigError, DataError: as `collect`.
        """
        path = self.folder / f"{self._name(model, extent)}.json"
        known = _read(path)
        if known is not None:
            return known
        found = collect()
        content = {name: as_mapping(records) for name, records in found.items()}
        write_atomically(path, json.dumps(content))  # numbers as they are, to the last bit
        return found

    def _name(self, model: nn.Module, extent: str) -> str:
        weights = digest(model.state_dict().items())
        return hashlib.sha256(f"{self.about}\n{extent}\n{torch.__version__}\n{weights}".encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, LayerRecords] | None:
    """None where there is nothing, or nothing whole: it is collected again."""
    try:
        return statistics_of(json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError, AttributeError, ConfigError):
        return None
