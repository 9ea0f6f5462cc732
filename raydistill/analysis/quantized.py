"""A checkpoint quantized after training: calibrated on training data, judged on validation data, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from raydistill.analysis.fewer_bits import Asked, search_bits
from raydistill.analysis.network import Network
from raydistill.compression.post_training import PLAIN, PostTrained, Steps, mended, rounded_over_ranges
from raydistill.compression.quantizers.clipping_search import Search, clippings, search_clipping
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import LayerRecords, collect
from raydistill.compression.structure import Change, structure_state
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.resolve import argument_faults
from raydistill.schedule.yaml_file import read_yaml
from raydistill.tasks import TRAIN, Loading, Task
from raydistill.tasks.feeds import training_batches
from raydistill.training.checkpoint import without_training, write_checkpoint

SHARE = 0.05
"""Of the training data, where nobody says how much calibrates."""


def quantizer_of_file(path: str | Path) -> PostTrainLinearQuantizer:
    """The one PostTrainLinearQuantizer of a file of the form of a schedule.

    Raises:
        ConfigError: there is none, or more than one, or its arguments cannot be.
    """
    kind = PostTrainLinearQuantizer.__name__
    where = f"{path}: quantizers"
    said = read_yaml(path).get("quantizers")
    if not isinstance(said, Mapping):
        raise ConfigError(Fault(where, f"must name one {kind}", said, f"such as {{name: {{class: {kind}}}}}"))
    found = {
        str(name): dict(entry)
        for name, entry in said.items()
        if isinstance(entry, Mapping) and entry.get("class") == kind
    }
    if len(found) != 1:
        classes = [entry.get("class") if isinstance(entry, Mapping) else entry for entry in said.values()]
        raise ConfigError(Fault(where, f"must name one {kind}", classes))
    ((name, arguments),) = found.items()
    del arguments["class"]
    at = f"{where}.{name}"
    faults = argument_faults(PostTrainLinearQuantizer, arguments, at, given=1)
    if faults:
        raise ConfigError(*faults)
    try:
        return PostTrainLinearQuantizer(name, **arguments)
    except ConfigError as error:
        told = [fault for fault in error.faults if isinstance(fault, Fault)]
        raise ConfigError(*(replace(fault, where=f"{at}.{fault.where}") for fault in told)) from error


def calibration_of(network: Network, task: Task, loading: Loading) -> dict[str, LayerRecords]:
    """Statistics of the network as it is in its checkpoint, for a file.

    Raises:
        ConfigError, DataError: as `statistics.collect`; the network is quantized already.
    """
    _still_a_float(network)
    model = network.model.to(loading.device)
    return collect(model, _example(network, loading), training_batches(task, loading))


@dataclass(frozen=True)
class Options:
    """How clipping values are searched (`clipping_search.search_clipping`). init: or a way of clipping, where ranges
    begin then. share: of the training data, for the loss."""

    init: str = "NONE"
    method: str = "Powell"
    max_iterations: int | None = None
    max_evaluations: int | None = None
    both_ends: bool = False
    basin_hops: int = 0
    share: float | None = None


def quantize(
    network: Network,
    task: Task,
    loading: Loading,
    quantizer: PostTrainLinearQuantizer,
    dynamic: bool = False,
    search: Options | None = None,
    steps: Steps = PLAIN,
    bits: Asked | None = None,
) -> tuple[PostTrained, Search | None]:
    """Quantize a network in place. loading: with the part of the training data that calibrates, where no statistics are
    named. dynamic: there are none, ranges are found anew for each batch. bits: how those of weights are searched.

    Raises:
        ConfigError, DataError: as `post_train`; the network is quantized already.
    """
    _still_a_float(network)
    model, example = network.model.to(loading.device), _example(network, loading)
    batches = training_batches(task, loading)
    report = rounded_over_ranges(model, quantizer, example, batches, dynamic, steps)
    known = report.statistics
    found = None if search is None else _searched(network, task, loading, report, known, search)
    if bits is not None:
        search_bits(model, report.quantization, bits)
    return mended(model, report, batches, steps), found


def _searched(
    network: Network,
    task: Task,
    loading: Loading,
    report: PostTrained,
    known: Mapping[str, LayerRecords] | None,
    search: Options,
) -> Search:
    if known is None:
        raise ConfigError(Fault("--qe-lapq", "searches ranges, of which dynamic quantization has none", ABSENT))
    model, held = network.model, report.quantization
    histograms = {
        point.key: known[point.name].output.histogram
        for point in held.points
        if point.argument < 0 and point.name in known and known[point.name].output.histogram is not None
    }
    asked = replace(loading, fraction=search.share or loading.fraction)
    init: str | float = search.init if search.init in ("LP", "NONE") else float(search.init[1:])
    return search_clipping(
        clippings(model, held, histograms),  # type: ignore[arg-type]  # those of None are left out
        mean_loss_of(network, task, asked),
        init,
        search.method,
        search.max_iterations,
        search.max_evaluations,
        search.both_ends,
        search.basin_hops,
    )


def mean_loss_of(network: Network, task: Task, loading: Loading) -> Callable[[], float]:
    """The network's mean loss over a part of the training data, which is kept in memory, whenever it is called."""
    feed = task.feed(TRAIN, loading)
    batches = list(feed.epoch(0))
    rows = [feed.rows(index)[0] for index in range(len(batches))]

    @torch.no_grad()
    def loss() -> float:
        each = [float(task.loss(network.model, batch)) * own for batch, own in zip(batches, rows, strict=True)]
        return sum(each) / max(sum(rows), 1)

    return loss


def write_quantized(network: Network, report: PostTrained, path: Path) -> None:
    """Write a quantized network as a checkpoint of its own; its weights are floats still, which are rounded when it
    runs, so that it can be trained on."""
    changes: list[Change] = [*network.structure, *report.changes]
    kept = {"history": [], **without_training(network.content)}
    kept.pop("plain", None)  # its shapes do not tell what is rounded
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: values.cpu() for name, values in network.model.state_dict().items()}
    write_checkpoint(path, {**kept, "model": state, "structure": structure_state(changes)})


def _example(network: Network, loading: Loading) -> tuple[object, ...]:
    return tuple(
        value.to(loading.device) if isinstance(value, torch.Tensor) else value for value in network.example_input(2)
    )


def _still_a_float(network: Network) -> None:
    if quantization_of(network.model) is not None:
        rule = "is quantized already"
        raise ConfigError(Fault(str(network.path), rule, ABSENT, "begin with a checkpoint of floats"))
