"""A network for OpenVINO."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.onnx import Onnx, innermost
from raydistill.export.formats.packages import need
from raydistill.export.formats.pt2 import traced
from raydistill.export.formats.quiet import quietly
from raydistill.export.integers.aten import AtenOperators
from raydistill.export.outputs import Output, together
from raydistill.files import unwritable

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE, _WEIGHTS = "model.xml", "model.bin"


class OpenVino(Format):
    NAME: ClassVar[str] = "openvino"
    RUNTIME: ClassVar[str] = "openvino"
    ABOUT: ClassVar[str] = "for OpenVINO on CPUs and GPUs of Intel's, of any batch size"

    def check(self, where: str) -> None:
        need("openvino", where)

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        self.check(self.NAME)
        import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

        with tempfile.TemporaryDirectory() as work, quietly(), torch.no_grad():
            try:
                model = openvino.convert_model(_read_by_openvino(network, Path(work)))
            except Exception as error:
                rule = f"OpenVINO cannot convert the network ({innermost(error)})"
                raise ConfigError(Fault(self.NAME, rule, ABSENT, "use onnx")) from error
        ports = (
            *zip(model.inputs, network.input_names, strict=True),
            *zip(model.outputs, network.output_names, strict=True),
        )
        for port, name in ports:
            port.get_tensor().set_names({name})
        try:
            openvino.save_model(model, str(folder / _FILE), compress_to_fp16=False)
        except RuntimeError as error:
            raise unwritable(folder / _FILE, OSError(str(error))) from error
        return (_FILE, _WEIGHTS)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        self.check(self.NAME)
        import openvino

        path = folder / _FILE
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
        }
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            rule = f"cannot be loaded by OpenVINO ({str(error).strip().splitlines()[0]})"
            raise CheckpointError(Fault(str(path), rule, ABSENT, "export it again")) from error

        def run(inputs: Sequence[Tensor]) -> Output:
            found = compiled([value.contiguous().numpy() for value in inputs])
            return together([torch.from_numpy(found[index].copy()) for index in range(len(compiled.outputs))])

        return run

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name = manifest.inputs[0].name
        return (
            "import openvino",
            # f32: left to itself it takes bf16 where the processor has it, and gives other outputs
            f'network = openvino.Core().compile_model("{_FILE}", config={{"INFERENCE_PRECISION_HINT": "f32"}})',
            f"{manifest.output.name} = network([{name}])[0]"
            if not manifest.others
            else f"{', '.join(port.name for port in manifest.outputs)} = network([{name}]).values()",
        )


def _read_by_openvino(network: Deployed, work: Path) -> object:
    """What it converts: of a quantized network the ONNX file, in which it finds whole numbers; of a detector too, which
    torch.export does not trace."""
    if network.kind.BATCHED and not network.rounded:
        return traced(network, AtenOperators())
    (name,) = Onnx().write(network, work)
    return work / name
