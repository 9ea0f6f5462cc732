"""From a checkpoint to an artifact folder: thinned, folded, written in each format, held against the masked network,
measured, described."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from raydistill.compression.copying import copy_of
from raydistill.compression.thinning.inputs import kind, to_device
from raydistill.compression.thinning.verify import parameter_count
from raydistill.errors import ABSENT, ConfigError, Fault, RaydistillError, StorageError
from raydistill.export import classify, semi_structured
from raydistill.export.deployed import Deployed
from raydistill.export.formats import Format, Runner
from raydistill.export.latency import DENSE, THIS, Row, batch_that_helps, side_by_side
from raydistill.export.manifest import File, Manifest, Port
from raydistill.export.outputs import Output, parts
from raydistill.export.outputs.tensor import FirstOutput
from raydistill.files import full_disk, unwritable, write_atomically
from raydistill.tasks.of_checkpoint import named_in, task_of_content
from raydistill.training.footprint import figures_of

REFERENCE = "reference.safetensors"
"""Reference samples, by the names of the inputs, and what the masked network gives for them."""

TORCH = "torch"

_AS_ITSELF = 2.0
"""Times that by which a quantized network moves itself, a file of it may: values between two numbers go either way, and
after some dozen layers all of them have gone one way or the other."""


def write_artifact(
    network: Deployed,
    formats: Sequence[Format],
    folder: Path,
    *,
    source: Mapping[str, Any],
    task: Mapping[str, Any] | None = None,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    dense: Deployed | None = None,
    latency: bool = True,
    threads: int | None = None,
    arch: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write `folder`, which must not be there, or be empty: it appears whole or not at all.

    A format that this network cannot have, or whose file does not give the masked network's outputs, is left out, and
    the manifest says why. task: its name, arguments and dataset, to be verified with. figures: by split, the metrics
    that the checkpoint was evaluated with. dense: what it is measured beside. threads: of latency; None: torch's.
    arch: a factory as the user names it. tell: hears what is being done.

    Raises:
        ConfigError: the folder holds something, or no format could be written.
        StorageError: the disk cannot take it.
    """
    _check_free(folder)
    _clear_left(folder)
    work = folder.parent / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        work.mkdir(parents=True)
        manifest = _described(network, source, task, figures or {}, dense)
        samples = dict(zip(network.input_names, network.inputs, strict=True))
        samples |= dict(zip(network.output_names, parts(network.outputs), strict=True))
        write_atomically(work / REFERENCE, save({name: value.contiguous() for name, value in samples.items()}))
        manifest = replace(manifest, files=(_file(work / REFERENCE, "reference"),))
        for form in formats:
            tell(f"writing {form.NAME}")
            manifest = _with_format(manifest, form, network, work, arch)
        if not manifest.formats:
            raise ConfigError(*manifest.left_out.values())
        if manifest.preprocessing is not None and manifest.classes and "onnx" in manifest.formats:
            write_atomically(work / classify.FILE_NAME, classify.SOURCE)
        if latency:
            tell("measuring latency")
            rows = _latency(network, dense, manifest, formats, work, threads, arch)
            manifest = replace(manifest, latency=tuple(asdict(row) | {"speedup": row.speedup} for row in rows))
        manifest.write(work)
        os.rename(work, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _check_free(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise unwritable(folder, error) from error
    if taken:
        raise ConfigError(Fault(str(folder), "is there already", ABSENT, "choose another folder, or remove it first"))


def _clear_left(folder: Path) -> None:
    """What a process that was killed has left beside it."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        pid = path.name.removeprefix(f".{folder.name}.").partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            shutil.rmtree(path, ignore_errors=True)


def _described(
    network: Deployed,
    source: Mapping[str, Any],
    task: Mapping[str, Any] | None,
    figures: Mapping[str, Mapping[str, float]],
    dense: Deployed | None,
) -> Manifest:
    content = network.network.content
    run = content["run"]
    data = str(content.get("dataset", ""))
    task = {**(task or _task(content, data)), **({"multi_label": True} if content.get("multi_label") else {})}
    inputs = tuple(
        Port(name, network.kind.input_shape(value, batch), _dtype(value))
        for name, value, batch in zip(network.input_names, network.inputs, network.batch_axes, strict=True)
    )
    first = network.batch_axes[0]
    shapes = network.kind.output_shapes(network.outputs, 1 if first is None else network.inputs[0].shape[first])
    output, *others = (
        Port(name, shape, _dtype(value))
        for name, shape, value in zip(network.output_names, shapes, parts(network.outputs), strict=True)
    )
    halves = semi_structured.two_of_four(network.network_itself)
    size = parameter_count(network.model)
    return Manifest(
        arch=network.network.arch,
        model_args=dict(run["model_args"]),
        source=dict(source),
        task=task,
        inputs=inputs,
        output=output,
        others=tuple(others),
        gives=network.kind.NAME,
        partial=isinstance(network.model, FirstOutput),
        preprocessing=network.preprocessing,
        classes=tuple(network.classes),
        figures={split: dict(metrics) for split, metrics in figures.items()},
        network=_cost(network),
        dense={} if dense is None else _cost(dense),
        changes=(*network.deployment.lines, *semi_structured.said(halves, size)),
        semi_structured=tuple(each.name for each in halves),
        rounded=network.rounded,
        moved_by_rounding=_moved_by_rounding(network) if network.rounded else 0.0,
        largest_output=max((float(v.abs().max()) for v in parts(network.outputs) if v.numel()), default=0.0),
        versions={"torch": torch.__version__},
    )


def _task(content: Mapping[str, Any], data: str) -> dict[str, Any]:
    """As a checkpoint says it; without a name where it says none."""
    asked = named_in(content)
    if asked is not None:
        config, dataset = asked
        return {"name": config.name, "args": dict(config.args), "dataset": dataset, "data": data}
    try:
        said = task_of_content(content, "checkpoint")
    except ConfigError:
        return {"name": "", "dataset": {"name": data}, "data": data}
    return {"name": said.name, "args": dict(said.args), "dataset": {"name": data}, "data": data}


@torch.no_grad()
def _moved_by_rounding(network: Deployed) -> float:
    exact = copy_of(network.model).double()
    try:
        found = exact(*to_device(network.inputs, *kind(exact)))
    except Exception:  # whatever code of one's own raises that wants single precision
        return 0.0
    return network.kind.difference(found, network.outputs)


def _cost(network: Deployed) -> dict[str, float]:
    example = network.batch(1)
    return {"sparsity": network.sparsity, **figures_of(network.model, example)}


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _with_format(manifest: Manifest, form: Format, network: Deployed, work: Path, arch: str | None) -> Manifest:
    """The manifest with one format more, its files written; or with why it was left out."""
    own = work / f".{form.NAME}"
    own.mkdir()
    try:
        names = form.write(network, own)
        found = form.runner(own, manifest, arch=arch)(network.inputs)
        difference = network.kind.difference(found, network.outputs)
        if not difference <= may_differ(manifest):
            raise ConfigError(Fault(form.NAME, too_far(manifest, difference)))
        known = {file.name for file in manifest.files}
        files = [_file(own / name, form.NAME) for name in names if name not in known]
        versions = {**manifest.versions, **form.versions(own)}
        for name in names:
            os.replace(own / name, work / name)
    except StorageError:
        raise
    except RaydistillError as error:
        return replace(manifest, left_out={**manifest.left_out, form.NAME: str(error.faults[0])})
    except Exception as error:
        full = full_disk(error)
        if full is not None:
            raise unwritable(work, full) from error
        why = str(Fault(form.NAME, f"cannot be written or run ({type(error).__name__}: {error})"))
        return replace(manifest, left_out={**manifest.left_out, form.NAME: why})
    finally:
        shutil.rmtree(own, ignore_errors=True)
    agreement = {**manifest.agreement, form.NAME: difference}
    return replace(manifest, files=(*manifest.files, *files), agreement=agreement, versions=versions)


def may_differ(manifest: Manifest) -> float:
    """By how much an output may differ from the masked network's: a deep quantized one is no closer to itself."""
    return max(
        manifest.kind.may_differ(manifest.rounded, manifest.largest_output), _AS_ITSELF * manifest.moved_by_rounding
    )


def too_far(manifest: Manifest, difference: float) -> str:
    """What is wrong where a difference is larger than that."""
    most = may_differ(manifest)
    return f"its outputs are not the masked network's: {manifest.kind.said(difference)}, more than {most:.2g}"


def _file(path: Path, form: str) -> File:
    content = path.read_bytes()
    packed = len(gzip.compress(content, 6, mtime=0))
    return File(path.name, form, len(content), packed, hashlib.sha256(content).hexdigest())


def _latency(
    network: Deployed,
    dense: Deployed | None,
    manifest: Manifest,
    formats: Sequence[Format],
    work: Path,
    threads: int | None,
    arch: str | None,
) -> list[Row]:
    """torch with the networks as they are, then each other runtime that a format was written for."""
    threads = threads or torch.get_num_threads()
    runners: dict[str, dict[str, Runner]] = {}
    if not network.rounded:  # torch computes a quantized network with floats
        runners[TORCH] = {THIS: _in_torch(network)} | ({} if dense is None else {DENSE: _in_torch(dense)})
    for form in formats:
        if form.NAME not in manifest.formats or form.RUNTIME in (*runners, TORCH):
            continue
        runners[form.RUNTIME] = {THIS: form.runner(work, manifest, threads, arch)}
        if dense is not None:
            beside = work / ".dense"
            beside.mkdir(exist_ok=True)
            try:
                form.write(dense, beside)
                runners[form.RUNTIME][DENSE] = form.runner(beside, manifest, threads, arch)
            except RaydistillError:
                pass  # the dense network cannot be had in this format: this one is measured alone
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    rows = []
    for runtime, found in runners.items():
        best = 1
        if network.kind.BATCHED:
            best = batch_that_helps(lambda rows, run=found[THIS]: run(network.batch(rows)), threads)  # type: ignore[misc]
        for batch in dict.fromkeys((1, best)):
            inputs = network.batch(batch)
            passes = {name: (lambda run=run, inputs=inputs: run(inputs)) for name, run in found.items()}
            rows.append(side_by_side(passes, runtime, threads, batch))  # type: ignore[arg-type]
    return rows


def _in_torch(network: Deployed) -> Runner:
    def run(inputs: Sequence[Tensor]) -> Output:
        with torch.inference_mode():
            output: Output = network.model(*inputs)
        return output

    return run
