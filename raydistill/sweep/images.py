"""The images of a sweep, prepared as the weights that its baseline begins with want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from raydistill.datasets import Dataset, Preprocessing
from raydistill.sweep.load import Sweep
from raydistill.sweep.plan import baseline_config
from raydistill.training.preprocessing import difference, images_of, of_run


def sweep_images(sweep: Sweep) -> tuple[Dataset, Preprocessing, tuple[str, ...]]:
    """(the dataset, what every trial's network sees of it, lines for the user).

    Raises:
        ConfigError, DataError, CheckpointError: the images or the baseline's weights cannot be had.
    """
    run, given = baseline_config(sweep), sweep.sections.baseline.checkpoint
    if given is not None and Path(given).is_file():  # a resumed sweep has its own copy
        run = replace(run, init_from=given)
    wanted = of_run(run)
    dataset = images_of(run, wanted)
    lines = (dataset.warning, difference(wanted, dataset))
    return dataset, wanted or dataset.preprocessing, tuple(line for line in lines if line)
