"""A quantized network that torch.compile makes integer kernels of, on CPUs, through torchao."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.onnx import innermost
from raydistill.export.formats.packages import need
from raydistill.export.formats.pt2 import load_archive, traced
from raydistill.export.formats.quiet import quietly
from raydistill.export.integers.pt2e import OPERATORS, Pt2eOperators
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE = "model.pt2e.pt2"
_SIZES = 64
"""Of batches, before torch.compile gives up and computes in floats."""


class Pt2e(Format):
    NAME: ClassVar[str] = "pt2e"
    RUNTIME: ClassVar[str] = "torch.compile"
    ABOUT: ClassVar[str] = "of quantized networks: torch.compile runs it as integers on CPUs, with torchao"

    def check(self, where: str) -> None:
        need("torchao", where)

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        self.check(self.NAME)
        if not network.rounded:
            raise ConfigError(Fault(self.NAME, "is for quantized networks, and this one is not", ABSENT, "use pt2"))
        buffer = io.BytesIO()
        with quietly(), torch.no_grad():
            try:
                operators = Pt2eOperators()
                program = traced(network, operators)
                operators.meet_kernels(program)
                torch.export.save(program, buffer)
            except Exception as error:  # tracing fails in many ways
                rule = f"torch.export cannot trace the network ({innermost(error)})"
                raise ConfigError(Fault(self.NAME, rule, ABSENT, "use onnx")) from error
        write_atomically(folder / _FILE, buffer.getvalue())
        return (_FILE,)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        self.check(self.NAME)
        Pt2eOperators()  # an archive that calls them cannot be read without
        network = _compiled(load_archive(folder / _FILE, OPERATORS))

        def run(inputs: Sequence[Tensor]) -> Tensor:
            with torch.no_grad():
                return network(*inputs)

        return run

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name = manifest.inputs[0].name
        return (
            "import torch; torch._inductor.config.freezing = True",
            "import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # brings the integer kernels",
            f'network = torch.compile(torch.export.load("{_FILE}").module(), dynamic=False)',
            f"with torch.no_grad(): {manifest.output.name} = network({name})",
        )


def _compiled(model: Any) -> Callable[..., Tensor]:
    """In integer kernels, which torchao brings where its quantizer is imported; without that all of it is in floats.

    Each size of a batch has kernels of its own: of sizes that vary torchao's patterns fail in transformers.
    """
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    from torch._dynamo import config as dynamo
    from torch._inductor import config  # torchao's way of telling it that weights stay as they are

    network = torch.compile(model, dynamic=False)

    def run(*values: Tensor) -> Tensor:
        with config.patch(freezing=True), dynamo.patch(recompile_limit=_SIZES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = network(*values)
        return found

    return run
