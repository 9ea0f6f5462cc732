"""A sweep from a notebook or a script: what ``raydistill sweep`` does, without its printing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.sweep.file.load import Overrides, load_sweep

if TYPE_CHECKING:
    from raydistill.sweep.record.observer import Observer
    from raydistill.sweep.run import Outcome


def run_sweep(
    space: str | Path,
    storage: str | Path = "sweeps",
    *,
    resume: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    **overrides: Any,
) -> Outcome:
    """Run or resume a sweep and return how it ended: its records by trial id, and the rows of its front.

    space: a sweep file. storage: a folder or a URI. address: of a Ray cluster; None: this machine. observer: told of
    each trial as it goes (see `raydistill.sweep.record.observer.Observer`). overrides: what stands above the file:
    name, num_samples, epochs, seed, dataset, data_dir, tracking_uri, cpu.

    Raises:
        RaydistillError: whatever the user can mend; the sweep can be resumed if it had started.
    """
    known = Overrides.__dataclass_fields__
    wrong = [name for name in overrides if name not in known]
    if wrong:
        raise ConfigError(*(Fault("run_sweep", "no such argument", name, close_match(name, known)) for name in wrong))
    loaded = load_sweep(space, Overrides(**overrides))
    from raydistill.cluster.address import choose
    from raydistill.sweep.run import run_sweep as run  # imports Ray

    cluster = choose(address, None) if address is not None else None
    return run(loaded, storage, resume=resume, address=cluster, observer=observer)
