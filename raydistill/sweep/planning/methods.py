"""The trial scheduler and the searcher that a sweep file names, as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.records import Scalar
from raydistill.schedule import ScheduleSpec
from raydistill.search import Objective, SearchSpace
from raydistill.search.asha import ASHA
from raydistill.search.constraints import Constraint
from raydistill.search.decisions import PLANNED, RunAll, TrialScheduler, by_objectives, by_score
from raydistill.search.halving import Halving, rung_levels
from raydistill.search.median import MedianStopping
from raydistill.search.own import own_searcher, own_trial_scheduler, searcher_class, trial_scheduler_class
from raydistill.search.search import Search
from raydistill.search.searchers import LEARNS, SEARCHERS, PlacedSearcher, Searcher
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection

MILD = 0.1
"""Its weight against a fraction's, up to which early rungs keep more than the sparsest trials: all of the sparsity is
worth ten points then. Measured by benchmarks/search_quality.py (``random+asha_mild``: 0.05)."""


def check_own(searching: SearcherSection, scheduling: TrialSchedulerSection, file: str) -> None:
    """Raises ConfigError where one's own is not of the right class or does not take its arguments; calls nothing."""
    faults: list[Fault | str] = []
    for section, found, key in (
        (searching, searcher_class, "searcher"),
        (scheduling, trial_scheduler_class, "trial_scheduler"),
    ):
        try:
            if section.own:
                found(section.name, section.args or {}, f"{file}: {key}")
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*faults)


def begun(count: int) -> int:
    """Of `count` trials, those before a model is made of results, or that are placed: a quarter, 4 to 10."""
    return max(4, min(10, count // 4))


PLACED_FIRST = 8
"""Trials of ``warm_start: auto``."""


def startup_behind(name: str) -> int:
    """How many trials a searcher that learns begins with by itself, or waits for, behind those that are placed."""
    return 1 if name == "additive" else PLACED_FIRST


def make_searcher(
    section: SearcherSection, space: SearchSpace, seed: int, count: int, where: str = "searcher"
) -> Searcher:
    """count: how many trials there will be. A quarter of them, 4 to 10, come before a model if the file is silent.

    Raises:
        ConfigError: one's own cannot be made. where: its section.
    """
    if section.own:
        return own_searcher(section.name, section.args or {}, space, seed, where)
    options = section.options()
    if section.name in LEARNS:
        options.setdefault("startup", begun(count))
    try:
        return SEARCHERS[section.name](space, seed, **options)
    except ConfigError as error:
        raise ConfigError(*(_in_section(fault, where) for fault in error.faults)) from error


def _in_section(fault: Fault | str, where: str) -> Fault | str:
    """What a searcher says of itself, with the file's name."""
    return fault if isinstance(fault, str) or fault.where != "searcher" else replace(fault, where=where)


def make_placed(
    section: SearcherSection, space: SearchSpace, seed: int, count: int, pool: int = 0, where: str = "searcher"
) -> PlacedSearcher:
    """The searcher of a section behind trials that are placed by the layers' own curves, or chosen from a pool. How
    many these are does not depend on `count`, which may grow: what is drawn behind them stays the same.

    Raises:
        ConfigError: its trials are not drawn one by one, or it cannot be made.
    """
    if section.name == "amc":
        rule = "amc's trials are the best of its episodes, auto has none to place"
        raise ConfigError(Fault(where, rule, ABSENT, "leave warm_start: auto out, or choose another searcher"))
    if section.name in LEARNS and section.startup is None:
        section = section.model_copy(update={"startup": startup_behind(section.name)})
    return PlacedSearcher(make_searcher(section, space, seed, count, where), space, seed, PLACED_FIRST, pool=pool)


def make_search(
    searching: SearcherSection,
    scheduling: TrialSchedulerSection,
    searcher: Searcher,
    objectives: Sequence[Objective],
    epochs: int,
    count: int,
    fixed: Sequence[Mapping[str, Scalar]] = (),
    dimensions: int = 0,
    constraints: Sequence[Constraint] = (),
) -> Search:
    """The whole search of `count` trials of `epochs` epochs; fixed, dimensions: see `Search`. constraints: those on
    figures of the network steer it."""
    steering = () if searcher.keeps_bounds else constraints  # its model is of the metric itself
    measure = by_score(searching.score or {}) if searching.name == "tpe" else by_objectives(objectives, steering)
    trial_scheduler = make_trial_scheduler(scheduling, objectives, epochs, constraints=constraints)
    stages = [*rungs(scheduling, epochs), epochs]
    return Search(
        searcher, trial_scheduler, measure, num_samples=count, stages=stages, fixed=fixed, dimensions=dimensions
    )


def grace_period(section: TrialSchedulerSection, epochs: int) -> int:
    """Epochs before any trial is stopped; a quarter of a trial where the file does not say."""
    return section.grace_period or max(1, epochs // 4)


def rungs(section: TrialSchedulerSection, epochs: int) -> list[int]:
    """The epochs at which trials are compared; none for a trial scheduler without rungs."""
    if section.name not in ("moasha", "asha", "hyperband"):
        return []
    return rung_levels(grace_period(section, epochs), section.reduction_factor, epochs)


def compared_too_early(
    section: TrialSchedulerSection, epochs: int, schedules: Iterable[ScheduleSpec], where: str = "trial_scheduler"
) -> tuple[str, ...]:
    """A line to warn with where a score gives the planned sparsity much weight and is compared before masks are final.

    Until then all are nearly dense: top1 differs by little more than its noise, the planned sparsity by all of its
    range, so whoever will be pruned the most goes on. Weighed no more than `MILD`, or not at all (moasha compares the
    objectives themselves), some of every sparsity do. schedules: of trials; the one that prunes for longest counts.
    """
    weighs = not section.own and "score" in section.uses[section.name]
    score = dict(section.score or {}) if weighs else {}
    of_size = score.pop(PLANNED, 0.0)
    if of_size <= MILD * max(map(abs, score.values()), default=0.0):
        return ()
    final = max(
        (p.last_epoch + 1 for schedule in schedules for p in schedule.policies if p.kind == "pruner"), default=0
    )
    first = grace_period(section, epochs)
    if first >= min(final, epochs):
        return ()
    rule = f"{section.name} compares scores with {PLANNED} {of_size:g} before masks are final, after {final} epochs"
    later = f"{final} or more" if final < epochs else "prune until an earlier epoch"
    way_out = f"{later}, or weigh it by {MILD / 2:g}, or {{name: moasha}}: so early it keeps whoever prunes hardest"
    return (str(Fault(f"{where}.grace_period", rule, first, way_out)),)


def make_trial_scheduler(
    section: TrialSchedulerSection,
    objectives: Sequence[Objective],
    epochs: int,
    where: str = "trial_scheduler",
    constraints: Sequence[Constraint] = (),
) -> TrialScheduler:
    """Raises ConfigError where one's own cannot be made. where: its section."""
    measure = by_objectives(objectives, constraints)
    if section.own:
        return own_trial_scheduler(section.name, section.args or {}, measure, epochs, where)
    score, grace, factor = by_score(section.score or {}), grace_period(section, epochs), section.reduction_factor
    if section.name == "none":
        return RunAll()
    if section.name == "median":
        return MedianStopping(score, max_epochs=epochs, grace_period=grace)
    if section.name == "asha":
        return ASHA(score, max_epochs=epochs, grace_period=grace, reduction_factor=factor)
    single = section.name == "hyperband"
    return Halving(
        score if single else measure,
        max_epochs=epochs,
        grace_period=grace,
        reduction_factor=factor,
        brackets=section.brackets or (None if single else 1),
        promote=section.mode == "promote",
        spread=section.spread,
    )
