"""What ``raydistill compress`` does with a checkpoint besides training from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.errors import ConfigError, Fault

if TYPE_CHECKING:
    from rich.console import Console

    from raydistill.tasks import Task
    from raydistill.training import RunConfig

_BATCH = 1024


def published_weights(config: RunConfig, folder: Path, on_images: bool, console: Console) -> Path:
    """``--pretrained`` without training: published weights as a checkpoint.

    on_images: they are to be tried on the dataset's images, and get as many classes.
    """
    from raydistill.cli.lines import warn
    from raydistill.models import default_num_classes
    from raydistill.training.checkpoint import write_checkpoint
    from raydistill.training.start import published_checkpoint, task_of

    known = default_num_classes(config.arch, "--arch")
    classes = task_of(config).described()["num_classes"] if on_images else known
    content = published_checkpoint(config.arch, classes)
    if classes != known:
        text = f"the published weights know {known:,} classes, the dataset has {classes}: the last layer is random"
        warn(console, text)
    path = folder / "pretrained.pt"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, content)
    return path


def activation_statistics(checkpoint: Path, config: RunConfig, task: Task, folder: Path, console: Console) -> None:
    """``--act-stats``."""
    from raydistill.analysis.activations import CHANNELS, HISTOGRAMS, write_activations
    from raydistill.analysis.network import read_network
    from raydistill.tasks import Loading
    from raydistill.training import device_of

    network = read_network(checkpoint, config.arch)
    loading = Loading(device_of(config.device), _BATCH, fraction=config.effective_valid_size)
    samples = write_activations(network, network.task(task, config.dataset), loading, folder)
    console.print(f"activations of {samples:,} validation samples: {folder / CHANNELS}, {HISTOGRAMS}", soft_wrap=True)


def confusion_matrix(checkpoint: Path, config: RunConfig, task: Task, folder: Path, console: Console) -> None:
    """``--confusion``."""
    from raydistill.analysis.confusion import write_confusion
    from raydistill.analysis.network import read_network
    from raydistill.tasks import Loading
    from raydistill.training import device_of

    network, path = read_network(checkpoint, config.arch), folder / "confusion.csv"
    loading = Loading(device_of(config.device), _BATCH, fraction=config.effective_test_size)
    write_confusion(network, network.task(task, config.dataset), loading, path)
    console.print(f"confusion matrix: {path}, {path.with_suffix('.png').name}", soft_wrap=True)


def thinnify(checkpoint: Path, arch: str, folder: Path, console: Console) -> Path:
    """``--thinnify``; returns the path of the thinned checkpoint."""
    from raydistill.analysis.network import read_network
    from raydistill.analysis.thinned import write_thinned

    path = folder / "thinned.pt"
    for line in str(write_thinned(read_network(checkpoint, arch), path)).splitlines():
        console.print(line, soft_wrap=True)
    console.print(f"thinned checkpoint: {path}", soft_wrap=True)
    return path


def export_onnx(checkpoint: Path, arch: str, path: Path, console: Console) -> None:
    """``--export-onnx``; the file's metadata say the preprocessing."""
    from raydistill.analysis.network import read_network
    from raydistill.export import write_onnx

    network = read_network(checkpoint, arch)
    example = network.example_input()
    if len(example) != 1:
        raise ConfigError(Fault("--export-onnx", "is for networks of one input", len(example)))
    said = network.content.get("preprocessing")
    size = write_onnx(network.model, example[0], path, {"preprocessing": said} if said else {}, "--export-onnx")
    console.print(f"ONNX: {path}, {size:,} bytes", soft_wrap=True)


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
    """``--greedy``: a table, and the last network as a checkpoint."""
    from raydistill.analysis.greedy import prune_greedily
    from raydistill.analysis.network import read_network
    from raydistill.cli.tables import percent
    from raydistill.metrics import selecting, shown
    from raydistill.tasks import Loading
    from raydistill.training import device_of

    network, path = read_network(checkpoint, config.arch), folder / "greedy.pt"
    task = network.task(task, config.dataset)
    loading = Loading(device_of(config.device), _BATCH, fraction=config.effective_valid_size)
    name = selecting(task.metrics)
    console.print(f"step  filters  weight                          density  {name} (validation)")
    steps = prune_greedily(network, task, config, loading, path, target_density, step, fine_tune_epochs)
    for found in steps:
        console.print(
            f"{found.index:>4}  {found.removed:>7}  {found.weight:<30}  {percent(found.density)} %  "
            f"{shown(task.metrics[name], found.metrics[name])}",
            soft_wrap=True,
        )
    console.print(f"pruned checkpoint: {path}", soft_wrap=True)
