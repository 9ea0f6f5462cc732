"""``raydistill compress``: one run of a schedule; without Ray, unless it is to be on several workers."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from warnings import filterwarnings

import typer

from raydistill.cli.options import NONE, Given, OptionsOf, arguments, typed, with_file, with_options
from raydistill.cli.sensitivity import Sense, sensitivity
from raydistill.cli.summary import KINDS
from raydistill.cli.summary import summary as show_summary
from raydistill.parts import (
    Arithmetic,
    Batches,
    Chance,
    DatasetConfig,
    OneShot,
    Optimization,
    Optimizer,
    Output,
    Pixels,
    PostTraining,
    Shares,
)

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from raydistill.cli.on_workers import Asked
    from raydistill.cli.run_report import RunReport
    from raydistill.records import EpochMetrics
    from raydistill.tasks import Task, TaskConfig, TaskShape
    from raydistill.training import RunConfig
    from raydistill.training.loop import OnStep

_DATA, _TRAIN, _RUN, _LOOK = "Data", "Training", "The run", "Instead of training"
_KD, _EXITS = "Knowledge distillation", "Early exits"
_WORKERS = "Several workers"
_QUANTIZATION = "Quantization after training"
_ONE_SHOT = "Pruning after training"


@with_options
def compress(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="A run file: a sweep file's model, task, dataset, training and schedule.", metavar="FILE"),
    ] = None,
    arch: Annotated[
        str, typer.Option("--arch", "-a", help="simplenet_cifar, ... (raydistill models), or pkg.mod:factory.")
    ] = "",
    schedule: Annotated[
        Path | None, typer.Option("--compress", help="The schedule to run; left out, dense training.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A weight that the model lacks, or a key given twice, is an error.")
    ] = False,
    model_args: Annotated[
        str | None, typer.Option(help="Arguments of the network's factory, as 'width: 2'.", metavar="YAML")
    ] = None,
    task_name: Annotated[
        str, typer.Option("--task", help="What is trained (raydistill tasks), or pkg.mod:Class.")
    ] = "classification",
    task_args: Annotated[str | None, typer.Option(help="Its arguments, as 'bptt: 35'.", metavar="YAML")] = None,
    train: Annotated[
        str | None, typer.Option(help="A training loop of your own, pkg.mod:function.", metavar="pkg.mod:function")
    ] = None,
    train_args: Annotated[str | None, typer.Option(help="Its arguments, as 'width: 2'.", metavar="YAML")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from torchvision's published weights.")
    ] = False,
    resume_from: Annotated[
        Path | None, typer.Option(help="A checkpoint to go on from: its weights, optimizer, masks and epoch.")
    ] = None,
    reset_optimizer: Annotated[
        bool, typer.Option("--reset-optimizer", help="Of --resume-from take the weights only, and begin at epoch 0.")
    ] = False,
    pixels: Annotated[Given, OptionsOf(Pixels, _DATA)] = NONE,
    batches: Annotated[Given, OptionsOf(Batches, _TRAIN)] = NONE,
    optimization: Annotated[Given, OptionsOf(Optimization, _TRAIN)] = NONE,
    optimizer: Annotated[Given, OptionsOf(Optimizer, _TRAIN)] = NONE,
    chance: Annotated[Given, OptionsOf(Chance, _TRAIN)] = NONE,
    computed: Annotated[Given, OptionsOf(Arithmetic, _TRAIN)] = NONE,
    gpus: Annotated[
        str | None,
        typer.Option(help="The GPU to use, by number; -1: the CPU; left out, a GPU if any.", rich_help_panel=_TRAIN),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="The CPU, as --gpus -1.", rich_help_panel=_TRAIN)] = False,
    data: Annotated[Given, OptionsOf(DatasetConfig, _DATA)] = NONE,
    shares: Annotated[Given, OptionsOf(Shares, _DATA)] = NONE,
    out_dir: Annotated[Path, typer.Option("--out-dir", "-o", help="Where runs are kept.", rich_help_panel=_RUN)] = Path(
        "runs"
    ),
    name: Annotated[
        str | None, typer.Option(help="The run's folder; left out, arch and schedule.", rich_help_panel=_RUN)
    ] = None,
    print_freq: Annotated[
        int, typer.Option("--print-freq", "-p", min=0, help="Lines inside an epoch; 0: none.", rich_help_panel=_RUN)
    ] = 0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Ten lines inside an epoch, as -p 10.", rich_help_panel=_RUN)
    ] = False,
    masks_sparsity: Annotated[
        bool, typer.Option("--masks-sparsity", help="Sparsity of each weight after each epoch.", rich_help_panel=_RUN)
    ] = False,
    num_best_scores: Annotated[
        int, typer.Option(min=1, help="Best epochs to list, by sparsity, then by metric.", rich_help_panel=_RUN)
    ] = 1,
    tracking_uri: Annotated[
        str | None, typer.Option(help="An MLflow server; left out, a store in the out-dir.", rich_help_panel=_RUN)
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Log to MLflow.", rich_help_panel=_RUN)] = True,
    output: Annotated[Given, OptionsOf(Output, _RUN)] = NONE,
    num_workers: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Train on N workers of a Ray cluster, or MIN:MAX as there is room.",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        int | None, typer.Option(min=0, max=1, help="Left out, a GPU if any.", rich_help_panel=_WORKERS)
    ] = None,
    cpus_per_worker: Annotated[
        float, typer.Option(min=0.01, help="CPU cores of each worker.", rich_help_panel=_WORKERS)
    ] = 1.0,
    max_failures: Annotated[
        int, typer.Option(min=0, help="How often workers that die are started again.", rich_help_panel=_WORKERS)
    ] = 3,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster; left out, this machine.", rich_help_panel=_WORKERS)
    ] = None,
    kd_teacher: Annotated[
        str | None, typer.Option(help="The teacher's arch; left out, --kd-resume says it.", rich_help_panel=_KD)
    ] = None,
    kd_pretrained: Annotated[
        bool, typer.Option("--kd-pretrained", help="A teacher with published weights.", rich_help_panel=_KD)
    ] = False,
    kd_resume: Annotated[Path | None, typer.Option(help="The teacher's checkpoint.", rich_help_panel=_KD)] = None,
    kd_temperature: Annotated[
        float, typer.Option("--kd-temperature", "--kd-temp", help="Softens both outputs.", rich_help_panel=_KD)
    ] = 1.0,
    kd_distill_wt: Annotated[
        float, typer.Option("--kd-distill-wt", "--kd-dw", help="Of the distillation loss.", rich_help_panel=_KD)
    ] = 0.5,
    kd_student_wt: Annotated[
        float, typer.Option("--kd-student-wt", "--kd-sw", help="Of the loss on the labels.", rich_help_panel=_KD)
    ] = 0.5,
    kd_teacher_wt: Annotated[
        float, typer.Option("--kd-teacher-wt", "--kd-tw", help="Of the teacher's own loss.", rich_help_panel=_KD)
    ] = 0.0,
    kd_hidden: Annotated[
        str | None,
        typer.Option(help="Modules whose states learn too, as blocks.1=blocks.3,norm=norm.", rich_help_panel=_KD),
    ] = None,
    kd_hidden_wt: Annotated[float, typer.Option("--kd-hidden-wt", help="Of hidden states.", rich_help_panel=_KD)] = 1.0,
    kd_hidden_loss: Annotated[
        str, typer.Option("--kd-hidden-loss", help="mse or cosine.", rich_help_panel=_KD)
    ] = "mse",
    kd_start_epoch: Annotated[
        int, typer.Option(min=0, help="The first epoch with a teacher.", rich_help_panel=_KD)
    ] = 0,
    earlyexit_lossweights: Annotated[
        str | None,
        typer.Option(
            "--earlyexit-lossweights",
            "--earlyexit_lossweights",
            help="Weights of all exits but the last, as 0.3,0.3.",
            rich_help_panel=_EXITS,
        ),
    ] = None,
    earlyexit_thresholds: Annotated[
        str | None,
        typer.Option(
            "--earlyexit-thresholds",
            "--earlyexit_thresholds",
            help="Entropies below which an image leaves, as 0.4,0.9.",
            rich_help_panel=_EXITS,
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", "-e", help="Test --resume-from and end.", rich_help_panel=_LOOK)
    ] = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Confusion matrix of --resume-from.", rich_help_panel=_LOOK)
    ] = False,
    summary: Annotated[
        list[str] | None,
        typer.Option(help=f"Print {', '.join(KINDS[:-1])} or {KINDS[-1]}; may be repeated.", rich_help_panel=_LOOK),
    ] = None,
    sense: Annotated[
        Sense | None, typer.Option(help="Sensitivity of --resume-from to pruning.", rich_help_panel=_LOOK)
    ] = None,
    sense_range: Annotated[
        tuple[float, float, float],
        typer.Option(help="Its levels: START STOP STEP.", metavar="START STOP STEP", rich_help_panel=_LOOK),
    ] = (0.0, 0.95, 0.05),
    act_stats: Annotated[
        bool, typer.Option("--act-stats", help="Statistics of all activations, as CSV.", rich_help_panel=_LOOK)
    ] = False,
    act_hist: Annotated[
        float | None,
        typer.Option(
            "--act-hist", min=0.0, max=1.0, help="The same of this fraction of the samples.", rich_help_panel=_LOOK
        ),
    ] = None,
    thinnify: Annotated[
        bool, typer.Option("--thinnify", help="Remove what --resume-from has pruned.", rich_help_panel=_LOOK)
    ] = False,
    export_onnx: Annotated[
        Path | None, typer.Option(help="Write --resume-from as this ONNX file.", rich_help_panel=_LOOK)
    ] = None,
    one_shot: Annotated[Given, OptionsOf(OneShot, _ONE_SHOT)] = NONE,
    post_training: Annotated[Given, OptionsOf(PostTraining, _QUANTIZATION)] = NONE,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Greedy filter pruning of --resume-from.", rich_help_panel=_LOOK)
    ] = False,
    greedy_target_density: Annotated[
        float, typer.Option(help="MACs to end at, of the dense network's.", rich_help_panel=_LOOK)
    ] = 0.5,
    greedy_pruning_step: Annotated[
        float, typer.Option(help="Filters a layer loses in a step.", rich_help_panel=_LOOK)
    ] = 0.1,
    greedy_ft_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs that tune each candidate.", rich_help_panel=_LOOK)
    ] = 0,
) -> None:
    """Train one network, pruned as a schedule says, and print accuracy and sparsity.

    A run that was interrupted goes on from its last epoch when the same command is given again.

    Its lines are also in run.log, its figures in TensorBoard's and MLflow's files.
    """
    from rich.console import Console

    from raydistill.cli import on_checkpoint
    from raydistill.cli.distilled import hidden_pairs
    from raydistill.cli.on_workers import asked as asked_of_workers
    from raydistill.cli.one_shot import schedule_of
    from raydistill.cli.quantize import quantize
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.parts.training import of_no_epochs
    from raydistill.schedule import load_schedule
    from raydistill.sweep.file.run_file import load_run
    from raydistill.tasks import foreseen
    from raydistill.training import OwnLoop, RunConfig
    from raydistill.training.config import Distillation
    from raydistill.training.start import weights_of

    console = Console(highlight=False)
    if act_hist is not None:
        act_stats = True
        shares = {**shares, "effective_valid_size": shares["effective_valid_size"] * act_hist}
    print_freq = print_freq or (10 if verbose else 0)
    given = typed(context)
    spec = None if schedule is None else load_schedule(schedule, strict)
    parts = [arch.replace(":", "."), *([] if schedule is None else [schedule.stem])]
    model_arguments = _arguments(model_args, "--model-args")
    task_config = _task(task_name, task_args, earlyexit_lossweights, earlyexit_thresholds)
    loop = None if train is None else OwnLoop(train, _arguments(train_args, "--train-args"))
    if train is None and train_args is not None:
        raise ConfigError(Fault("--train-args", "is for a loop of one's own", train_args, "add --train"))
    if file is not None:
        read = load_run(file)
        written, sections = read.said(), read.sections
        batches, chance = (with_file(part, had, written, given) for part, had in ((Batches, batches), (Chance, chance)))
        computed, data = with_file(Arithmetic, computed, written, given), with_file(DatasetConfig, data, written, given)
        data = {**vars(sections.dataset.config()), **data}
        optimization = with_file(Optimization, optimization, written, given)
        optimizer = with_file(Optimizer, optimizer, read.optimizer, given)
        optimizer = {**read.optimizer, **optimizer}
        model_arguments = {**sections.model.args, **model_arguments} if not arch else model_arguments
        arch = arch or sections.model.arch
        spec = spec or read.schedule
        name = name or sections.name or file.stem
        if not given & {"task_name", "task_args", "earlyexit_lossweights"}:
            task_config = sections.task.config()
        loop = loop or (sections.train.loop() if sections.train is not None else None)
    batches = of_no_epochs({**batches, "trains": True} if "epochs" in given else batches)
    pruning = schedule_of(OneShot(**one_shot))
    if pruning is not None:
        if spec is not None:
            way_out = "keep one of the two"
            raise ConfigError(Fault("--one-shot", "cannot stand beside a schedule", ABSENT, way_out))
        spec, reset_optimizer = pruning, True
        batches = batches if "epochs" in given else {**batches, "epochs": 1, "trains": False}
        parts.append(str(one_shot["method"]))
    if not arch:
        raise ConfigError(Fault("--arch", "is missing", ABSENT, "name the network, or a run file that does"))
    folder = out_dir / (name or "-".join(parts))
    start = None if resume_from is None else str(resume_from)
    needs = {
        "--one-shot": pruning is not None,
        "--reset-optimizer": reset_optimizer,
        "--evaluate": evaluate,
        "--thinnify": thinnify,
        "--export-onnx": export_onnx is not None,
        "--greedy": greedy,
        "--sense": sense is not None,
        "--confusion": confusion,
        "--quantize-eval": post_training["quantize_eval"],
        "--qe-calibration": post_training["calibration"] is not None,
    }
    asked = [option for option, given in needs.items() if given]
    quantizes = "--quantize-eval" in asked or "--qe-calibration" in asked
    if not quantizes and given & {f"qe_{name}" for name in ("lapq", "stats_file", "dynamic", "config_file")}:
        raise ConfigError(Fault("--quantize-eval", "is missing", ABSENT, "add it: the other --qe options say how"))
    if start is None and asked and (not pretrained or reset_optimizer):
        raise ConfigError(Fault(asked[0], "needs a checkpoint", ABSENT, "add --resume-from CHECKPOINT"))
    taught = kd_teacher is not None or kd_resume is not None
    config = RunConfig(
        arch=arch,
        task=task_config,
        train=loop,
        model_args={**model_arguments, **({"pretrained": True} if pretrained else {})},
        dataset=DatasetConfig(**data),
        **pixels,
        **batches,
        **_optimization(optimization, optimizer, given),
        **chance,
        **computed,
        **shares,
        **output,
        device="cpu" if cpu else _device(gpus),
        schedule=spec,
        strict=strict,
        distillation=Distillation(
            kd_teacher,
            None if kd_resume is None else str(kd_resume),
            kd_pretrained,
            temperature=kd_temperature,
            distill_wt=kd_distill_wt,
            student_wt=kd_student_wt,
            teacher_wt=kd_teacher_wt,
            start_epoch=kd_start_epoch,
            hidden=hidden_pairs(kd_hidden),
            hidden_wt=kd_hidden_wt,
            hidden_loss=kd_hidden_loss,
        )
        if taught
        else None,
        init_from=start if reset_optimizer else None,
        continue_from=None if reset_optimizer else start,
        out_dir=str(folder),
    )
    if start is None and (asked or (act_stats and pretrained)):
        on_images = evaluate or confusion or act_stats or greedy or sense is not None or quantizes
        resume_from = on_checkpoint.published_weights(replace(config, out_dir=None), folder, on_images, console)
        start = str(resume_from)
        config = replace(config, model_args=model_arguments, continue_from=start)
    for kind in summary or ():
        show_summary(kind, arch, resume_from)
    looks = {"evaluate": evaluate, "confusion": confusion, "act_stats": act_stats and start is not None}
    if any(looks.values()) or quantizes or thinnify or export_onnx is not None or greedy or sense is not None:
        at = Path(str(start))
        task = _loaded(config, console, begun=False) if any(looks.values()) or greedy or quantizes else None
        if task is not None and quantizes:
            quantize(at, config, task, folder, PostTraining(**post_training), console)
        if task is not None and evaluate and not post_training["quantize_eval"]:
            _evaluate(str(at), config, task, console)
        if task is not None and confusion:
            on_checkpoint.confusion_matrix(at, config, task, folder, console)
        if task is not None and looks["act_stats"]:
            on_checkpoint.activation_statistics(at, config, task, folder, console)
        if sense is not None:
            data_dir = None if config.dataset.data_dir is None else Path(config.dataset.data_dir)
            named, rows = config.dataset.name, config.batch_size
            said = json.dumps(dict(config.task.args))  # which is YAML too
            sensitivity(
                at, arch, config.task.name, said, named, data_dir, sense, sense_range, batch_size=rows, out_dir=folder,
                mean=_of_channels(config.mean), std=_of_channels(config.std),
            )  # fmt: skip
        if thinnify:
            at = on_checkpoint.thinnify(at, arch, folder, console)  # what is exported is the thinned one
        if export_onnx is not None:
            on_checkpoint.export_onnx(at, arch, export_onnx, console)
        if task is not None and greedy:
            density, step, tune = greedy_target_density, greedy_pruning_step, greedy_ft_epochs
            on_checkpoint.greedy(Path(str(start)), config, task, folder, console, density, step, tune)
        return
    if summary:
        return
    wanted = asked_of_workers(num_workers, cpus_per_worker, gpus_per_worker, max_failures, address, config.device)
    known = foreseen(config.task, config.dataset)
    if known is not None and weights_of(config).content is None and not pretrained:
        _checked(config, known)  # before the data are read
    task = _loaded(config, console)
    warnings = _checked(config, task)
    _train(
        config,
        task,
        folder,
        console,
        warnings,
        print_freq,
        num_best_scores,
        masks_sparsity,
        mlflow,
        tracking_uri,
        wanted,
    )
    if act_stats:
        on_checkpoint.activation_statistics(folder / "checkpoint.pt", config, task, folder, console)


def _arguments(text: str | None, option: str) -> Given:
    return {} if text is None else arguments(text, option)


def _optimization(given: Given, optimizer: Given, said_by_user: Collection[str]) -> dict[str, Any]:
    """RunConfig's fields. Of another optimizer than SGD, the rate and the decay that were typed are its own."""
    from raydistill.parts.optimizer import SGD

    said = {name: value for name, value in given.items() if name != "optimizer"}
    own: dict[str, Any] = {}
    if optimizer["name"] != SGD:
        own = {name: said.pop(name) for name in ("lr", "weight_decay") if name in said_by_user}
    return {**said, "optimizer": Optimizer(**{**optimizer, **own})}


def _task(name: str, args: str | None, loss_weights: str | None, thresholds: str | None) -> TaskConfig:
    from raydistill.errors import ABSENT, ConfigError, Fault
    from raydistill.tasks import TaskConfig

    said = _arguments(args, "--task-args")
    if loss_weights is not None and (said or name != TaskConfig().name):
        way_out = "say loss_weights in --task-args"
        raise ConfigError(Fault("--earlyexit-lossweights", "cannot stand beside --task", loss_weights, way_out))
    if loss_weights is None:
        if thresholds is not None:
            way_out = "add --earlyexit-lossweights"
            raise ConfigError(Fault("--earlyexit-thresholds", "is for networks with early exits", ABSENT, way_out))
        return TaskConfig(name, said)
    exits = {
        "loss_weights": _numbers("--earlyexit-lossweights", loss_weights),
        "thresholds": () if thresholds is None else _numbers("--earlyexit-thresholds", thresholds),
    }
    return TaskConfig(args=exits)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """``0.3,0.3`` (or with spaces) as numbers."""
    from raydistill.errors import ConfigError, Fault

    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ConfigError(Fault(option, "must be numbers", text, "such as 0.3,0.3")) from error


def _device(gpus: str | None) -> str:
    """RunConfig's device for ``--gpus``."""
    from raydistill.errors import ConfigError, Fault

    if gpus is None:
        return "auto"
    if gpus.strip() == "-1":
        return "cpu"
    if not gpus.strip().isdigit():
        way_out = "give one number; a run uses one GPU, a sweep uses them all"
        raise ConfigError(Fault("--gpus", "must be the number of one GPU, or -1", gpus, way_out))
    return f"cuda:{int(gpus)}"


def _checked(config: RunConfig, task: TaskShape) -> tuple[str, ...]:
    """What is wrong with the network or the schedule, for such a task, is raised; what is only odd is returned."""
    from raydistill import models
    from raydistill.compression import check
    from raydistill.errors import ConfigError, Fault
    from raydistill.schedule import policies_beyond
    from raydistill.training.loop import check_run
    from raydistill.training.optimizer import make_optimizer

    inputs = task.example_input()
    model = task.network(config.arch, config.model_args, "--arch", fetch=False)
    models.check_input(model, inputs, config.arch, "--arch")
    check_run(config)
    make_optimizer(model, config)
    if config.schedule is None:
        return _odd_start(config, model)
    beyond = policies_beyond(config.schedule, config.epochs, "--epochs")
    pruning = {f"policies[{p.index}]" for p in config.schedule.policies if p.kind == "pruner"}
    fatal = [fault for fault in beyond if isinstance(fault, Fault) and _policy_of(fault) in pruning]
    warnings = _odd_start(config, model)
    try:
        warnings += check(config.schedule, model, inputs, config.strict)
    except ConfigError as error:
        fatal += [fault for fault in error.faults if isinstance(fault, Fault)]
    if fatal:
        raise ConfigError(*fatal)
    return warnings


def _odd_start(config: RunConfig, model: nn.Module) -> tuple[str, ...]:
    """What is odd about the checkpoint that the run goes on from."""
    from raydistill.training.distiller_checkpoint import optimizer_state, read_any
    from raydistill.training.optimizer import make_optimizer, order_of

    if config.continue_from is None:
        return ()
    content = read_any(config.continue_from)
    optimizer = make_optimizer(model, config)
    names, groups = order_of(model, optimizer), len(optimizer.param_groups)
    _, odd = optimizer_state(content, names, config.continue_from, config.optimizer.name, groups)
    return (odd,) if odd else ()


def _policy_of(fault: Any) -> str:
    return fault.where.rpartition(": ")[2].partition(".")[0]


def _loaded(config: RunConfig, console: Console, begun: bool = True) -> Task:
    """The task, its data as the run's weights want them. begun: what the run's folder holds already is meant, if
    anything."""
    from raydistill.cli.lines import warn
    from raydistill.training.start import task_of

    task = task_of(config if begun else replace(config, out_dir=None))
    if task.note:
        console.print(task.note, soft_wrap=True, markup=False)
    if task.warning:
        warn(console, task.warning)
    return task


def _evaluate(checkpoint: str, config: RunConfig, task: Task, console: Console) -> None:
    from raydistill.cli.tables import in_words
    from raydistill.training import evaluate_checkpoint

    share = config.effective_test_size
    figures = evaluate_checkpoint(
        checkpoint, task, "test", config.device, fraction=share, arch=config.arch, data=config.dataset
    )
    console.print(f"{task.name}, {figures.samples:,} test samples: {in_words(figures.metrics, task.metrics)}")


def _train(
    config: RunConfig,
    task: Task,
    folder: Path,
    console: Console,
    warnings: tuple[str, ...],
    print_freq: int,
    num_best_scores: int,
    masks_sparsity: bool,
    mlflow: bool,
    tracking_uri: str | None,
    wanted: Asked | None = None,
) -> None:
    from raydistill.cli.run_report import RunReport, best_lines
    from raydistill.cli.tables import sparsity_table
    from raydistill.metrics import selecting, shown
    from raydistill.training import evaluate_checkpoint, read_history
    from raydistill.training.best import BestEpochs

    checkpoint = folder / "checkpoint.pt"
    history = read_history(checkpoint) if checkpoint.exists() else []
    last = history[-1] if history else None
    from raydistill.parts.setting import identity
    from raydistill.training.optimizer import learning_rate

    params = {key: getattr(config, key) for key in ("arch", "epochs", "batch_size", "momentum", "weight_decay", "seed")}
    params |= {"lr": learning_rate(config), **_flat(identity(config).get("optimizer", {}), "optimizer")}
    params |= {"dataset": task.name, "schedule": config.schedule.source if config.schedule else "dense"}
    with RunReport(console, folder, mlflow, tracking_uri, params, task.metrics) as report:
        for warning in warnings:
            report.warn(warning)
        if last is not None:
            done = "all of them" if last.epoch + 1 >= config.epochs else "going on"
            report.say(f"{checkpoint} holds {last.epoch + 1} epochs already: {done}")
        best = BestEpochs(num_best_scores, history, task.metrics)
        steps = _Steps(report, print_freq)
        try:
            with _epochs(config, task, steps if print_freq else None, print_freq, wanted, report) as epochs:
                for last in epochs:
                    report.epoch(last)
                    if masks_sparsity:
                        report.say(sparsity_table(last))
                    best.keep(last, checkpoint)
        except KeyboardInterrupt:
            told = f"after epoch {last.epoch + 1}" if last is not None else "before the first epoch was done"
            report.say(f"interrupted {told}; the same command goes on")
            raise
        if last is None:
            return
        test = evaluate_checkpoint(
            checkpoint, task, "test", config.device, fraction=config.effective_test_size, arch=config.arch
        )
        report.say(sparsity_table(last))
        for line in best_lines(best.best(), task.metrics):
            report.say(line)
        name = selecting(task.metrics)
        found = [shown(task.metrics[name], split.metrics[name]) for split in (last, test)]
        report.say(f"{name} on {task.name}: validation {found[0]}, test {found[1]}")
        report.say(f"checkpoint: {checkpoint}")
        if config.tensorboard:
            report.say(f"curves: tensorboard --logdir {shlex.quote(str(folder))}")
        report.result(test, last, checkpoint, config.arch, task)
        report.finished()


def _of_channels(values: tuple[float, ...] | None) -> str | None:
    return None if values is None else ",".join(map(str, values))


def _flat(said: object, path: str) -> dict[str, object]:
    """What is said inside a section, by key path."""
    if not isinstance(said, dict):
        return {path: said}
    return {key: value for name, inside in said.items() for key, value in _flat(inside, f"{path}.{name}").items()}


def _epochs(
    config: RunConfig,
    task: Task,
    on_step: OnStep | None,
    print_freq: int,
    wanted: Asked | None,
    report: RunReport,
) -> AbstractContextManager[Iterator[EpochMetrics]]:
    """The run's epochs, trained here or on workers."""
    if wanted is not None:
        from raydistill.cli.on_workers import epochs_on_workers

        return epochs_on_workers(config, task, wanted, report, on_step, print_freq)
    from raydistill.training import fit

    filterwarnings("ignore", message=".*going on with a fresh optimizer")  # said already, see `_odd_start`
    return contextlib.closing(fit(config, task=task, on_step=on_step))  # type: ignore[type-var]


class _Steps:
    """Prints a few lines inside each epoch."""

    def __init__(self, report: RunReport, lines: int) -> None:
        self._report, self._lines = report, lines

    def __call__(self, epoch: int, minibatch: int, minibatches: int, loss: float) -> None:
        every = max(1, minibatches // self._lines)
        if (minibatch + 1) % every == 0 and minibatch + 1 < minibatches:
            self._report.say(f"  epoch {epoch + 1}, step {minibatch + 1}/{minibatches}, training loss {loss:.4f}")
