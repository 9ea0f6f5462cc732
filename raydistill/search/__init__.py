"""Search spaces, objectives and the Pareto front: numpy only, no Ray and no torch."""

from raydistill.search.distributions import (
    Choice,
    Distribution,
    LogUniform,
    QUniform,
    RandInt,
    Uniform,
    parse_distribution,
)
from raydistill.search.objectives import Objective, parse_objectives, score_matrix, usual_objectives
from raydistill.search.pareto import FrontRow, front_rows, hypervolume, knee, mean_and_std, pareto_rank
from raydistill.search.points import from_text, middle, nearest, spread, typed
from raydistill.search.space import Dimension, PerLayer, SearchSpace, expand, parse_space

__all__ = [
    "Choice",
    "Dimension",
    "Distribution",
    "FrontRow",
    "LogUniform",
    "Objective",
    "PerLayer",
    "QUniform",
    "RandInt",
    "SearchSpace",
    "Uniform",
    "expand",
    "from_text",
    "front_rows",
    "hypervolume",
    "knee",
    "mean_and_std",
    "middle",
    "nearest",
    "parse_distribution",
    "parse_objectives",
    "parse_space",
    "pareto_rank",
    "score_matrix",
    "spread",
    "typed",
    "usual_objectives",
]
