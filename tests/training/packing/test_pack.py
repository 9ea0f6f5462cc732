"""Trials that are trained as one network, each held against the same trial by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError, TrainingError
from raydistill.parts import Optimizer
from raydistill.records import EpochMetrics
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import Distillation, OwnLoop, RunConfig, fit, read_history
from raydistill.training.packing import Pack, fit_packed

pytestmark = pytest.mark.slow

NETS = "tests.training.packing.nets:"
CONFIG = RunConfig(
    arch=f"{NETS}tiny",
    dataset=DatasetConfig("digits"),
    epochs=3,
    lr=0.05,
    batch_size=64,
    deterministic=True,
    threads=1,
    tensorboard=False,
    effective_train_size=0.15,
    effective_valid_size=0.3,
)


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


def schedule(level: float = 0.8, frequency: int = 1, **more: Any) -> ScheduleSpec:
    """AGP of two layers from 0.1 on, and a rate that falls."""
    pruner = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.1,
        "final_sparsity": level,
        "weights": ["conv2.weight", "fc1.weight"],
    }
    policies = [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": frequency},
        {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1},
    ]
    mapping: dict[str, Any] = {"pruners": {"agp": pruner}}
    mapping["lr_schedulers"] = {"lr": {"class": "ExponentialLR", "gamma": 0.9}}
    for section, (name, body, when) in more.items():
        mapping[section] = {**mapping.get(section, {}), name: body}
        policies.append({section.removesuffix("s"): {"instance_name": name}, **when})
    return parse_schedule({**mapping, "policies": policies}, "s.yaml")


def content(folder: str | Path | None) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path(str(folder)) / "checkpoint.pt", weights_only=True)
    return found


def apart(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of two states."""
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def assert_as_alone(packed: RunConfig, task: Classification, folder: Path, close: float = 1e-9) -> None:
    """What a run has left is what the same run by itself leaves in `folder`."""
    alone = list(fit(replace(packed, out_dir=str(folder)), task=task))
    ours, theirs = content(packed.out_dir), content(folder)
    assert apart(ours["model"], theirs["model"]) <= close
    assert ours["scheduler"]["masks"].keys() == theirs["scheduler"]["masks"].keys()
    for name, mask in ours["scheduler"]["masks"].items():
        assert torch.equal(mask, theirs["scheduler"]["masks"][name]), name
    assert torch.equal(ours["rng"]["torch"], theirs["rng"]["torch"])
    history = read_history(Path(str(packed.out_dir)) / "checkpoint.pt")
    assert [(m.epoch, m.learning_rate, m.sparsity) for m in history] == [
        (m.epoch, m.learning_rate, m.sparsity) for m in alone
    ]
    for ours_then, theirs_then in zip(history, alone, strict=True):
        assert ours_then.train_loss == pytest.approx(theirs_then.train_loss, rel=1e-5)
        assert ours_then.metrics == pytest.approx(theirs_then.metrics, rel=1e-5)


def runs(tmp_path: Path, *changes: Mapping[str, Any], **common: Any) -> list[RunConfig]:
    return [
        replace(CONFIG, **{"schedule": schedule(), **common, **change}, out_dir=str(tmp_path / f"packed{k}"))
        for k, change in enumerate(changes)
    ]


def all_of(outcomes: Iterator[tuple[int, EpochMetrics | Exception]], number: int) -> list[EpochMetrics | Exception]:
    return [outcome for key, outcome in outcomes if key == number]


@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    trials=st.lists(
        st.tuples(
            st.floats(0.001, 0.2), st.floats(0.0, 1e-2), st.floats(0.2, 0.95), st.integers(1, 3), st.integers(1, 3)
        ),
        min_size=2,
        max_size=3,
    )
)
def test_each_of_a_pack_is_what_it_is_by_itself(
    trials: Sequence[tuple[float, float, float, int, int]], task: Classification, tmp_path_factory: Any
) -> None:
    """Whatever their rates, decays, levels, frequencies and epochs are."""
    folder = tmp_path_factory.mktemp("pack")
    configs = runs(
        folder,
        *(
            {"lr": lr, "weight_decay": decay, "schedule": schedule(level, frequency), "epochs": epochs}
            for lr, decay, level, frequency, epochs in trials
        ),
    )
    outcomes = list(fit_packed(configs, task))
    assert sorted(number for number, _ in outcomes) == sorted(k for k, c in enumerate(configs) for _ in range(c.epochs))
    for k, config in enumerate(configs):
        assert_as_alone(config, task, folder / f"alone{k}")


OPTIONS = {
    "adamw": {"optimizer": Optimizer(name="AdamW", lr=1e-3)},
    "average": {"optimizer": Optimizer(ema=0.9)},
    "accumulated": {"optimizer": Optimizer(accumulate=2, clip_norm=0.5, warmup_epochs=1)},
    "nesterov": {"nesterov": True, "momentum": 0.8},
    "mapped": {"arch": f"{NETS}mixing"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_it_is_trained_with(name: str, task: Classification, tmp_path: Path) -> None:
    lines: list[str] = []
    configs = runs(tmp_path, {"lr": 0.05}, {"lr": 0.02}, epochs=2)
    changed = OPTIONS[name]
    rates = [{} if "optimizer" in changed and name == "adamw" else {"lr": config.lr} for config in configs]
    configs = [
        replace(config, lr=RunConfig("x").lr, **{**changed, **rate}) if not rate else replace(config, **changed)
        for config, rate in zip(configs, rates, strict=True)
    ]
    with Pack(task, lines.append) as pack:
        for k, config in enumerate(configs):
            pack.add(k, config)
        for _ in range(2):
            assert not any(isinstance(outcome, Exception) for _, outcome in pack.epoch())
        assert len(pack) == 0
    assert lines == []
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}")


def test_policies_that_add_to_the_loss_and_that_draw_at_random(task: Classification, tmp_path: Path) -> None:
    every = {"starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    lasso = ("lasso", {"class": "L1Regularizer", "reg_regims": {"fc2.weight": 0.01}}, every)
    ranked = {"class": "RankedPruner", "rate": "one_shot", "final_sparsity": 0.5, "weights": ["conv1.weight"]}
    chance = ("chance", {**ranked, "ranking": "random", "granularity": "Filters"}, every)
    configs = runs(
        tmp_path, {"schedule": schedule(regularizers=lasso)}, {"schedule": schedule(pruners=chance)}, {"lr": 0.01}
    )
    assert not any(isinstance(outcome, Exception) for _, outcome in fit_packed(configs, task))
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}")


def test_what_is_not_finite_in_one_leaves_the_others_bit_for_bit_alone(task: Classification, tmp_path: Path) -> None:
    steady = runs(tmp_path / "steady", {"lr": 0.05}, {"lr": 0.01}, {"lr": 0.02})
    broken = runs(tmp_path / "broken", {"lr": 0.05}, {"lr": 1e38}, {"lr": 0.02})
    assert not any(isinstance(outcome, Exception) for _, outcome in fit_packed(steady, task))
    outcomes = list(fit_packed(broken, task))
    failed = all_of(iter(outcomes), 1)[-1]
    assert isinstance(failed, TrainingError)
    assert "must be finite" in str(failed)
    assert len(all_of(iter(outcomes), 1)) <= 2
    for k in (0, 2):
        left, right = content(steady[k].out_dir)["model"], content(broken[k].out_dir)["model"]
        assert all(torch.equal(left[name], right[name]) for name in left)
        assert len(all_of(iter(outcomes), k)) == 3


def test_a_place_that_is_free_is_taken_by_the_next(task: Classification, tmp_path: Path) -> None:
    configs = runs(tmp_path, {"epochs": 1}, {"epochs": 3}, {"epochs": 2}, {"epochs": 2, "seed": 4})
    order = [number for number, _ in fit_packed(configs, task, places=2)]
    assert [sorted(order[i : i + 2]) for i in range(0, 8, 2)] == [[0, 1], [1, 2], [1, 2], [3, 3]]
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}")


def test_one_is_stopped_and_all_go_on_after_an_interruption(task: Classification, tmp_path: Path) -> None:
    configs = runs(tmp_path, {"lr": 0.05}, {"lr": 0.02}, {"lr": 0.01})
    with Pack(task) as pack:
        assert [pack.add(k, config) for k, config in enumerate(configs)] == [0, 0, 0]
        assert [key for key, _ in pack.epoch()] == [0, 1, 2]
        pack.drop(1)
        assert [key for key, _ in pack.epoch()] == [0, 2]
    torch.rand(100)  # whatever the process draws in between
    with Pack(task) as pack:
        assert [pack.add(k, config) for k, config in enumerate(configs)] == [2, 1, 2]
        assert [key for key, _ in pack.epoch()] == [0, 1, 2]
        assert pack.keys == (1,)
        assert [key for key, _ in pack.epoch()] == [1]
        assert pack.add(0, configs[0]) == 3  # all of it is trained
        assert pack.keys == ()
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}")


@pytest.mark.parametrize(
    ("arch", "why"),
    [("dropping", "it draws random numbers in training"), ("deciding", "data-dependent control flow|item|float")],
)
def test_a_network_that_cannot_be_one_of_several(arch: str, why: str, task: Classification, tmp_path: Path) -> None:
    configs = runs(tmp_path, {"lr": 0.05}, {"lr": 0.02}, arch=NETS + arch, epochs=2)
    lines: list[str] = []
    with Pack(task, lines.append) as pack:
        for k, config in enumerate(configs):
            pack.add(k, config)
        for _ in range(2):
            list(pack.epoch())
    (line,) = lines
    assert line.startswith(f"trials of {NETS}{arch} are trained one by one: ")
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}", close=0.0)


def test_what_looks_into_one_network_or_cuts_it_is_trained_by_itself(task: Classification, tmp_path: Path) -> None:
    """A ranking by activations for the epoch in which it looks, thinning from then on, a teacher always."""
    every = {"starting_epoch": 1, "ending_epoch": 2, "frequency": 1}
    looks = {"class": "RankedPruner", "rate": "one_shot", "final_sparsity": 0.5, "weights": ["conv1.weight"]}
    looks = {**looks, "ranking": "apoz", "granularity": "Filters"}
    cut = ("cut", {"class": "FilterRemover", "thinning_func_str": "remove_filters"}, every)
    teacher = runs(tmp_path / "teacher", {"epochs": 1})[0]
    list(fit(teacher, task=task))
    taught = Distillation(checkpoint=f"{teacher.out_dir}/checkpoint.pt", teacher=CONFIG.arch)
    lines: list[str] = []
    configs = runs(
        tmp_path, {"schedule": schedule(pruners=("looks", looks, every))}, {"lr": 0.02}, {"lr": 0.01},
        {"distillation": taught},
        {"schedule": schedule(pruners=("whole", {**looks, "ranking": "l1"}, every), extensions=cut)},
    )  # fmt: skip
    with Pack(task, lines.append) as pack:
        for k, config in enumerate(configs):
            pack.add(k, config)
        for _ in range(3):
            assert not any(isinstance(outcome, Exception) for _, outcome in pack.epoch())
    assert lines == ["a trial is trained by itself: its teacher watches each network by itself"]
    assert content(configs[4].out_dir)["model"]["conv1.weight"].shape == (3, 3, 3, 3)
    for k, config in enumerate(configs):
        assert_as_alone(config, task, tmp_path / f"alone{k}")


def test_a_run_that_cannot_be_begun_is_said_and_the_others_are_trained(task: Classification, tmp_path: Path) -> None:
    configs = runs(tmp_path, {}, {"train": OwnLoop("tests.training.own_loops:steps")}, {"lr": math.inf}, epochs=1)
    outcomes = dict(fit_packed(configs, task))
    assert isinstance(outcomes[1], ConfigError)
    assert "is a loop of one's own" in str(outcomes[1])
    assert isinstance(outcomes[2], ConfigError)
    assert isinstance(outcomes[0], EpochMetrics)


def test_a_checkpoint_holds_its_own_trial_only(task: Classification, tmp_path: Path) -> None:
    configs = runs(tmp_path, *({"lr": 0.01 * (k + 1)} for k in range(8)), epochs=1)
    list(fit_packed(configs, task))
    list(fit(replace(configs[0], out_dir=str(tmp_path / "alone")), task=task))
    size = (tmp_path / "alone" / "checkpoint.pt").stat().st_size
    assert all((Path(str(c.out_dir)) / "checkpoint.pt").stat().st_size <= size + 64 for c in configs)


def test_what_is_not_trained_is_taken_too(task: Classification, tmp_path: Path) -> None:
    """Of no epochs: the schedule acts once and the network is validated, each by itself."""
    configs = {index: replace(CONFIG, epochs=0, out_dir=tmp_path / str(index)) for index in range(2)}
    with Pack(task) as pack:
        for index, config in configs.items():
            assert pack.add(index, config) == 0
        found = dict(pack.epoch())
        assert not pack.keys
    for index in configs:
        metrics = found[index]
        assert isinstance(metrics, EpochMetrics)
        assert metrics.train_loss is None
        assert metrics.metrics == next(iter(fit(replace(CONFIG, epochs=0)))).metrics
