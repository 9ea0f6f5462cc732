"""Is what lies in an artifact folder what its manifest says? Its files, its outputs, its metrics on a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raydistill.errors import ABSENT, CheckpointError, Fault, RaydistillError
from raydistill.export.artifact import REFERENCE, may_differ, too_far
from raydistill.export.formats import MENU, Runner
from raydistill.export.formats.onnx import innermost
from raydistill.export.manifest import Manifest
from raydistill.export.outputs import Output, together
from raydistill.records import Evaluation
from raydistill.tasks import Loading, Task, Weights
from raydistill.training.checkpoint import read_checkpoint

_BATCH = 256


@dataclass(frozen=True)
class Verified:
    """One format. difference: of an output to the masked network's, at most; NaN where it does not run. evaluation: on
    the split, in the format's own runtime. fault: what is wrong, in a line; "" where nothing is."""

    form: str
    runtime: str
    difference: float
    evaluation: Evaluation | None = None
    fault: str = ""


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """A line for each file that is gone, or is not the one that was written."""
    lines = []
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file():
            lines.append(str(Fault(str(path), "is gone")))
        elif hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            lines.append(str(Fault(str(path), "is not the file that was written, its hash differs")))
    return lines


def verified(
    folder: Path, manifest: Manifest, forms: Sequence[str], task: Task | None, split: str, arch: str | None = None
) -> Iterator[Verified]:
    """Each format in turn. task: with the data to evaluate on; None: outputs alone.

    Raises:
        CheckpointError: the reference samples cannot be read.
    """
    inputs, outputs = _reference(folder, manifest)
    for name in forms:
        form = MENU[name]
        try:
            run = form.runner(folder, manifest, arch=arch)
            difference = manifest.kind.difference(run(inputs), outputs)
            said = {} if task is None else {"evaluation": _evaluated(run, manifest, task, split)}
        except RaydistillError as error:
            yield Verified(name, form.RUNTIME, float("nan"), fault=str(error.faults[0]))
            continue
        except Exception as error:  # runtimes fail in many ways
            rule = f"does not run on {split} ({innermost(error)})"
            fault = str(Fault(name, rule, ABSENT, "compare outputs alone: --split none"))
            yield Verified(name, form.RUNTIME, float("nan"), fault=fault)
            continue
        agrees = difference <= may_differ(manifest)
        fault = "" if agrees else str(Fault(name, too_far(manifest, difference)))
        yield Verified(name, form.RUNTIME, difference, fault=fault, **said)


def prepared(folder: Path, manifest: Manifest, task: Task, arch: str | None) -> Task:
    """A task with its data as the network of the folder wants them."""
    content: Mapping[str, Any]
    if (folder / "checkpoint.pt").is_file():
        content = read_checkpoint(folder / "checkpoint.pt")
    else:
        run = {"arch": manifest.arch, "model_args": dict(manifest.model_args)}
        content = {"run": run, "preprocessing": manifest.preprocessing, "num_classes": len(manifest.classes)}
        content["plain"] = not manifest.classes  # of a vocabulary, of columns a manifest says nothing
    task.check_knows(content, str(folder))
    return task.wanted_by(Weights.of_checkpoint(content, str(folder), arch)).as_trained(content["run"])


def _evaluated(run: Runner, manifest: Manifest, task: Task, split: str) -> Evaluation:
    loading = Loading(torch.device("cpu"), _BATCH)
    feed = task.feed(split, loading)
    return Evaluation(split, dict(task.judge(manifest.kind.running(run), feed, loading)), feed.samples)


def _reference(folder: Path, manifest: Manifest) -> tuple[tuple[Tensor, ...], Output]:
    path = folder / REFERENCE
    try:
        found = load_file(path)
        outputs = [found[port.name] for port in manifest.outputs]
        return tuple(found[port.name] for port in manifest.inputs), together(outputs)
    except (OSError, SafetensorError, KeyError) as error:
        way_out = "export it again"
        raise CheckpointError(Fault(str(path), f"cannot be read ({error})", ABSENT, way_out)) from error
