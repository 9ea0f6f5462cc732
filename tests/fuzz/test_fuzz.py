"""Whatever is in a file: a line of ours or a result, within 5 seconds of CPU and 2 GiB of memory.

``pytest tests/fuzz --fuzz 100000`` tries so many files in all; a thousand without it. What failed once stands in
``examples`` and is tried first.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from PIL import Image
from torch import nn

from raydistill import compression, models
from raydistill.compression import build
from raydistill.compression.timeline import timeline
from raydistill.datasets.decode import decode_image
from raydistill.errors import RaydistillError
from raydistill.schedule import load_schedule
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.record.journal import parse_journal
from raydistill.tasks.classification import ImageShape
from raydistill.training import load_model, read_history
from raydistill.training.distiller_checkpoint import read_any
from tests.fuzz.mutate import damaged, mutated

EXAMPLES = DirectoryBasedExampleDatabase(Path(__file__).with_name("examples"))
QUICK = 1000
MOST_S, MOST_BYTES = 5.0, 2 * 1024**3
SHARES = {"schedules": 0.3, "spaces": 0.1, "yaml": 0.1, "checkpoints": 0.2, "journals": 0.15, "images": 0.15}


def fuzzed(kind: str, strategy: Any) -> Callable[[Any], Any]:
    """A test of its share of all files, each within the limits."""

    def decorate(function: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("kind", [kind])
        def test(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
            asked = request.config.getoption("--fuzz")
            common = {"deadline": None, "suppress_health_check": list(HealthCheck)}
            before = settings(**common, database=EXAMPLES, phases=[Phase.reuse, Phase.shrink])
            # The same files in every quick run: a new fault is to be found by who looks for it.
            anew = settings(
                **common, max_examples=max(1, round(asked * SHARES[kind])), phases=[Phase.generate, Phase.shrink],
                **({"derandomize": True, "database": None} if asked == QUICK else {"database": EXAMPLES}),
            )  # fmt: skip

            def each(content: Any) -> None:
                with limited():
                    function(tmp_path, content)

            with contextlib.suppress(unittest.SkipTest, pytest.skip.Exception):  # where nothing is kept yet
                before(given(strategy)(each))()
            anew(given(strategy)(each))()

        test.__name__ = function.__name__
        test.__doc__ = function.__doc__
        return test

    return decorate


@contextmanager
def limited() -> Iterator[None]:
    """Only a user's mistake may be raised, and none may cost more than its file explains."""
    begun, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    except RaydistillError as error:
        told = str(error).encode().decode()
        if told.count("\n") >= len(error.faults):
            pytest.fail(f"more than a line a fault: {told!r}")
    assert time.thread_time() - begun < MOST_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


class Small(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 8, 3), nn.Linear(8, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv2(self.norm(self.conv(images)).relu()).relu().mean((2, 3)))


W = ["conv.weight", "conv2.weight"]
PRUNERS: list[dict[str, Any]] = [
    {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": ["fc.weight"]},
    {"class": "SparsityLevelParameterPruner", "levels": {"conv.weight": 0.5, "*": 0.2}},
    {"class": "MagnitudeParameterPruner", "thresholds": {"*": 0.01}},
    {"class": "SensitivityPruner", "sensitivities": {"fc.weight": 0.5}},
    {"class": "SplicingPruner", "sensitivities": {"fc.weight": 0.5}, "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1},
    {"class": "StructureParameterPruner", "threshold_criteria": "Mean_Abs",
     "reg_regims": {"conv.weight": [0.01, "Filters"]}},
    {"class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5, "weights": W},
    {"class": "L1RankedStructureParameterPruner_AGP", "group_type": "Channels", "initial_sparsity": 0.1,
     "final_sparsity": 0.5, "weights": ["conv2.weight"], "group_dependency": "Leader"},
    {"class": "ActivationAPoZRankedFilterPruner", "group_type": "Filters", "desired_sparsity": 0.5, "weights": W},
    {"class": "GradientRankedFilterPruner", "group_type": "Filters", "desired_sparsity": 0.5, "weights": W},
    {"class": "BernoulliFilterPruner", "group_type": "Filters", "desired_sparsity": 0.5, "weights": W},
    {"class": "FMReconstructionChannelPruner", "group_type": "Channels", "desired_sparsity": 0.5,
     "weights": ["conv2.weight"]},
    {"class": "RankedPruner", "ranking": "bn_scale", "granularity": "Filters", "final_sparsity": 0.5, "weights": W[:1]},
    {"class": "NMPruner", "n": 2, "m": 4, "weights": ["fc.weight"]},
    {"class": "LotteryTicketPruner", "weights": ["fc.weight"], "fraction": 0.3},
    {"class": "BaiduRNNPruner", "q": 0.01, "ramp_epoch_offset": 1, "ramp_slope_mult": 1.5, "weights": ["fc.weight"]},
]  # fmt: skip
LRS: list[dict[str, Any]] = [
    {"class": "StepLR", "step_size": 1, "gamma": 0.5},
    {"class": "MultiStepLR", "milestones": [1, 2]},
    {"class": "MultiStepMultiGammaLR", "milestones": [1, 2], "gammas": [0.5, 0.1]},
    {"class": "CosineAnnealingLR", "T_max": 3},
    {"class": "PolynomialLR", "T_max": 3, "power": 2},
    {"class": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1},
    {"class": "OneCycleLR", "max_lr": 0.1, "total_steps": 9},
    {"class": "ReduceLROnPlateau", "patience": 1},
    {"class": "SequentialLR", "milestones": [1], "schedulers": [{"class": "ConstantLR"}, {"class": "LinearLR"}]},
    {"class": "CosineAnnealingWarmRestarts", "T_0": 2},
]
CONTROLS: list[dict[str, Any]] = [
    {}, {"mask_on_forward_only": True, "keep_mask": True}, {"mini_batch_pruning_frequency": 1},
    {"use_double_copies": True}, {"fold_batchnorm": True}, {"evidence_minibatches": 1},
    {"discard_masks_at_minibatch_end": True, "mask_on_forward_only": True},
]  # fmt: skip


def schedules() -> list[dict[str, Any]]:
    found = []
    for index, pruner in enumerate(PRUNERS):
        found.append(
            {
                "version": 1,
                "pruners": {"p": pruner},
                "regularizers": {"r": {"class": ("L1Regularizer", "GroupLassoRegularizer")[index % 2],
                                       "reg_regims": {"conv.weight": [0.01, "Filters"][index % 2 - 1 :]
                                                      if index % 2 else 0.01}}},
                "lr_schedulers": {"lr": LRS[index % len(LRS)]},
                "extensions": {"thin": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
                "policies": [
                    {"pruner": {"instance_name": "p", "args": dict(CONTROLS[index % len(CONTROLS)])},
                     "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
                    {"regularizer": {"instance_name": "r"}, "epochs": [0, 1]},
                    {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
                    {"extension": {"instance_name": "thin"}, "epochs": [2]},
                ],
            }
        )  # fmt: skip
    return found


SCHEDULES = schedules()
WORDS = [
    *compression.pruners.MENU, *compression.lr_schedulers.MENU, *compression.regularizers.MENU, "WRPNQuantizer",
    "pruners", "policies", "epochs", "weights", "levels", "class", "instance_name", "starting_epoch", "ending_epoch",
    "frequency", "final_sparsity", "desired_sparsity", "group_type", "Filters", "Rows", "conv.weight", "fc.weight",
    "norm.weight", "nothing.weight", "p", "lr", "r", "thin", "args", "version", "search", "choice", "uniform", "top1",
]  # fmt: skip


def run(path: Path) -> None:
    """Three epochs of the schedule on a small model."""
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = build(load_schedule(path), model, optimizer, (torch.randn(2, 3, 8, 8),), strict=False)
    timeline(scheduler)
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        for index in range(2):
            scheduler.on_minibatch_begin(epoch, index, 2)
            loss = scheduler.before_backward(epoch, index, 2, model(torch.randn(4, 3, 8, 8)).square().mean())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, 2)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, 2)
        scheduler.on_epoch_end(epoch, loss=1.0, top1=0.5)
    scheduler.load_state_dict(scheduler.state_dict())


def write_yaml(path: Path, mapping: Any) -> Path:
    text = yaml.safe_dump(mapping, allow_unicode=True, sort_keys=False)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(SCHEDULES)))
def test_the_schedules_that_it_starts_from_are_right(tmp_path: Path, index: int) -> None:
    run(write_yaml(tmp_path / "s.yaml", SCHEDULES[index]))


@pytest.mark.slow
@fuzzed("schedules", mutated(SCHEDULES, WORDS))
def test_schedules(tmp_path: Path, mapping: Any) -> None:
    run(write_yaml(tmp_path / "s.yaml", mapping))


@pytest.mark.slow
@fuzzed("yaml", damaged([yaml.safe_dump(s).encode() for s in SCHEDULES]))
def test_yaml_byte_by_byte(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.yaml").write_bytes(content)
    run(tmp_path / "s.yaml")


SPACES: list[dict[str, Any]] = [
    {
        "version": 1, "name": "s", "model": {"arch": f"{__name__}:Small"}, "dataset": {"name": "digits"},
        "training": {"epochs": 3, "lr": 0.05, "batch_size": 64},
        "baseline": {"epochs": 2, "lr": 0.1, "schedule": {
            "lr_schedulers": {"d": LRS[3]},
            "policies": [{"lr_scheduler": {"instance_name": "d"}, "starting_epoch": 0, "ending_epoch": 2,
                          "frequency": 1}]}},
        "schedule": {key: SCHEDULES[0][key] for key in ("pruners", "lr_schedulers")} | {
            "policies": [SCHEDULES[0]["policies"][0], SCHEDULES[0]["policies"][2]]},
        "search": {"training.lr": {"loguniform": [0.01, 0.1]}, "policies.p.frequency": {"choice": [1, 2]},
                   "per_layer": {"weights": ["fc*"], "final_sparsity": {"uniform": [0.3, 0.9]}}},
        "objectives": {"top1": "max", "sparsity": "max"}, "constraints": ["top1_drop <= 0.1", "macs <= 100000"],
        "searcher": {"name": "sobol"}, "trial_scheduler": {"name": "hyperband"}, "num_samples": 4, "seed": 1,
        "resources_per_trial": {"gpu": 0, "cpu": 1}, "confirm": {"seeds": 2},
    },
    {
        "version": 1, "name": "s", "model": {"arch": f"{__name__}:Small", "args": {}},
        "dataset": {"name": "cifar10", "fallback": "digits", "augment": "none"}, "training": {"epochs": 2},
        "schedule": SCHEDULES[6] | {"policies": SCHEDULES[6]["policies"][:1] + SCHEDULES[6]["policies"][2:3]},
        "search": {"pruners.p.desired_sparsity": {"quniform": [0.1, 0.9, 0.1]}},
        "searcher": {"name": "grid"}, "trial_scheduler": {"name": "asha", "mode": "stop", "reduction_factor": 2},
        "num_samples": 3, "distillation": {"teacher": "baseline"},
    },
]  # fmt: skip


def plan(path: Path) -> None:
    sweep = load_sweep(path)
    plan_sweep(sweep, ImageShape(10, (3, 8, 8)))


@pytest.mark.slow
@fuzzed("spaces", mutated(SPACES, WORDS))
def test_spaces(tmp_path: Path, mapping: Any) -> None:
    plan(write_yaml(tmp_path / "space.yaml", mapping))


def checkpoints() -> list[bytes]:
    torch.manual_seed(0)
    model = models.create("simplenet_cifar", 3)
    state = {name: value[..., :1] if value.dim() == 4 else value[:2] for name, value in model.state_dict().items()}
    content = {
        "run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 3, "model": state, "epoch": 0,
        "scheduler": {"masks": {"fc1.weight": torch.ones(2, 4, dtype=torch.bool)}, "policies": []}, "rng": None,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}, "precision": "fp32",
        "history": [{"epoch": 0, "top1": 0.5}], "mean": [0.5], "std": [0.2], "image_shape": [3, 32, 32],
    }  # fmt: skip
    old = io.BytesIO()
    torch.save({"format": 1, **content}, old, _use_new_zipfile_serialization=False)
    distillers = io.BytesIO()
    torch.save({"epoch": 1, "arch": "simplenet_cifar", "state_dict": state}, distillers)
    buffer = io.BytesIO()
    torch.save({"format": 1, **content}, buffer)
    return [buffer.getvalue(), old.getvalue(), distillers.getvalue()]


@pytest.mark.slow
@fuzzed("checkpoints", damaged(checkpoints()))
def test_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    for read in (load_model, read_history, read_any):
        with limited():
            read(path)


def journal() -> bytes:
    metrics = {
        "epoch": 0, "epochs": 2, "train_loss": 1.0, "loss": 1.0, "top1": 0.5, "top5": 0.9, "learning_rate": 0.1,
        "sparsity": 0.5, "layer_sparsity": {"fc.weight": 0.5}, "images_per_second": 10.0, "seconds": 1.0,
        "timestamp_ms": 1, "checkpoint": "c.pt",
    }  # fmt: skip
    record = {
        "trial_id": "t0000", "values": {"training.lr": 0.1}, "state": "running", "reason": "", "arch": "a",
        "dataset": "d", "seed": 1, "epochs": 2, "last": None, "checkpoint": None, "started_ms": 1, "ended_ms": None,
        "schedule_text": "",
    }  # fmt: skip
    evaluation = {"split": "test", "top1": 0.5, "top5": 0.9, "loss": 1.0, "images": 10, "exits": {}}
    events: list[dict[str, Any]] = [
        {"event": "sweep_started", "format": 1, "sweep_id": "x", "config": {}},
        {"event": "trial_started", "record": record},
        {"event": "epoch", "trial_id": "t0000", "metrics": metrics},
        {"event": "trial_paused", "trial_id": "t0000", "reason": "rung"},
        {"event": "trial_ended", "trial_id": "t0000", "state": "finished", "reason": ""},
        {"event": "tested", "trial_id": "t0000", "evaluation": evaluation},
    ]
    return b"".join(json.dumps({"time_ms": 1, **event}).encode() + b"\n" for event in events)


def test_the_journal_that_it_starts_from_is_right() -> None:
    history = parse_journal(journal(), "journal.jsonl", "s")
    assert history.records["t0000"].state == "finished"


@pytest.mark.slow
@fuzzed("journals", damaged([journal(), b'{"event": ' + b"[" * 100_000 + b"\n"]))
def test_journals(tmp_path: Path, content: bytes) -> None:
    parse_journal(content, "journal.jsonl", "s")


def images() -> list[bytes]:
    found = []
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    for form, mode in (
        ("JPEG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("GIF", "P"), ("TIFF", "F"), ("BMP", "L"),
        ("WEBP", "RGB"), ("PPM", "RGB"), ("EPS", "RGB"),
    ):  # fmt: skip
        picture = Image.fromarray(pixels)
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, form)
        found.append(buffer.getvalue())
    return found


@pytest.mark.slow
@fuzzed("images", damaged(images()))
def test_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    pixels = decode_image(str(path), None, False)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
