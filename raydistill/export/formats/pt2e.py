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
                torch.export.save(traced(network, Pt2eOperators()), buffer)
            except Exception as error:  # tracing fails in many ways
                rule = f"torch.export cannot trace the network ({innermost(error)})"
                raise ConfigError(Fault(self.NAME, rule, ABSENT, "use onnx")) from error
        write_atomically(folder / _FILE, buffer.getvalue())
        return (_FILE,)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        self.check(self.NAME)
        Pt2eOperators()  # an archive that calls them cannot be read without
        model = load_archive(folder / _FILE, OPERATORS)
        compiled: dict[tuple[Any, ...], Callable[..., Tensor]] = {}

        def run(inputs: Sequence[Tensor]) -> Tensor:
            shapes = tuple(tuple(value.shape) for value in inputs)
            with torch.no_grad():
                if shapes not in compiled:  # kernels are made for one size each
                    compiled[shapes] = _compiled(model, tuple(inputs))
                return compiled[shapes](*inputs)

        return run

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name = manifest.inputs[0].name
        return (
            "import torch; torch._inductor.config.freezing = True",
            "import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # brings the integer kernels",
            "from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86",
            f'network = lower_pt2e_quantized_to_x86(torch.export.load("{_FILE}").module(), ({name},))',
            f"with torch.no_grad(): {manifest.output.name} = torch.compile(network)({name})",
        )


def lowered(model: Any, inputs: tuple[Tensor, ...]) -> Any:
    """The network with what runs as integers in integer kernels, packed for inputs of these sizes.

    torchao teaches torch.compile its kernels where its quantizer is imported; without that all of it runs in floats.
    """
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    from torchao.quantization.pt2e.lowering import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        lower_pt2e_quantized_to_x86,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lower_pt2e_quantized_to_x86(model, inputs)


def _compiled(model: Any, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    from torch._inductor import config  # torchao's way of telling it that weights stay as they are

    network = torch.compile(lowered(model, inputs))

    def run(*values: Tensor) -> Tensor:
        with config.patch(freezing=True):
            found: Tensor = network(*values)
        return found

    return run
