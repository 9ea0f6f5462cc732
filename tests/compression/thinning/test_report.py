"""What thinning did, in words."""

from __future__ import annotations

from raydistill.compression.structure import Thinned
from raydistill.compression.thinning.report import Kept, ThinningReport


def test_one_is_singular_and_the_first_line_sums_up() -> None:
    kept = (Kept("a.weight", "filters", 1, "why"), Kept("b.weight", "channels", 3, "why not"))
    report = ThinningReport(2000, 1500, {"a": 3, "b": 4}, kept, 1.5e-7, Thinned({}, {}))
    assert str(report).splitlines() == [
        "7 filters of 2 layers removed, 2,000 parameters to 1,500 (-25.0 %), outputs moved by 1.5e-07",
        "a.weight: 1 zero filter kept (why)",
        "b.weight: 3 zero channels kept (why not)",
    ]
