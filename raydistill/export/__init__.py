"""Networks to take away: thinned, folded, written in formats that others run, held against what was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from raydistill.export.artifact import write_artifact
from raydistill.export.deployed import Deployed, deployed
from raydistill.export.formats import DEFAULT, MENU, Runner, asked_for, write_onnx
from raydistill.export.manifest import Manifest, read_manifest

__all__ = [
    "DEFAULT",
    "Deployed",
    "MENU",
    "Manifest",
    "Runner",
    "asked_for",
    "deployed",
    "export",
    "load",
    "read_manifest",
    "write_artifact",
    "write_onnx",
]


def export(
    checkpoint: str | Path,
    folder: str | Path,
    formats: Sequence[str] = DEFAULT,
    *,
    dense: str | Path | None = None,
    arch: str | None = None,
    latency: bool = True,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write the network of a checkpoint into a folder, as `write_artifact` does.

    formats: names of `MENU`. dense: a checkpoint of the network before it was pruned, to be measured beside. arch: see
    `raydistill.load_model`; of both checkpoints.

    Raises:
        CheckpointError, ConfigError: the checkpoint cannot be used, or written in none of these formats.
        StorageError: the disk cannot take it.
    """
    chosen = asked_for(formats, "formats")
    network = deployed(checkpoint, arch)
    beside = None if dense is None else deployed(dense, arch, network.inputs)
    source = {"checkpoint": str(checkpoint)}
    return write_artifact(
        network,
        chosen,
        Path(folder),
        source=source,
        dense=beside,
        latency=latency,
        threads=threads,
        arch=arch,
        tell=tell,
    )


def load(folder: str | Path, form: str | None = None, arch: str | None = None, threads: int | None = None) -> Runner:
    """The network of an artifact folder in the runtime of one of its formats: a function of positional inputs, as a
    tuple of tensors, that gives the output.

    form: of `MENU`; None: the first that was written. arch: see `raydistill.load_model`.

    Raises:
        CheckpointError, ConfigError: there is no such format in the folder, or it cannot be run here.
    """
    manifest = read_manifest(Path(folder))
    (found,) = asked_for([form or manifest.formats[0]], "format")
    return found.runner(Path(folder), manifest, threads, arch)
