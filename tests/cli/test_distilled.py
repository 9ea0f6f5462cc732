"""``--kd-hidden`` names pairs of modules."""

from __future__ import annotations

import pytest

from raydistill.cli.distilled import hidden_pairs
from raydistill.errors import ConfigError


def test_pairs_and_names_of_both() -> None:
    assert hidden_pairs("blocks.1=blocks.3, norm,a = b") == {"blocks.1": "blocks.3", "norm": "norm", "a": "b"}
    assert hidden_pairs(None) == hidden_pairs("") == {}


WRONG = [("a=", "pairs"), ("=a", "pairs"), ("a=b=c", "pairs"), ("a,,b", "pairs"), ("a,a=b", "twice")]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_what_names_no_pair_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"--kd-hidden: .*{says}"):
        hidden_pairs(text)
