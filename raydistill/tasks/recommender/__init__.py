"""The task of recommending: which item a user takes up next, from MovieLens-format files."""

from raydistill.tasks.recommender.task import Recommender

__all__ = ["Recommender"]
