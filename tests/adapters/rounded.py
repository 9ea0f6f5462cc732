"""What a trainer as a trial must hold, whichever it is: a schedule that rounds at its end does so before validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.training import RunConfig, fit, load_model
from tests.training.own_loops import points

ROUNDED = {
    "quantizers": {"ints": {"class": "PostTrainLinearQuantizer", "bits_parameters": 3, "bits_activations": 4}},
    "policies": [{"quantizer": {"instance_name": "ints"}, "epochs": [3]}],
}


def assert_rounded_at_the_end(
    run: Callable[[Path, ScheduleSpec | None], RunConfig],
    arch: str,
    outputs: Callable[[Any, torch.Tensor], torch.Tensor],
    folder: Path,
) -> None:
    """run: of four epochs, in a folder. outputs: what a network of this arch gives."""
    rounded = list(fit(run(folder / "rounded", parse_schedule(ROUNDED, "s"))))
    plain = list(fit(run(folder / "plain", None)))
    assert [epoch.metrics for epoch in rounded[:3]] == [epoch.metrics for epoch in plain[:3]]
    assert rounded[3].metrics["mae"] != plain[3].metrics["mae"]
    network = load_model(folder / "rounded" / "checkpoint.pt", arch)
    inputs, targets = points("validation")
    with torch.no_grad():
        off = outputs(network, inputs) - targets
    assert float(off.abs().mean()) == pytest.approx(rounded[3].metrics["mae"], abs=1e-6)
