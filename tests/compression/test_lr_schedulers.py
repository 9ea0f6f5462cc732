from __future__ import annotations

import copy
import importlib
import inspect
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from raydistill.compression import build
from raydistill.compression.lr_schedulers import MENU
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule

WARM_UP = {"class": "LinearLR", "start_factor": 0.1, "total_iters": 3}
DECAY = {"class": "ExponentialLR", "gamma": 0.5}
# Every class, the arguments a file would give it, and the rates of ten epochs (None: those of torch's own, stepped).
CASES: dict[str, tuple[dict, list[float] | None]] = {
    "LambdaLR": ({"lr_lambda": f"{__name__}:third"}, [1 / (1 + t / 3) for t in range(10)]),
    "MultiplicativeLR": ({"lr_lambda": f"{__name__}:half"}, [0.5**t for t in range(10)]),
    "StepLR": ({"step_size": 4, "gamma": 0.1}, [1.0] * 4 + [0.1] * 4 + [0.01] * 2),
    "MultiStepLR": ({"milestones": [2, 5], "gamma": 0.5}, [1.0] * 2 + [0.5] * 3 + [0.25] * 5),
    "MultiStepMultiGammaLR": ({"milestones": [2, 5, 5], "gammas": [0.5, 2, 0.1]}, [1.0] * 2 + [0.5] * 3 + [0.1] * 5),
    "ConstantLR": ({"factor": 0.5, "total_iters": 4}, [0.5] * 4 + [1.0] * 6),
    "LinearLR": ({"start_factor": 0.2, "total_iters": 4}, [0.2, 0.4, 0.6, 0.8] + [1.0] * 6),
    "ExponentialLR": ({"gamma": 0.9}, [0.9**t for t in range(10)]),
    "SequentialLR": (
        {"schedulers": [WARM_UP, DECAY], "milestones": [3]},
        [0.1, 0.4, 0.7] + [0.5**t for t in range(7)],
    ),
    "PolynomialLR": ({"T_max": 5, "power": 2}, [1, 0.64, 0.36, 0.16, 0.04] + [0.0] * 5),
    "CosineAnnealingLR": ({"T_max": 9}, [(1 + math.cos(math.pi * t / 9)) / 2 for t in range(10)]),
    "ChainedScheduler": (
        {"schedulers": [{"class": "ConstantLR", "factor": 0.1, "total_iters": 4}, {**DECAY, "gamma": 0.9}]},
        [(0.1 if t < 4 else 1.0) * 0.9**t for t in range(10)],
    ),
    "ReduceLROnPlateau": ({"patience": 1, "factor": 0.1}, [1.0] * 3 + [0.1] * 2 + [0.01] * 2 + [1e-3] * 2 + [1e-4]),
    "CyclicLR": (
        {"base_lr": 0.2, "max_lr": 1.0, "step_size_up": 2, "scale_fn": f"{__name__}:inverse"},
        [0.2, 0.6, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4, 0.2, 0.2 + 0.8 / 6],
    ),
    "CosineAnnealingWarmRestarts": (
        {"T_0": 2, "T_mult": 2},
        [1, 0.5] + [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)] + [1.0] + [
            (1 + math.cos(math.pi * t / 8)) / 2 for t in range(1, 4)
        ],
    ),
    "OneCycleLR": ({"max_lr": 1.0, "total_steps": 10}, None),
}  # fmt: skip


def third(epoch: int) -> float:
    return 1 / (1 + epoch / 3)


def half(epoch: int) -> float:
    return 0.5


def inverse(cycle: int) -> float:
    return 1 / cycle


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above are found under this file's name, as a user's are under their module's."""
    module = inspect.getmodule(third)
    assert module is not None
    monkeypatch.setitem(sys.modules, __name__, module)
    assert importlib.import_module(__name__) is module


def sgd() -> SGD:
    return SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0, momentum=0.9)


def schedule(name: str, arguments: dict, start: int = 0, frequency: int = 1) -> dict:
    return {
        "lr_schedulers": {"lr": {"class": name, **copy.deepcopy(arguments)}},
        "policies": [
            {
                "lr_scheduler": {"instance_name": "lr"},
                "starting_epoch": start,
                "ending_epoch": arguments.get("total_steps", 90),  # OneCycleLR has no rate past it
                "frequency": frequency,
            }
        ],
    }


def rates(mapping: dict, epochs: int, resume_at: int | None = None) -> list[float]:
    """Rates in force in each epoch of a run whose validation loss never improves; resume_at: saved and built anew."""
    model, optimizer = torch.nn.Linear(2, 2), sgd()
    scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
    seen = []
    for epoch in range(epochs):
        if epoch == resume_at:
            buffer = io.BytesIO()
            torch.save([scheduler.state_dict(), optimizer.state_dict()], buffer)
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
            optimizer = sgd()
            scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
            scheduler.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        scheduler.on_epoch_begin(epoch)
        seen.append(float(optimizer.param_groups[0]["lr"]))
        scheduler.on_epoch_end(epoch, loss=1.0, top1=0.5)
    return seen


def test_the_menu_has_every_class_of_torch() -> None:
    torchs = {
        name
        for name, cls in vars(lr_scheduler).items()
        if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert set(MENU) == (torchs - {"LRScheduler"}) | {"MultiStepMultiGammaLR"}
    assert set(MENU) <= set(CASES), "a case is missing"


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_class_is_built_by_name_and_gives_its_rates(name: str) -> None:
    arguments, expected = CASES[name]
    if expected is None:
        optimizer = sgd()
        own = getattr(lr_scheduler, name)(optimizer, **arguments)
        expected = []
        for _ in range(10):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            own.step()
    assert rates(schedule(name, arguments), 10) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_resumed_run_has_the_rates_of_one_never_interrupted(name: str) -> None:
    mapping = schedule(name, CASES[name][0])
    whole = rates(mapping, 10)
    assert [rates(mapping, 10, resume_at=at) for at in (1, 3, 6)] == [whole] * 3


def test_rates_agree_with_what_distiller_computes(compat: Path) -> None:
    cases = json.loads((compat / "oracles" / "cases.json").read_text())["learning_rates"]
    assert len(cases) == 2
    for case in cases:
        assert rates(schedule(case["class"], case["args"]), len(case["lr"])) == case["lr"]


@pytest.mark.parametrize("name", ["MultiStepMultiGammaLR", "PolynomialLR", "SequentialLR", "ChainedScheduler"])
@pytest.mark.parametrize(("start", "frequency"), [(4, 1), (1, 2)])
def test_epochs_are_those_of_the_run(name: str, start: int, frequency: int) -> None:
    arguments, expected = CASES[name]
    assert expected is not None
    seen = rates(schedule(name, arguments, start, frequency), 10)
    # stepped at the end of epoch t, the rate of epoch t + 1 is the one of a policy that was there from the start
    for epoch in range(start, 9, frequency):
        assert seen[epoch + 1] == pytest.approx(expected[epoch + 1])


def test_polynomial_takes_torchs_spelling_too_and_one_only() -> None:
    torchs = rates(schedule("PolynomialLR", {"total_iters": 5, "power": 2}), 10)
    assert torchs == rates(schedule("PolynomialLR", {"T_max": 5, "power": 2}), 10)
    optimizer = sgd()
    own = lr_scheduler.PolynomialLR(optimizer, total_iters=5, power=2)
    for expected in torchs:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        optimizer.step()
        own.step()


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("MultiStepMultiGammaLR", {"milestones": [3, 2], "gammas": [1, 1]}, "lr.milestones: must ascend, got [3, 2]"),
        ("MultiStepMultiGammaLR", {"milestones": [3], "gammas": []}, "lr.gammas: must be one for each of the 1 mile"),
        ("MultiStepMultiGammaLR", {"milestones": 3, "gammas": [1]}, "lr.milestones: must be a list of numbers, got 3"),
        (
            "MultiStepMultiGammaLR",
            {"milestones": [], "gammas": [], "gama": 1},
            "unknown argument; did you mean 'gammas'",
        ),
        ("PolynomialLR", {"power": 2}, "lr.T_max: must be given, as T_max or as total_iters and not both"),
        ("PolynomialLR", {"T_max": 2, "total_iters": 2}, "and not both, got [2, 2]"),
        ("PolynomialLR", {"T_max": 0}, "lr.T_max: must be above 0, got 0"),
        ("LambdaLR", {"lr_lambda": "lambda t: 1"}, "lr.lr_lambda: cannot import function"),
        ("LambdaLR", {"lr_lambda": 0.5}, "lr.lr_lambda: must name a function, got 0.5; spell it 'pkg.mod:function'"),
        ("MultiplicativeLR", {"lr_lambda": "math:pi"}, "lr.lr_lambda: is not a function, got 'math:pi'"),
        ("LambdaLR", {"lr_lambda": ["math:sqrt", "sqrt"]}, "lr.lr_lambda[1]: must name a function, got 'sqrt'"),
        ("CyclicLR", {"base_lr": 0, "max_lr": 1, "scale_fn": "half"}, "lr.scale_fn: must name a function"),
        ("SequentialLR", {"schedulers": [], "milestones": []}, "lr.schedulers: must be a list of schedulers"),
        ("SequentialLR", {"schedulers": [WARM_UP], "milestones": [1]}, "ValueError: Sequential Schedulers expects"),
        ("ChainedScheduler", {"schedulers": ["StepLR"]}, "lr.schedulers[0]: must be a mapping with 'class'"),
        ("ChainedScheduler", {"schedulers": [{"class": "StepLr"}]}, "lr.schedulers[0].class: unknown LR scheduler"),
        ("ChainedScheduler", {"schedulers": [{**DECAY, "gama": 1}]}, "schedulers[0].gama: unknown argument; did you"),
        ("ChainedScheduler", {"schedulers": [{"class": "StepLR"}]}, "lr.schedulers[0]: StepLR refuses its arguments"),
        ("ChainedScheduler", {"schedulers": [{"class": "ReduceLROnPlateau"}]}, "needs a metric and cannot be nested"),
        (
            "SequentialLR",
            {"schedulers": [DECAY, {"class": "PolynomialLR", "T_max": -1}], "milestones": [1]},
            "lr.schedulers[1].T_max: must be above 0, got -1",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name: str, arguments: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(parse_schedule(schedule(name, arguments), "s.yaml"), torch.nn.Linear(2, 2), sgd())
    assert says in str(caught.value)
    assert str(caught.value).startswith("s.yaml: lr_schedulers.lr")
    assert "\n" not in str(caught.value)


def test_one_cycle_is_over_with_a_way_out() -> None:
    mapping = schedule("OneCycleLR", {"max_lr": 1.0, "total_steps": 4})
    mapping["policies"][0]["ending_epoch"] = 5
    with pytest.raises(ConfigError, match="OneCycleLR: has no rate past total_steps, got 5; end its policy by epoch 4"):
        rates(mapping, 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"class": "CosineAnnealingLR", "T_max": 0}, "fails at the end of epoch 0 (ZeroDivisionError"),
        ({"class": "StepLR", "step_size": 0}, "fails at the end of epoch 0"),
        ({"class": "StepLR", "step_size": 1.5}, "lr.step_size: must be a whole number, got 1.5"),
        ({"class": "ExponentialLR", "gamma": float("nan")}, "lr.gamma: must be finite, got nan"),
        ({"class": "ExponentialLR", "gamma": float("inf")}, "lr.gamma: must be finite, got inf"),
        ({"class": "ExponentialLR", "gamma": "0.1"}, "lr.gamma: must be a number, got '0.1'"),
        ({"class": "ExponentialLR", "gamma": [0.1]}, "lr.gamma: must be one value, got [0.1]"),
        ({"class": "ExponentialLR", "gamma": {"a": 1}}, "lr.gamma: may not be a mapping"),
        ({"class": "ExponentialLR", "gamma": 10**400}, "lr.gamma: must be finite"),
        ({"class": "ExponentialLR", "gamma": -0.5}, "makes the learning rate -0.05 at the end of epoch 0"),
        ({"class": "ExponentialLR", "gamma": 1e300}, "makes the learning rate 1e+299 at the end of epoch 0"),
        ({"class": "MultiStepLR", "milestones": [4, 2]}, "lr.milestones: must ascend, got [4, 2]"),
        ({"class": "MultiStepLR", "milestones": ["2"]}, "lr.milestones: must ascend"),
        ({"class": "MultiStepLR", "milestones": 3}, "TypeError"),
        ({"class": "PolynomialLR", "total_iters": 0}, "must be above 0"),
        ({"class": "CosineAnnealingWarmRestarts", "T_0": 0}, "T_0"),
        ({"class": "ReduceLROnPlateau", "mode": "least"}, "mode least is unknown"),
        ({"class": "ReduceLROnPlateau", "factor": float("nan")}, "lr.factor: must be finite"),
    ],
)
def test_arguments_that_would_fail_at_the_end_of_an_epoch_are_refused_at_load(
    arguments: dict[str, Any], says: str
) -> None:
    mapping = {
        "lr_schedulers": {"lr": arguments},
        "policies": [{"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 5, "frequency": 1}],
    }
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError) as caught:
        build(parse_schedule(mapping, "s.yaml"), model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"class": "CosineAnnealingLR", "T_max": 4, "eta_min": 0},
        {"class": "OneCycleLR", "max_lr": [0.5], "total_steps": 6},
        {"class": "ReduceLROnPlateau", "mode": "max", "patience": 1, "threshold_mode": "abs"},
        {"class": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "mode": "triangular2"},
        {"class": "MultiStepLR", "milestones": [2, 4]},
        {"class": "LinearLR", "total_iters": 3},
    ],
)
def test_the_rehearsal_leaves_no_trace(arguments: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizers = [torch.optim.SGD([weight], lr=0.1, momentum=0.9) for _ in range(2)]
    mapping = {
        "lr_schedulers": {"lr": dict(arguments)},
        "policies": [{"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 5, "frequency": 1}],
    }
    model = torch.nn.Module()
    model.weight = weight
    build(parse_schedule(mapping, "s.yaml"), model, optimizers[0])
    cls = getattr(torch.optim.lr_scheduler, arguments.pop("class"))
    cls(optimizers[1], **arguments)
    assert optimizers[0].state_dict() == optimizers[1].state_dict()
