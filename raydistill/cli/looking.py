"""What ``raydistill compress`` does with a network besides training it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.cli.summary import read_network
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from torch import Tensor, nn

    from raydistill.tasks import Task
    from raydistill.training import RunConfig


def for_network(task: Task, content: Mapping[str, Any], config: RunConfig) -> Task:
    """The task as a network of `read_network` wants its data, unless the command asks for another size."""
    from raydistill.tasks import Weights

    run = content["run"]
    return task.wanted_by(Weights(run["arch"], run["model_args"], content, "--resume-from"), config.dataset)


def published_weights(config: RunConfig, folder: Path, on_images: bool, console: Console) -> Path:
    """``--pretrained`` without training: published weights as a checkpoint.

    on_images: they are to be tried on the dataset's images, and get as many classes.
    """
    from raydistill.models import default_num_classes
    from raydistill.training.checkpoint import write_checkpoint
    from raydistill.training.start import published_checkpoint, task_of

    known = default_num_classes(config.arch, "--arch")
    classes = task_of(config).described()["num_classes"] if on_images else known
    content = published_checkpoint(config.arch, classes)
    if classes != known:
        text = f"the published weights know {known:,} classes, the dataset has {classes}: the last layer is random"
        console.print(f"warning: {text}", style="bold yellow", soft_wrap=True)
    path = folder / "pretrained.pt"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, content)
    return path


def activation_statistics(checkpoint: Path, config: RunConfig, task: Task, folder: Path, console: Console) -> None:
    """``--act-stats``: a row for each channel of each layer, and each layer's histogram, over the validation split."""
    from raydistill.compression.statistics import ActivationHistograms, ChannelActivations, activation_table
    from raydistill.compression.statistics.channels import STATISTICS, ChannelRow
    from raydistill.compression.summaries.rows import csv_text
    from raydistill.tasks import VALIDATION, Loading
    from raydistill.training.loop import device_of

    device = device_of(config.device)
    content, model = read_network(checkpoint, config.arch)
    model, task = model.to(device), for_network(task, content, config)
    loading = Loading(device, 1024, fraction=config.effective_valid_size)
    feed = task.feed(VALIDATION, loading)
    with ChannelActivations(model, statistics=tuple(STATISTICS)) as collector, ActivationHistograms(model) as drawn:
        task.evaluate(model, feed, loading)
    path, histograms = folder / "act_stats.csv", folder / "act_histograms.csv"
    write_atomically(path, csv_text(ChannelRow, activation_table(collector)))
    lines = ["layer,from,to,count"]
    for name in drawn.seen():
        found = drawn.histogram(name)
        edges = found.edges.tolist()
        cells = zip(edges[:-1], edges[1:], found.counts.tolist(), strict=True)
        lines += [f"{name},{low:g},{high:g},{count:.0f}" for low, high, count in cells]
    write_atomically(histograms, "\n".join(lines) + "\n")
    console.print(f"activations of {feed.samples:,} validation samples: {path}, {histograms.name}", soft_wrap=True)


def confusion_matrix(checkpoint: Path, config: RunConfig, task: Task, folder: Path, console: Console) -> None:
    """``--confusion``: which classes of the test split are taken for which, as CSV and PNG."""
    import torch

    from raydistill.compression.early_exit import exits
    from raydistill.compression.statistics import ConfusionMatrix, confusion_csv, confusion_png
    from raydistill.tasks import TEST, Loading
    from raydistill.training.loop import device_of

    device = device_of(config.device)
    content, model = read_network(checkpoint, config.arch)
    model, task = model.to(device), for_network(task, content, config)
    classes = task.described().get("classes")
    if classes is None:
        raise ConfigError(Fault("--confusion", "is for a task with classes", task.name, "leave it out"))
    matrix = ConfusionMatrix(len(classes))
    with torch.no_grad():
        for batch in task.feed(TEST, Loading(device, 1024, fraction=config.effective_test_size)).epoch(0):
            matrix.update(exits(model(*task.inputs(batch)))[-1], batch[-1])
    path = folder / "confusion.csv"
    write_atomically(path, confusion_csv(matrix.counts, classes))
    title = f"{config.arch} on {task.name} (test)"
    confusion_png(matrix.counts, path.with_suffix(".png"), classes, title)
    console.print(f"confusion matrix: {path}, {path.with_suffix('.png').name}", soft_wrap=True)


def thinnify(checkpoint: Path, arch: str, folder: Path, console: Console) -> Path:
    """``--thinnify``: a checkpoint whose pruned filters and channels are gone; its path."""
    import torch

    from raydistill.compression.thinning import thin
    from raydistill.training.checkpoint import thinned_further, write_checkpoint

    content, model = read_network(checkpoint, arch)
    masks = dict(content.get("scheduler", {}).get("masks", {}))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if content.get("optimizer"):
        optimizer.load_state_dict(content["optimizer"])
    example = _example(content)
    report = thin(model, masks, example, optimizer)
    for line in str(report).splitlines():
        console.print(line, soft_wrap=True)
    path = folder / "thinned.pt"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"history": [], **{key: value for key, value in content.items() if key != "format"}}
    scheduler = {**content.get("scheduler", {}), "masks": masks}
    structure = thinned_further(content, (report.change,))
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler, **structure}
    write_checkpoint(path, {**kept, **state})
    console.print(f"thinned checkpoint: {path}", soft_wrap=True)
    return path


def _example(content: Mapping[str, Any]) -> Tensor:
    """One image of the shape the network was trained on; Distiller's checkpoints do not say it, their arch does."""
    import torch

    from raydistill import models

    if "image_shape" in content:
        return torch.zeros(1, *content["image_shape"])
    return models.example_input(content["run"]["arch"])[0]


def export_onnx(checkpoint: Path, arch: str, path: Path, console: Console) -> None:
    """``--export-onnx``: the network as an ONNX file with a free batch size; its metadata say the preprocessing.

    Raises:
        ConfigError: the packages are missing, or the model cannot be exported.
    """
    import contextlib
    import io
    import json
    import logging
    import tempfile
    import warnings

    import torch

    try:
        import onnx  # type: ignore[import-not-found,import-untyped,unused-ignore]
        import onnxscript  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
    except ImportError as error:
        way_out = "pip install 'raydistill[onnx]'"
        raise ConfigError(Fault("--export-onnx", f"needs the package {error.name}", ABSENT, way_out)) from error
    content, model = read_network(checkpoint, arch)
    example = _example(content).repeat(2, 1, 1, 1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                model, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), verbose=False
            )
        except Exception as error:  # the exporter refuses models in many ways
            reason = _innermost(error)
            raise ConfigError(Fault("--export-onnx", f"the network cannot be exported ({reason})")) from error
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.onnx"
        program.save(str(whole))
        written = onnx.load(whole)
    if content.get("preprocessing"):
        onnx.helper.set_model_props(written, {"preprocessing": json.dumps(content["preprocessing"])})
    content_bytes = written.SerializeToString()
    write_atomically(path, content_bytes)
    console.print(f"ONNX: {path}, {len(content_bytes):,} bytes", soft_wrap=True)


def _innermost(error: BaseException) -> str:
    """The first line of what began it: around that stand pages on how to report it."""
    while (error.__cause__ or error.__context__) is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")
    return f"{type(error).__name__}: {first}"


def greedy(
    checkpoint: Path,
    config: RunConfig,
    task: Task,
    folder: Path,
    console: Console,
    target_density: float,
    step: float,
    fine_tune_epochs: int,
) -> None:
    """``--greedy``: greedy filter pruning from a checkpoint; a table, and the last network as a checkpoint."""
    from raydistill.cli.tables import percent
    from raydistill.compression.greedy import greedy_filter_pruning
    from raydistill.compression.summaries.compute import total_macs
    from raydistill.metrics import selecting, shown
    from raydistill.tasks import VALIDATION, Loading
    from raydistill.training.checkpoint import thinned_further, write_checkpoint
    from raydistill.training.fine_tune import fine_tune
    from raydistill.training.loop import device_of

    device = device_of(config.device)
    content, model = read_network(checkpoint, config.arch)
    model = model.to(device)
    task = for_network(task, content, config)
    loading = Loading(device, 1024, fraction=config.effective_valid_size)
    feed = task.feed(VALIDATION, loading)
    example = tuple(value.to(device) for value in task.example_input())

    def metrics(network: nn.Module) -> Mapping[str, float]:
        return task.evaluate(network, feed, loading)

    def tune(network: nn.Module) -> None:
        fine_tune(network, config, task, device, fine_tune_epochs)

    name = selecting(task.metrics)
    metric = task.metrics[name]
    console.print(f"step  filters  weight                          density  {name} (validation)")
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in content.items() if key not in ("format", "optimizer")}
    steps = greedy_filter_pruning(
        model,
        metrics,
        example,
        lambda network: total_macs(network, example),
        metric,
        target_density,
        step,
        fine_tune=tune if fine_tune_epochs else None,
    )
    for found in steps:
        console.print(
            f"{found.index:>4}  {found.removed:>7}  {found.weight:<30}  {percent(found.density)} %  "
            f"{shown(metric, found.metrics[name])}",
            soft_wrap=True,
        )
        state: dict[str, Any] = {"model": found.model.state_dict(), "optimizer": {}, "scheduler": {"masks": {}}}
        state |= thinned_further(content, found.structure)
        write_checkpoint(folder / "greedy.pt", {**kept, **state})
    console.print(f"pruned checkpoint: {folder / 'greedy.pt'}", soft_wrap=True)
