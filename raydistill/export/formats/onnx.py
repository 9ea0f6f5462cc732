"""A network as an ONNX file with a free batch size."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.frozen import FrozenWeight
from raydistill.compression.quantizers.integers import of_4_bits, written_in
from raydistill.compression.quantizers.network import modes_kept, quantization_of
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.packages import need
from raydistill.export.formats.quiet import quietly
from raydistill.export.integers.onnx import OPSET_OF_4_BITS, OnnxOperators, drop_idle_relus, in_4_bits, translations
from raydistill.export.outputs import Output, together
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto  # type: ignore[import-not-found,import-untyped,unused-ignore]

    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE = "model.onnx"
_OPSET = 18
_MOST_BYTES = 2_000_000_000
"""A single file of protocol buffers holds less than 2 GiB."""


class Onnx(Format):
    NAME: ClassVar[str] = "onnx"
    RUNTIME: ClassVar[str] = "onnxruntime"
    ABOUT: ClassVar[str] = "for onnxruntime and whatever else reads ONNX, of any batch size"

    def check(self, where: str) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            need(package, where)

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        size = sum(tensor.numel() * tensor.element_size() for tensor in network.model.state_dict().values())
        if size > _MOST_BYTES:
            raise ConfigError(Fault(self.NAME, "a file holds less than 2 GB of weights", size, "use pt2"))
        said = {"preprocessing": network.preprocessing, "classes": network.classes}
        write = onnx_model if network.kind.BATCHED else onnx_of_image
        model = write(
            network.model, network.batch(2), network.batch_axes, network.input_names, network.output_names,
            {key: value for key, value in said.items() if value}, self.NAME,
        )  # fmt: skip
        write_atomically(folder / _FILE, model.SerializeToString())
        return (_FILE,)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        self.check(self.NAME)
        import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        path = folder / _FILE
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many classes of its own
            rule = f"cannot be loaded by onnxruntime ({str(error).strip().splitlines()[0]})"
            raise CheckpointError(Fault(str(path), rule, ABSENT, "export it again")) from error
        names = [entry.name for entry in session.get_inputs()]

        def run(inputs: Sequence[Tensor]) -> Output:
            fed = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
            return together([torch.from_numpy(value) for value in session.run(None, fed)])

        return run

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name = manifest.inputs[0].name
        names = [port.name for port in manifest.outputs]
        outputs = f"({names[0]},)" if len(names) == 1 else ", ".join(names)
        return (
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{_FILE}")',
            f'{outputs} = session.run(None, {{"{name}": {name}}})',
        )

    def versions(self, folder: Path) -> Mapping[str, str]:
        import onnx

        return {"opset": str(opset_of(onnx.load(folder / _FILE, load_external_data=False)))}


def write_onnx(
    model: nn.Module, example: Tensor, path: Path, properties: Mapping[str, object] | None = None, where: str = "onnx"
) -> int:
    """Write it; returns the size in bytes.

    example: one sample, (1, ...). properties: plain values, kept as JSON in the file's metadata. where: for errors.

    Raises:
        ConfigError: the packages are missing, or the model cannot be exported.
        StorageError: the file cannot be written.
    """
    batch = example.repeat(2, *[1] * (example.dim() - 1))  # of two samples: of one the exporter fixes the size
    content: bytes = onnx_model(model, (batch,), (0,), properties=properties, where=where).SerializeToString()
    write_atomically(path, content)
    return len(content)


def onnx_model(
    model: nn.Module,
    inputs: Sequence[Tensor],
    batch_axes: Sequence[int | None],
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    properties: Mapping[str, object] | None = None,
    where: str = "onnx",
) -> ModelProto:
    """The model in memory, its weights in it. inputs: two samples or more; batch_axes: where in each they lie.

    Raises:
        ConfigError: the packages are missing, or the model cannot be exported.
    """
    need("onnx", where)
    need("onnxscript", where)
    import onnx  # type: ignore[import-not-found,import-untyped,unused-ignore]

    batch = torch.export.Dim("batch", min=1)
    opset = OPSET_OF_4_BITS if _has_few_bits(model) else None
    with _exporting(where), written_in(model, OnnxOperators()), modes_kept():
        program = torch.onnx.export(
                    model, tuple(inputs), dynamo=True, custom_translation_table=translations(),
                    dynamic_shapes=tuple({axis: batch} for axis in batch_axes),
                    input_names=None if input_names is None else list(input_names),
                    output_names=None if output_names is None else list(output_names), verbose=False,
                    opset_version=opset,
                )  # fmt: skip
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.onnx"
        program.save(str(whole))
        written = onnx.load(whole)
    drop_idle_relus(written)
    if opset is not None and opset_of(written) >= opset:
        in_4_bits(written)
    graph = written.graph
    nodes = (*graph.node, *(node for function in written.functions for node in function.node))
    # where in which file of this machine each was made, and how torch calls it: a tenth of a small network's file
    for part in (graph, *nodes, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    return _saying(written, properties)


def _has_few_bits(model: nn.Module) -> bool:
    return any(of_4_bits(part.low, part.high) for part in model.modules() if isinstance(part, FrozenWeight))


def opset_of(written: ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in."""
    return next((int(said.version) for said in written.opset_import if said.domain in ("", "ai.onnx")), 0)


def onnx_of_image(
    model: nn.Module,
    inputs: Sequence[Tensor],
    batch_axes: Sequence[int | None],
    input_names: Sequence[str],
    output_names: Sequence[str],
    properties: Mapping[str, object],
    where: str,
) -> ModelProto:
    """A detector in memory. inputs: an image, (3, H, W); the file takes others of any size.

    Through torch.onnx's older exporter, opset 18: which boxes are kept depends on their values, and torch.export, which
    the newer one goes through, guards how many there are.

    Raises:
        ConfigError: see `onnx_model`; or the model is quantized.
    """
    del batch_axes
    need("onnx", where)
    import onnx

    if quantization_of(getattr(model, "network", model)) is not None:
        raise ConfigError(Fault(where, "a quantized detector cannot be written", ABSENT, "use checkpoint"))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        whole = Path(folder) / "model.onnx"
        with _exporting(where):
            torch.onnx.export(
                model, tuple(inputs), str(whole), dynamo=False, opset_version=_OPSET, input_names=list(input_names),
                output_names=list(output_names), dynamic_axes={input_names[0]: {1: "height", 2: "width"}},
            )  # fmt: skip
        written = onnx.load(whole)
    for node in (*written.graph.node, *(node for function in written.functions for node in function.node)):
        node.doc_string = ""  # where in which file of this machine each was made
    return _saying(written, properties)


@contextlib.contextmanager
def _exporting(where: str) -> Iterator[None]:
    """Raises ConfigError where the exporter refuses, which it does in many ways; it says nothing else."""
    try:
        with quietly():
            yield
    except Exception as error:
        raise ConfigError(Fault(where, f"the network cannot be exported ({innermost(error)})")) from error


def _saying(written: ModelProto, properties: Mapping[str, object] | None) -> ModelProto:
    if properties:
        import onnx

        onnx.helper.set_model_props(written, {key: json.dumps(value) for key, value in properties.items()})
    return written


def innermost(error: BaseException) -> str:
    """The first line of what began it: around that stand pages on how to report it."""
    while (error.__cause__ or error.__context__) is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")
    return f"{type(error).__name__}: {first}"
