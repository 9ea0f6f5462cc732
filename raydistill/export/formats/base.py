"""What a format of deployed networks is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from raydistill.export.outputs import Runner

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest


__all__ = ["Format", "Runner"]


class Format(Protocol):
    """NAME: as the user asks for it. RUNTIME: what runs it. ABOUT: a line for a menu."""

    NAME: ClassVar[str]
    RUNTIME: ClassVar[str]
    ABOUT: ClassVar[str]

    def check(self, where: str) -> None:
        """Raises ConfigError where a package is missing."""

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        """Write its files; returns their names.

        Raises:
            ConfigError: the network cannot be written so.
            StorageError: the folder cannot take it.
        """

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        """Load what was written. threads: None: as many as the runtime takes. arch: a factory as the user names it.

        Raises:
            CheckpointError, ConfigError: it is damaged, or cannot be run here.
        """

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        """Lines of Python that run it, in the folder."""

    def versions(self, folder: Path) -> Mapping[str, str]:
        """What has to be known to read its files, by name: the opset of ONNX, say."""
        return {}
