"""What weights that say nothing but themselves want of an image's pixels.

Its annotations are no strings: pydantic before 2.10 would look for their names in the sections' module.
"""

from dataclasses import dataclass
from typing import Annotated

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.parts.kinds import Number
from raydistill.parts.setting import HASH, IDENTITY, Setting

_CHANNELS = (1, 3)


def numbers(text: str) -> tuple[float, ...]:
    """``0.5,0.5,0.5``, or with spaces.

    Raises:
        ConfigError: they are no numbers.
    """
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        way_out = "such as 0.485,0.456,0.406"
        raise ConfigError(Fault("--mean, --std", "must be numbers", text, way_out)) from error


def _setting(about: str) -> Setting:
    return Setting(about, metavar="R,G,B", read=numbers, searchable=False, younger=(IDENTITY, HASH))


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How the pixels were normalised that plain weights have seen; a checkpoint of raydistill or Distiller says it, and
    published weights too. mean, std: of each channel, of pixels scaled to [0, 1]: three numbers, or one for grey
    images. Both, or neither.
    """

    mean: Annotated[
        tuple[Number, ...] | None,
        _setting("Mean of pixels in [0, 1], where plain weights want another than the data's."),
    ] = None
    std: Annotated[
        tuple[Number, ...] | None,
        _setting("Their standard deviation, beside --mean."),
    ] = None


def pixel_faults(pixels: Pixels, prefix: str = "") -> list[Fault]:
    """What is wrong with them by themselves. prefix: of their names, for errors."""
    mean, std = pixels.mean, pixels.std
    if mean is None and std is None:
        return []
    if mean is None or std is None:
        there, missing = ("std", "mean") if mean is None else ("mean", "std")
        return [Fault(f"{prefix}{missing}", f"is missing beside {there}", ABSENT, "give both")]
    faults = [
        Fault(f"{prefix}{name}", "must be three numbers, or one for grey images", list(values))
        for name, values in (("mean", mean), ("std", std))
        if len(values) not in _CHANNELS or not all(abs(value) < 1e6 for value in values)  # NaN is not
    ]
    if not faults and len(mean) != len(std):
        faults.append(Fault(f"{prefix}std", f"must be as many as mean, {len(mean)}", list(std)))
    if not faults and min(std) <= 0:
        faults.append(Fault(f"{prefix}std", "must be above 0", list(std)))
    if not faults and max(map(abs, (*mean, *std))) > 2:
        way_out = "divide them by 255"
        faults.append(Fault(f"{prefix}mean", "must be of pixels scaled to [0, 1]", [list(mean), list(std)], way_out))
    return faults
