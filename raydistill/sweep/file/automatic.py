"""``searcher: auto`` and ``trial_scheduler: auto``, what a sweep file has that does not say: which methods they are.

What is chosen is what `benchmarks/search_quality.py` says of the budget (docs/results.md holds its tables); so is
whether a searcher that the tool chose begins by what the layers lose, ``warm_start: auto``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raydistill.metrics import OF_NETWORK, Metric, selecting
from raydistill.search import Dimension, Objective, PerLayer
from raydistill.search.searchers import LEARNS
from raydistill.search.searchers.damages import draws_levels
from raydistill.sweep.file.spec import AUTO, SearcherSection, SweepSections, TrialSchedulerSection

LEVEL = "final_sparsity"
WARM = "warm_start"
MANY = 64
"""Trials up to which a searcher that learns values one by one has not beaten an even spread."""
_FEWEST = 4
"""Epochs of a trial below which there is nothing to stop."""


@dataclass(frozen=True)
class Choices:
    """Which methods ``auto`` stands for. why: by section, in words; only of those that are ``auto``. places: whether
    the sweep begins by ``warm_start: auto``."""

    searcher: SearcherSection
    trial_scheduler: TrialSchedulerSection
    why: Mapping[str, str] = field(default_factory=dict)
    places: bool = False

    def lines(self) -> list[str]:
        """One for each section, as ``searcher: additive (auto: ...)``."""
        said = [f"{key}: {getattr(self, key).name} ({self.said(key)})" for key in self.why]
        return [*said, f"{WARM}: {AUTO} (levels of layers are searched)"] if self.places else said

    def within(self, sections: SweepSections) -> SweepSections:
        return sections.model_copy(update={"searcher": self.searcher, "trial_scheduler": self.trial_scheduler})

    def said(self, key: str) -> str:
        """Why a section's method is what it is; "" where the file says it."""
        return f"{AUTO}: {self.why[key]}" if key in self.why else ""


def chosen(
    sections: SweepSections,
    dimensions: Sequence[Dimension],
    per_layer: Sequence[PerLayer],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    epochs: int,
) -> Choices:
    """What is to be used in place of ``auto``; a method that the file names is left as it is.

    metrics: the task's; the first selects. epochs: of a trial; 0 where trials do not train.
    """
    said = Choices(sections.searcher, sections.trial_scheduler)
    levels = _levels_for_two(sections, per_layer, objectives)
    why: dict[str, str] = {}
    if said.searcher.name == AUTO:
        name, why["searcher"] = _searcher(sections, dimensions, per_layer, objectives)
        said = replace(said, searcher=SearcherSection(name=name))
    if said.trial_scheduler.name == AUTO:
        name, why["trial_scheduler"] = _trial_scheduler(sections, str(said.searcher.name), metrics, epochs)
        said = replace(said, trial_scheduler=TrialSchedulerSection(name=name))
    return replace(said, why=why, places=_begins_by_curves(said.searcher, "searcher" in why) and levels)


def as_started(now: Choices, config: Mapping[str, object]) -> Choices:
    """What a sweep was started with, in place of what ``auto`` is today. config: the journal's."""
    kept = {key: getattr(now, key).of_journal(config[key]) for key in now.why if key in config}
    begun = config.get(WARM)
    places = now.places and isinstance(begun, list) and AUTO in begun
    return replace(now, **kept, why=dict.fromkeys(kept, "as the sweep was started"), places=places)


def _searcher(
    sections: SweepSections,
    dimensions: Sequence[Dimension],
    per_layer: Sequence[PerLayer],
    objectives: Sequence[Objective],
) -> tuple[str, str]:
    stops = sections.trial_scheduler.name not in (AUTO, "none")
    levels = _levels_for_two(sections, per_layer, objectives)
    if levels and not stops and not _bits_count(dimensions, per_layer, objectives):
        return "additive", "levels of layers are searched"
    points = _points(dimensions, per_layer)
    if points is not None and points <= sections.num_samples:
        return "grid", f"all {points} combinations"
    if sections.num_samples > MANY:
        return "evolution", f"more than {MANY} trials, enough to learn from"
    return "sobol", f"up to {MANY} trials, spread evenly"


def _begins_by_curves(section: SearcherSection, chosen: bool) -> bool:
    """Whether its first trials are placed where the file does not say how it begins. chosen: by the tool. One that
    learns has to begin with something; a design that the file names is wanted as it is, and `additive` begins so by
    itself."""
    learns = section.name in LEARNS and section.startup is None
    return section.name != "additive" and (chosen or learns)


def _levels_for_two(sections: SweepSections, per_layer: Sequence[PerLayer], objectives: Sequence[Objective]) -> bool:
    """Whether levels of layers are searched for one metric and one figure of the network, by the tool's own loop."""
    levels = any(LEVEL in each.arguments and draws_levels(each.arguments[LEVEL]) for each in per_layer)
    weighs = sorted(objective.of_network for objective in objectives) == [False, True]
    return levels and weighs and not any(o.path for o in objectives) and sections.train is None


def _bits_count(
    dimensions: Sequence[Dimension], per_layer: Sequence[PerLayer], objectives: Sequence[Objective]
) -> bool:
    """Whether bits are searched for a figure that counts them: `additive` foresees what levels bring, and no more."""
    names = [d.path.rpartition(".")[2] for d in dimensions] + [name for each in per_layer for name in each.arguments]
    figures = [OF_NETWORK[o.name] for o in objectives if o.name in OF_NETWORK]
    return any(name.startswith("bits_") for name in names) and any(figure.counts_bits for figure in figures)


def _points(dimensions: Sequence[Dimension], per_layer: Sequence[PerLayer]) -> int | None:
    """How many combinations there are; None where they cannot be counted."""
    count = 1
    for dimension in dimensions:
        options = getattr(dimension.distribution, "options", None)
        if options is None:
            return None
        count *= len(options)
    return None if per_layer else count


def _trial_scheduler(
    sections: SweepSections, searcher: str, metrics: Mapping[str, Metric], epochs: int
) -> tuple[str, str]:
    if searcher == "additive":
        return "none", "additive learns from whole trials"
    if searcher == "grid":
        return "none", "all combinations are wanted"
    if searcher == "amc":
        return "none", "its best few are trained whole"
    if sections.trunk is not None:
        return "none", "branches of a trunk are short"
    if epochs < _FEWEST:
        return "none", f"{epochs} epochs are too few to stop"
    first = metrics[selecting(metrics)]
    if searcher == "evolution" or not (first.is_fraction and first.maximise):
        return "moasha", "the objectives themselves are compared"
    return "asha", "the weaker half ends early"
