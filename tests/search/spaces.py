from __future__ import annotations

from raydistill.search import Dimension, SearchSpace


def space(*distributions: object) -> SearchSpace:
    return SearchSpace(tuple(Dimension(f"a.d{i}", d) for i, d in enumerate(distributions)))  # type: ignore[arg-type]
