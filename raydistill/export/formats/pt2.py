"""A network as torch.export's archive: runs without the code it was written in."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from raydistill.compression.quantizers.integers import Language, written_in
from raydistill.compression.quantizers.network import modes_kept
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.onnx import innermost
from raydistill.export.formats.quiet import quietly
from raydistill.export.integers.aten import AtenOperators
from raydistill.export.outputs import Output
from raydistill.export.outputs.tensor import FirstOutput
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from raydistill.export.deployed import Deployed
    from raydistill.export.manifest import Manifest

_FILE = "model.pt2"
_PLAIN = re.compile(r"[-+*/()\w\s.,='<>&|~^%]*")
_WORDS = re.compile(
    r"Symbol|Integer|Rational|Float|Mul|Add|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|IntTrueDiv|Eq|Ne|Lt|Le|Gt|Ge|And|"
    r"Or|Not|positive|integer|nonnegative|nonzero|real|True|False|Abs|oo|int_oo|batch|[suz]+\d+"
)
"""All that an expression of sizes is made of, beside symbols such as s0."""


class Pt2(Format):
    NAME: ClassVar[str] = "pt2"
    RUNTIME: ClassVar[str] = "torch"
    ABOUT: ClassVar[str] = "torch.export's archive: torch runs it without the network's own code"

    def check(self, where: str) -> None:
        return

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        said = {"preprocessing": network.preprocessing, "classes": network.classes}
        buffer = io.BytesIO()
        with quietly(), torch.no_grad():
            try:
                program = traced(network, AtenOperators())
                torch.export.save(program, buffer, extra_files={"raydistill.json": json.dumps(said)})
            except Exception as error:  # tracing fails in many ways
                rules = "see torch.export's rules on data-dependent control flow"
                way_out = rules if network.kind.BATCHED else "use onnx"
                rule = f"torch.export cannot trace the network ({innermost(error)})"
                raise ConfigError(Fault(self.NAME, rule, ABSENT, way_out)) from error
        write_atomically(folder / _FILE, buffer.getvalue())
        return (_FILE,)

    def runner(self, folder: Path, manifest: Manifest, threads: int | None = None, arch: str | None = None) -> Runner:
        model = load_archive(folder / _FILE)

        def run(inputs: Sequence[Tensor]) -> Output:
            with torch.no_grad():
                output: Output = model(*inputs)
            return output

        return run

    def use(self, manifest: Manifest) -> tuple[str, ...]:
        name = manifest.inputs[0].name
        return (
            "import torch",
            f'network = torch.export.load("{_FILE}").module()',
            f"{', '.join(port.name for port in manifest.outputs)} = network({name})",
        )


def traced(network: Deployed, language: Language) -> torch.export.ExportedProgram:
    """The network as torch.export sees it, of any batch size; it raises in many ways where it cannot.

    language: what whole numbers are told with, where it is quantized.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes: tuple[Any, ...] = tuple({} if axis is None else {axis: batch} for axis in network.batch_axes)
    if isinstance(network.model, FirstOutput) and len(shapes) > 1:  # those of ``*others`` are one tuple
        shapes = (shapes[0], shapes[1:])
    with written_in(network.model, language), modes_kept():
        program = torch.export.export(network.model, network.batch(2), dynamic_shapes=shapes)
    if network.rounded:
        _drop_unread(program)
    _drop_circumstances(program)
    return program


def _drop_circumstances(program: torch.export.ExportedProgram) -> None:
    """Leave out the lines of code that made each node, and the numbers of the sample inputs: compilers read shapes."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    values, named = program.example_inputs
    program.example_inputs = tuple(torch.zeros((), dtype=v.dtype).expand(v.shape) for v in values), named


def _drop_unread(program: torch.export.ExportedProgram) -> None:
    """Leave out the float weights, in whose place whole numbers are read."""
    unread = {node.name: node for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    specs = program.graph_signature.input_specs
    for spec in [spec for spec in specs if spec.arg.name in unread and spec.target in program.state_dict]:
        specs.remove(spec)
        program.graph.erase_node(unread[spec.arg.name])
        del program.state_dict[spec.target]


def load_archive(path: Path, *operators: str) -> Any:
    """The network of an archive. operators: see `check_archive`.

    Raises:
        CheckpointError: it is none, or would run something.
    """
    check_archive(path, *operators)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path).module()
    except Exception as error:
        rule = f"cannot be loaded by torch.export ({innermost(error)})"
        raise CheckpointError(Fault(str(path), rule, ABSENT, "export it again")) from error


def check_archive(path: Path, *operators: str) -> None:
    """An archive that torch.export loads without running anything that the file says. operators: what the names of
    those may begin with that are not torch's own.

    Raises:
        CheckpointError: it is none, or asks for a pickle, a library, or an expression that is more than arithmetic.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                _check_member(archive, member, str(path), operators)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, ValueError, RecursionError) as error:
        rule = f"is no archive of torch.export's ({error})"
        raise CheckpointError(Fault(str(path), rule, ABSENT, "export it again")) from error


def _check_member(archive: zipfile.ZipFile, member: str, where: str, operators: tuple[str, ...]) -> None:
    name = member.rpartition("/")[2]
    if name.endswith(".json") and "/extra/" not in member:
        for key, value in _entries(json.loads(archive.read(member))):
            if key == "use_pickle" and value:
                raise _refused(where, member, "asks for a pickle")
            if key == "expr_str" and not _is_arithmetic(value):
                raise _refused(where, member, f"has an expression that is no arithmetic: {value!r}")
            if key == "target" and isinstance(value, str) and not _is_operator(value, operators):
                raise _refused(where, member, f"calls {value}, which is no operator of torch")
    elif name.endswith(".pt"):
        try:
            torch.load(io.BytesIO(archive.read(member)), weights_only=True)
        except Exception as error:
            raise _refused(where, member, "cannot be read without running code") from error
    elif name.endswith((".so", ".cpp", ".cubin", ".pkl")) or "custom_obj" in name or "script_obj" in name:
        raise _refused(where, member, "is code or an object, not a tensor")


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(node, list):
        for value in node:
            yield from _entries(value)


def _is_arithmetic(text: object) -> bool:
    if not isinstance(text, str) or not _PLAIN.fullmatch(text):
        return False
    words = re.findall(r"[A-Za-z_]\w*", text)
    return all(_WORDS.fullmatch(word) for word in words)


def _is_operator(target: str, others: tuple[str, ...]) -> bool:
    own = ("torch.ops.aten.", "torch.ops.higher_order.", "_operator.", "operator.", "math.")
    return target.startswith((*own, *others)) or (
        target in ("torch.sym_float", "torch.sym_int", "torch.sym_max", "torch.sym_min", "torch.sym_not")
    )


def _refused(where: str, member: str, what: str) -> CheckpointError:
    return CheckpointError(Fault(where, f"'{member}' {what}", ABSENT, "export it again, and trust no other"))
