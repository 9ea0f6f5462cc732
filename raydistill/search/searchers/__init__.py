"""Searchers: which values the next trial gets. One method a file; `SEARCHERS` is the menu.

A searcher keeps no state: `Searcher.suggest` is a function of the space, the seed, the trial's number and what was
seen. A sweep that is resumed hands in what its journal holds, and goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Callable

from raydistill.search.searchers.additive import AdditiveSearcher
from raydistill.search.searchers.amc import AMCSearcher
from raydistill.search.searchers.base import Aim, Searcher
from raydistill.search.searchers.evolution import EvolutionSearcher
from raydistill.search.searchers.grid import GridSearcher
from raydistill.search.searchers.optuna import GPSearcher, NSGA2Searcher, TPESearcher
from raydistill.search.searchers.placed import PlacedSearcher
from raydistill.search.searchers.qnehvi import QNEHVISearcher
from raydistill.search.searchers.random import RandomSearcher
from raydistill.search.searchers.sobol import SobolSearcher

SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "random": RandomSearcher,
    "grid": GridSearcher,
    "sobol": SobolSearcher,
    "tpe": TPESearcher,
    "motpe": TPESearcher,
    "nsga2": NSGA2Searcher,
    "gp": GPSearcher,
    "qnehvi": QNEHVISearcher,
    "evolution": EvolutionSearcher,
    "additive": AdditiveSearcher,
    "amc": AMCSearcher,
}
"""By the name in a sweep file. tpe and motpe differ in what they are told: one score, or every objective."""

LEARNS = frozenset({"tpe", "motpe", "nsga2", "gp", "qnehvi", "evolution", "additive"})
"""Those whose suggestions depend on results; the other searchers' trials are all known before a sweep starts."""

__all__ = [
    "LEARNS",
    "SEARCHERS",
    "AMCSearcher",
    "AdditiveSearcher",
    "Aim",
    "EvolutionSearcher",
    "GPSearcher",
    "GridSearcher",
    "NSGA2Searcher",
    "PlacedSearcher",
    "QNEHVISearcher",
    "RandomSearcher",
    "Searcher",
    "SobolSearcher",
    "TPESearcher",
]
