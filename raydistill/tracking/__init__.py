"""MLflow, and nothing else that speaks to it: a sweep's records become one parent run and one child run a trial.

MLflow itself is imported when a sweep starts, not with this package.
"""

from raydistill.tracking.figures import front_png, front_table
from raydistill.tracking.front_page import front_html
from raydistill.tracking.models import ALIAS_PREFIX, VersionCard
from raydistill.tracking.read_back import RankedSweep, RankedTrial, ranked_trials
from raydistill.tracking.sink import PARENT
from raydistill.tracking.store import embedded_uri, has_runs
from raydistill.tracking.sweep_log import DatasetCard, LoggedMember, SweepLog
from raydistill.tracking.visit import Visit, visit

__all__ = [
    "ALIAS_PREFIX",
    "DatasetCard",
    "LoggedMember",
    "PARENT",
    "RankedSweep",
    "RankedTrial",
    "SweepLog",
    "VersionCard",
    "Visit",
    "embedded_uri",
    "front_html",
    "front_png",
    "front_table",
    "has_runs",
    "ranked_trials",
    "visit",
]
