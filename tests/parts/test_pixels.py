"""What is said of the pixels that plain weights have seen: its spellings, and what is wrong with it, each in a line."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.parts import Pixels, pixel_faults
from raydistill.parts.pixels import numbers

NAN = float("nan")


@pytest.mark.parametrize("text", ["0.5,0.25,1", "0.5 0.25 1", " 0.5, 0.25,1 "])
def test_an_options_text_is_numbers(text: str) -> None:
    assert numbers(text) == (0.5, 0.25, 1.0)


def test_other_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--mean, --std: must be numbers, got '0.5,x'; such as 0.485,0.456,0.406"):
        numbers("0.5,x")


@pytest.mark.parametrize(
    ("mean", "std", "rule"),
    [
        (None, None, None),
        ((0.5,), (0.5,), None),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None),
        ((-1.0, 0.0, 0.0), (2.0, 1.0, 1.0), None),
        ((0.5,), None, "run.std: is missing beside mean; give both"),
        (None, (0.5,), "run.mean: is missing beside std; give both"),
        ((0.5, 0.5), (1.0, 1.0), "run.mean: must be three numbers, or one for grey images, got [0.5, 0.5]"),
        ((), (1.0,), "run.mean: must be three numbers"),
        ((NAN, 0.0, 0.0), (1.0, 1.0, 1.0), "run.mean: must be three numbers"),
        ((0.5,), (1.0, 1.0, 1.0), "run.std: must be as many as mean, 1, got [1.0, 1.0, 1.0]"),
        ((0.5,), (0.0,), "run.std: must be above 0, got [0.0]"),
        ((127.5,), (0.5,), "run.mean: must be of pixels scaled to [0, 1], got [[127.5], [0.5]]; divide them by 255"),
        ((0.5,), (58.0,), "run.mean: must be of pixels scaled to [0, 1]"),
    ],
)
def test_what_is_wrong_is_said_once(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, rule: str | None
) -> None:
    faults = [str(fault) for fault in pixel_faults(Pixels(mean=mean, std=std), "run.")]
    if rule is None:
        assert faults == []
    else:
        assert len(faults) <= 2
        assert faults[0].startswith(rule)
        assert "\n" not in faults[0]
