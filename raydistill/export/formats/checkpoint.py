"""A checkpoint of raydistill's own: to be trained on, quantized or looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.rebuilt import own_arch, run_in_torch
from raydistill.training.checkpoint import load_model, write_checkpoint

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE = "checkpoint.pt"


class Checkpoint(Format):
    NAME: ClassVar[str] = "checkpoint"
    RUNTIME: ClassVar[str] = "torch"
    ABOUT: ClassVar[str] = "raydistill's own: to look at, to train on, to export again"

    def check(self, where: str) -> None:
        return

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        write_checkpoint(folder / _FILE, network.checkpoint())
        return (_FILE,)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        return run_in_torch(load_model(folder / _FILE, arch), manifest)

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        return (
            "import raydistill",
            f'network = raydistill.load_model("{_FILE}"{own_arch(manifest)})',
            manifest.kind.called("network", manifest.inputs[0].name, [port.name for port in manifest.outputs]),
        )
