"""``manifest.json``: what lies in an artifact folder, as whoever takes it away reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.export.outputs import MENU, OutputKind, kind_named
from raydistill.export.outputs.tensor import OneTensor
from raydistill.files import missing, write_atomically

FILE_NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Port:
    """An input or an output. shape: None where any size will do."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class File:
    """bytes, gzip_bytes: on disk, and packed by gzip. agreement: of the output of what it holds, the largest difference
    to the masked network's on the reference samples, where it can be run."""

    name: str
    format: str
    bytes: int
    gzip_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """arch, model_args: of the factory. source: the sweep's name, trial, seed and searched values, or the checkpoint.

    task: its name, arguments and dataset, as far as they are known; data: what was trained on.
    figures: by split, the metrics of the masked network's evaluation; samples beside them. network: sparsity and the
    footprint (see `training.footprint`); dense: that of the dense network, as far as it is known. agreement: by format,
    the largest difference of an output to the masked network's, of `outputs_range`. changes: lines on what was removed
    and folded, and what could not be. rounded: it is a quantized network. moved_by_rounding: by how much the outputs of
    such a one differ where floats have double precision. latency: see `latency.side_by_side`. gives:
    of `outputs.MENU`; others: what it gives beside `output`. partial: the network gives
    more than is delivered, as the state that it would go on from: its `figures` were had with that. semi_structured:
    weights that keep two of every four inputs.
    """

    arch: str
    model_args: Mapping[str, Any]
    source: Mapping[str, Any]
    task: Mapping[str, Any]
    inputs: tuple[Port, ...]
    output: Port
    preprocessing: Mapping[str, Any] | None
    classes: tuple[str, ...]
    figures: Mapping[str, Mapping[str, float]]
    network: Mapping[str, float]
    dense: Mapping[str, float]
    changes: tuple[str, ...]
    files: tuple[File, ...] = ()
    agreement: Mapping[str, float] = field(default_factory=dict)
    largest_output: float = 0.0
    moved_by_rounding: float = 0.0
    rounded: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    latency: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    gives: str = OneTensor.NAME
    others: tuple[Port, ...] = ()
    partial: bool = False
    semi_structured: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Port, ...]:
        return (self.output, *self.others)

    @property
    def kind(self) -> OutputKind:
        return MENU[self.gives]

    @property
    def file_names(self) -> frozenset[str]:
        return frozenset(file.name for file in self.files)

    @property
    def formats(self) -> tuple[str, ...]:
        """Those that were written, in their order."""
        return tuple(self.agreement)

    def write(self, folder: Path) -> None:
        write_atomically(folder / FILE_NAME, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises CheckpointError where there is none, or none that can be read."""
    path = folder / FILE_NAME
    way_out = "name a folder that raydistill pick or raydistill export wrote"
    if not path.is_file():
        raise CheckpointError(Fault(str(folder), f"holds no {FILE_NAME}", ABSENT, missing(folder, way_out)))
    try:
        said = json.loads(path.read_bytes())
        if said.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        said["inputs"] = tuple(_port(port) for port in said["inputs"])
        said["output"] = _port(said["output"])
        said["others"] = tuple(_port(port) for port in said.get("others", ()))
        said["files"] = tuple(File(**file) for file in said["files"])
        said["classes"], said["changes"] = tuple(said["classes"]), tuple(said["changes"])
        said["semi_structured"] = tuple(said.get("semi_structured", ()))
        manifest = Manifest(**said)
        _check(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, CheckpointError) as error:
        raise CheckpointError(Fault(str(path), f"cannot be read ({error})", ABSENT, way_out)) from error
    return manifest


def _port(said: Mapping[str, Any]) -> Port:
    return Port(str(said["name"]), tuple(said["shape"]), str(said["dtype"]))


def _check(manifest: Manifest) -> None:
    kind_named(manifest.gives, "gives")
    if not isinstance(manifest.arch, str) or not manifest.inputs:
        raise ValueError("it does not say the network")
    for file in manifest.files:
        if not isinstance(file.name, str) or Path(file.name).name != file.name:
            raise ValueError("a file of it lies elsewhere")
    for mapping in (manifest.agreement, manifest.network, manifest.dense):
        if not isinstance(mapping, dict) or not all(isinstance(value, int | float) for value in mapping.values()):
            raise ValueError("a figure is no number")
