"""``raydistill compress``: one run of a schedule, without Ray and MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from raydistill.records import EpochMetrics


def compress(
    arch: Annotated[str, typer.Option("--arch", "-a", help="simplenet_cifar, resnet20_cifar, ... or pkg.mod:factory.")],
    schedule: Annotated[
        Path | None, typer.Option("--compress", help="The schedule to run; left out, dense training.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="cifar10, imagefolder, digits or pkg.mod:factory.")] = "cifar10",
    data_dir: Annotated[
        Path | None, typer.Option(help="A cifar-10-batches-py folder, or a tree of class folders.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 60,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images a step.")] = 256,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 0.05,
    momentum: Annotated[float, typer.Option(help="SGD's momentum.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="SGD's weight decay.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, order and augmentation.")] = 0,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits on every run (CPU).")] = False,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: the faster one here.")] = "auto",
    resume_from: Annotated[
        Path | None, typer.Option(help="A checkpoint whose weights the run starts from, at epoch 0.")
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out-dir", "-o", help="Where runs are kept.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run's folder; left out, arch and schedule.")] = None,
) -> None:
    """Train one network, pruned as a schedule says, and print accuracy and sparsity.

    A run that was interrupted goes on from its last epoch when the same command is given again.
    """
    from rich.console import Console

    from raydistill import datasets, models
    from raydistill.cli.tables import percent, sparsity_table
    from raydistill.compression import check
    from raydistill.datasets import DatasetConfig
    from raydistill.errors import ConfigError
    from raydistill.schedule import load_schedule
    from raydistill.sweep.plan import policies_beyond
    from raydistill.training import RunConfig, evaluate_checkpoint, fit

    console = Console(highlight=False)
    spec = None if schedule is None else load_schedule(schedule)
    parts = [arch.replace(":", "."), *([] if schedule is None else [schedule.stem])]
    folder = out_dir / (name or "-".join(parts))
    checkpoint = folder / "checkpoint.pt"
    config = RunConfig(
        arch=arch,
        dataset=DatasetConfig(name=dataset, data_dir=None if data_dir is None else str(data_dir)),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        deterministic=deterministic,
        precision=precision,
        schedule=spec,
        init_from=None if resume_from is None else str(resume_from),
        out_dir=str(folder),
    )
    model = models.create(arch, 10, None, "--arch")  # what is wrong is said before the images are read
    if spec is not None:
        faults = policies_beyond(spec, epochs, "--epochs")
        try:
            check(spec, model)
        except ConfigError as error:
            faults += error.faults
        if faults:
            raise ConfigError(*faults)
    images = datasets.load(config.dataset)
    if images.warning:
        console.print(f"warning: {images.warning}", style="bold yellow")
    last = _resumed(checkpoint, epochs, console)
    for last in fit(config, dataset=images):
        console.print(
            f"{last.epoch + 1:>3}/{last.epochs}  loss {last.loss:.4f} (train {last.train_loss:.4f})  "
            f"top1 {percent(last.top1)} %  sparsity {percent(last.sparsity)} %  {last.images_per_second:,.0f} img/s",
            soft_wrap=True,
        )
    if last is None:
        return
    test = evaluate_checkpoint(checkpoint, images, "test")
    console.print(sparsity_table(last))
    console.print(f"top1 on {images.name}: validation {percent(last.top1)} %, test {percent(test.top1)} %")
    console.print(f"checkpoint: {checkpoint}", soft_wrap=True)


def _resumed(checkpoint: Path, epochs: int, console: Console) -> EpochMetrics | None:
    """The last epoch that an earlier run of the same command has trained."""
    from raydistill.training import read_history

    if not checkpoint.exists():
        return None
    last = read_history(checkpoint)[-1]
    done = "all of them" if last.epoch + 1 >= epochs else "going on"
    console.print(f"{checkpoint} holds {last.epoch + 1} epochs already: {done}", soft_wrap=True)
    return last
