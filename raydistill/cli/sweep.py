"""``raydistill sweep``: a search space in, a Pareto front out."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raydistill.cli.options import NONE, Given, OptionsOf, with_options
from raydistill.masking import masked
from raydistill.parts import AMC

if TYPE_CHECKING:
    from rich.console import Console

    from raydistill.cli.survivor import Survivor
    from raydistill.cluster.address import Address
    from raydistill.cluster.nodes import Node
    from raydistill.errors import RayLostError
    from raydistill.metrics import Metric
    from raydistill.parts.training import Training
    from raydistill.search.aliases import Alias
    from raydistill.sweep.file.load import Sweep
    from raydistill.sweep.planning.plan import Plan
    from raydistill.sweep.run import Outcome
    from raydistill.tasks import Task


@with_options
def sweep(
    file: Annotated[
        Path | None, typer.Argument(help="The search space, as search_spaces/simplenet.yaml.", show_default=False)
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(
            help="In place of a file: a bound on what is wanted, as 'macs <= 0.5x'; may be repeated.", metavar="BOUND"
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", "-a", help="With --goal: the network, or pkg.mod:factory.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--from", help="With --goal: the trained network to start from.", metavar="FILE")
    ] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="Number of trials.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs of a trial; schedule and trial scheduler follow in proportion, the baseline only down.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT, auto or local; left out, RAY_ADDRESS, else this machine."),
    ] = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Trials run on CPU cores, whatever the file asks for and GPUs are there.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of this sweep, of its folder and of its model.")] = None,
    storage: Annotated[
        str,
        typer.Option(
            help="Where sweeps are kept: a folder shared by all nodes, or s3://bucket/prefix.",
            envvar="RAYDISTILL_STORAGE",
        ),
    ] = "sweeps",
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="An MLflow server; left out, MLflow's files stand in the storage.", envvar="MLFLOW_TRACKING_URI"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the draws and of training.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="CIFAR-10's folder, a tree of class folders, or what else the task reads."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Another dataset than the file names.")] = None,
    amc: Annotated[Given, OptionsOf(AMC, "AMC, as in Distiller")] = NONE,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted sweep.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print space and resources; start nothing.")
    ] = False,
) -> None:
    """Prune one network in many ways and print the front of accuracy and sparsity.

    Every trial starts from the same dense baseline, draws its values, prunes and fine-tunes; the trial
    scheduler stops weak ones early. Everything is in MLflow, every point of the front is a checkpoint.
    """
    from raydistill.cli.survivor import outlived
    from raydistill.cluster.address import choose
    from raydistill.cluster.quiet import quieten
    from raydistill.files import write_atomically

    def loaded() -> Sweep:
        from raydistill.cli.amc import goals_of, searcher_of
        from raydistill.cli.goal import space_of
        from raydistill.sweep.file.load import Overrides, load_sweep

        asked = AMC(**amc)
        wanted = goals_of(asked, goal, file)
        searcher = searcher_of(asked)
        space, text = space_of(
            file, wanted, arch, checkpoint, dataset, data_dir, epochs, num_samples, name, resume, searcher
        )
        if text is not None and not dry_run:
            write_atomically(space, text)
            text = None
        overrides = Overrides(
            name=name,
            num_samples=num_samples,
            epochs=epochs,
            seed=seed,
            dataset=dataset,
            data_dir=None if data_dir is None else str(data_dir),
            tracking_uri=tracking_uri,
            cpu=cpu,
            searcher=searcher,
        )
        return load_sweep(space, overrides, text)

    quieten()
    cluster = choose(address, os.environ.get("RAY_ADDRESS"))
    if dry_run:
        _dry_run(loaded(), storage, resume, cluster)
        return
    with outlived(_how_to_resume()) as survivor:
        _search(loaded(), storage, resume, cluster, survivor)


def _search(loaded: Sweep, storage: str, resume: bool, cluster: Address | None, survivor: Survivor) -> None:
    from rich.console import Console

    from raydistill.cli.failure import fail
    from raydistill.cli.progress import Progress
    from raydistill.errors import RaydistillError
    from raydistill.sweep.run import run_sweep
    from raydistill.sweep.tune.interrupt import interruptible

    console = Console(highlight=False)

    def on_first() -> None:
        progress.warning("ending: running trials keep their last checkpoint (Ctrl-C again quits at once)")

    def on_last() -> None:
        progress.stop()
        hint(always=resume)
        sys.stdout.flush()
        survivor.over()

    def on_lost(error: RayLostError) -> None:
        hint()
        survivor.over()
        fail(error)

    def hint(always: bool = False) -> None:
        if progress.resumable or always:
            console.print(_how_to_resume(), soft_wrap=True)

    again = _resume_command()
    progress = Progress(console, loaded.metrics, on_lost=on_lost, on_started=survivor.begun)
    with progress, interruptible(on_first, on_last) as interrupt:
        try:
            outcome = run_sweep(loaded, storage, resume=resume, address=cluster, observer=progress, interrupt=interrupt)
        except (KeyboardInterrupt, RaydistillError) as error:
            progress.stop()
            hint(always=resume and isinstance(error, KeyboardInterrupt))
            raise
    if outcome.interrupted:
        console.print(f"interrupted; resume with:\n  {again}", soft_wrap=True)
        raise typer.Exit(130)
    _report(outcome, loaded.metrics, again, console, storage, loaded.aliases)
    if not outcome.recorded:
        raise typer.Exit(1)


def _report(
    outcome: Outcome,
    metrics: Mapping[str, Metric],
    again: str,
    console: Console,
    storage: str,
    aliases: Sequence[Alias] = (),
) -> None:
    from raydistill.cli.tables import busy_lines, counts_line, front_report, infeasible_lines, unmoved_lines

    for part in front_report(outcome.rows, outcome.dataset, metrics):
        console.print(part)
    for line in (*infeasible_lines(outcome.rows), *unmoved_lines(outcome.rows), *busy_lines(outcome.rows)):
        console.print(line, style="yellow", soft_wrap=True, markup=False)
    console.print(counts_line(outcome.records))
    if outcome.used_fallback:
        console.print(f"These figures are of the fallback dataset {outcome.dataset}.", style="bold yellow")
    for title, text in (
        ("open MLflow", _how_to_open(outcome.tracking_uri)),
        ("its front", outcome.front_page),
        ("resume", again),
        ("checkpoints", f"{_shown(outcome.kept)}/trials/*/checkpoint.pt"),
        ("curves", f"tensorboard --logdir {shlex.quote(_shown(outcome.kept))}/trials" if _here(outcome.kept) else ""),
        ("the knee", f"models:/{outcome.model}@pareto-knee" if outcome.model else ""),
        *(outcome.aliases.items()),
        ("take it away", _pick(outcome, storage, aliases)),
    ):
        if text:
            console.print(f"{title:<12} {text}", soft_wrap=True, markup=False)


def _pick(outcome: Outcome, storage: str, aliases: Sequence[Alias]) -> str:
    """The command that gives the network of the goal, or the knee, as a folder; "" where there is none, or none can be
    had."""
    from raydistill.records import BASELINE
    from raydistill.sweep.file.goal import ALIAS

    knee = next((row.record for row in outcome.rows if row.knee and row.record.trial_id != BASELINE), None)
    if knee is None or not outcome.can_be_taken:
        return ""
    name = outcome.kept.rpartition("/")[2]
    best = next((alias.rule.best for alias in aliases if alias.name == ALIAS), None)
    which = ["--best", best, "-o", f"{name}-{ALIAS}"] if best else ["--knee", "-o", f"{name}-{knee.trial_id}"]
    words = ["raydistill", "pick", name, *which]
    words += ["--storage", storage] if storage != "sweeps" else []
    words += ["--arch", knee.arch] if ":" in knee.arch else []
    return shlex.join(words)


def _how_to_open(uri: str) -> str:
    """A server is open already."""
    if uri.startswith(("http://", "https://")):
        return masked(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(_short_uri(masked(uri)))}"


def _short_uri(uri: str) -> str:
    """An SQLite file inside the working folder is named from there: the line is to be copied, and to fit."""
    prefix = "sqlite:///"
    return prefix + _short(Path(uri.removeprefix(prefix))) if uri.startswith(prefix) else uri


def _short(path: Path) -> str:
    """Relative to the working folder where that is inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _here(kept: str) -> bool:
    """Whether a sweep is kept in a folder: TensorBoard alone does not read from buckets."""
    return "://" not in kept


def _shown(kept: str) -> str:
    return kept if "://" in kept else _short(Path(kept))


def _how_to_resume() -> str:
    return f"not finished; resume with:\n  {_resume_command()}"


def _resume_command() -> str:
    """What was typed, with --resume; a password in it is masked, and has to be put back."""
    words = ["raydistill", *(masked(word) for word in sys.argv[1:])]
    return shlex.join([*words, *([] if "--resume" in words else ["--resume"])])


def _dry_run(sweep: Sweep, storage: str, resume: bool, cluster: Address | None) -> None:
    from rich.console import Console

    from raydistill.cli import lines
    from raydistill.cli.tables import percent, space_table
    from raydistill.cluster.nodes import this_machine
    from raydistill.errors import ResourceError
    from raydistill.storage import open_store
    from raydistill.sweep.planning.packing import packing_of
    from raydistill.sweep.planning.plan import check_plan, plan_sweep
    from raydistill.sweep.planning.runs import baseline_config
    from raydistill.sweep.planning.seeds import find_seeds
    from raydistill.sweep.planning.task import sweep_task
    from raydistill.sweep.record.tracking_place import check_tracking
    from raydistill.sweep.run import check_start_of
    from raydistill.tracking import visit

    store, console = open_store(storage), Console(highlight=False)
    check_tracking(sweep, store)
    store.check()
    if resume:
        started = check_start_of(sweep, store, resume).start
        assert started is not None
        sweep = sweep.as_started(started["config"])
    check_plan(sweep)
    if sweep.sections.tracking.uri is not None:
        visit(sweep.sections.tracking.uri)

    def warn(line: str) -> None:
        lines.warn(console, line)

    if cluster is None:
        resources = _resources(sweep, [this_machine()], "this machine")
    else:
        from raydistill.cluster.reach import nodes_there

        target, nodes = nodes_there(cluster)
        try:
            resources = _resources(sweep, nodes, f"the cluster at {target}")
        except ResourceError as error:
            resources = f"more than the cluster at {target} has now"
            for fault in error.faults:  # its autoscaler may start what is asked for; who joins it knows
                warn(f"{fault}; that is all, unless the cluster starts other nodes by itself")
    seeds = find_seeds(sweep, store.root, warn)
    task = sweep_task(sweep)
    for line in filter(None, (task.warning, task.note)):
        warn(line)
    plan = plan_sweep(sweep, task, seeds)
    for line in plan.warnings:
        warn(line)
    packing = packing_of(sweep, plan, task)
    sections = sweep.sections
    planned = [trial.planned_sparsity for trial in plan.trials]
    baseline = sections.baseline.checkpoint or f"{baseline_config(sweep).epochs} epochs, trained or reused"
    console.print(space_table([(d.path, d.distribution.describe()) for d in plan.space.dimensions]))
    for title, text in (
        ("model", f"{sections.model.arch}, {sum(_size(shape) for _, shape in plan.weights):,} weights"),
        ("dataset", _split_sizes(task)),
        ("baseline", baseline),
        *((("trunk", _trunk(sweep, plan)),) if plan.branches else ()),
        ("trials", f"{plan.count} {_length(sections.training)}, seed {sections.seed}"),
        *((("", f"the first {_epochs(plan.common_start)} in common, trained once"),) if plan.common_start else ()),
        *((trial.trial_id, f"{trial.origin}, {percent(trial.planned_sparsity)} % sparsity") for trial in plan.warm),
        ("searcher", _searcher(sweep, plan)),
        *_why(sweep, "searcher"),
        *((("planned", f"{percent(min(planned))} to {percent(max(planned))} % sparsity"),) if planned else ()),
        ("scheduler", _scheduler(sweep)),
        *_why(sweep, "trial_scheduler"),
        ("objectives", ", ".join(f"{o.name} {o.direction}" for o in sweep.objectives)),
        *((("constraints", ", ".join(map(str, sections.constraints))),) if sections.constraints else ()),
        *((("aliases", ", ".join(f"{alias.name}: {alias.rule}" for alias in sweep.aliases)),) if sweep.aliases else ()),
        ("confirm", f"each front member {sections.confirm} times more, other seeds" if sections.confirm else "no"),
        ("resources", resources),
        *((("MLflow", masked(sections.tracking.uri)),) if sections.tracking.uri else ()),
        *((("packing", str(packing)),) if packing.asked != 1 else ()),
        ("storage", _shown(store.reference(store.root / sections.name))),
    ):
        console.print(f"{title and title + ':':<12} {text}", soft_wrap=True, markup=False)
    console.print("dry run: everything checked, nothing started")


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count > 1)}"


def _length(training: Training) -> str:
    return f"of {training.epochs} epochs" if training.trains else "of no epochs: nothing is trained"


def _trunk(sweep: Sweep, plan: Plan) -> str:
    from raydistill.cli.tables import percent

    section, levels = sweep.sections.trunk, sorted(plan.branches.values())
    assert section is not None
    passed = f"{percent(levels[0])} to {percent(levels[-1])} % sparsity"
    return f"{section.epochs} epochs, trained or reused, branches at {len(levels)} places, {passed}"


def _split_sizes(task: Task) -> str:
    import torch

    from raydistill.tasks import TRAIN, VALIDATION, Loading

    loading = Loading(torch.device("cpu"), 256)
    sizes = ", ".join(f"{task.feed(split, loading).samples:,} {split}" for split in (TRAIN, VALIDATION))
    return f"{task.name}, {sizes}"


def _resources(sweep: Sweep, nodes: Sequence[Node], place: str) -> str:
    """What a trial takes, and how many there is room for.

    Raises:
        ResourceError: there is none for a single one.
    """
    from raydistill.cluster.team import at_once, trial_team
    from raydistill.sweep.planning.resources import concurrent, trial_share

    sections = sweep.sections
    share = trial_share(sections.resources_per_trial, nodes, f"{sweep.file}: resources_per_trial", place)
    workers = sections.workers_per_trial
    if workers > 1:
        team = trial_team(workers, share.cpu, share.gpu, sections.max_failures, nodes, str(sweep.file))
        return f"{team} a trial, {at_once(team, nodes)} at a time on {place}"
    asked = sections.resources_per_trial
    if asked is not None and asked.pack != 1:
        return f"{share} for trials that are packed, {concurrent(share, nodes)} times on {place}"
    return f"{share} a trial, {concurrent(share, nodes)} at a time on {place}"


def _why(sweep: Sweep, key: str) -> list[tuple[str, str]]:
    """What chose a method that the file leaves to the tool."""
    from raydistill.sweep.file.spec import AUTO

    chosen = sweep.automatic
    return [(f"  {AUTO}", chosen.why[key])] if chosen is not None and key in chosen.why else []


def _searcher(sweep: Sweep, plan: Plan) -> str:
    name, known = sweep.sections.searcher.name, len(plan.trials)
    if sweep.sections.searcher.own:
        return f"{name}, {known} of {plan.count} trials known beforehand"
    if plan.searcher.how:
        return f"{name}, {plan.searcher.how}"
    if known < plan.count:
        return f"{name}, {known} trials spread evenly, then {plan.count - known} that follow results"
    from raydistill.search.searchers.base import ALL

    size = plan.searcher.size
    return name if size >= ALL else f"{name}, {known} of its {size:,} points"


def _scheduler(sweep: Sweep) -> str:
    from raydistill.sweep.planning.methods import grace_period, rungs

    section, epochs = sweep.sections.trial_scheduler, sweep.sections.training.epochs
    if section.own:
        return section.name
    if section.name == "none":
        return "none: every trial runs to its end"
    if section.name == "median":
        return f"median, from epoch {grace_period(section, epochs)}"
    levels = ", ".join(str(level) for level in rungs(section, epochs)) or "none"
    return f"{section.name} ({section.mode}), rungs at epochs {levels}, one in {section.reduction_factor:g} goes on"


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
