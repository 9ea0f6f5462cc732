"""A run on several ranks is the run of one process: the same weights to rounding, the same masks, the same figures."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.ranks import LostWorker, Ranks
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import StorageError, TrainingError
from raydistill.models.simplenet import SimpleNet
from raydistill.parts import Optimizer
from raydistill.records import EpochMetrics
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.feed import EvalFeed, TrainFeed
from raydistill.training import Distillation, RunConfig, fit, read_checkpoint
from tests.training.crew import Crew, crew

EVERY = {"starting_epoch": 0, "ending_epoch": 4, "frequency": 1}
FILTERS = {"initial_sparsity": 0.2, "final_sparsity": 0.5, "group_type": "Filters", "weights": ["conv2.weight"]}


def pruned(cls: str, arguments: dict[str, Any], controls: dict[str, Any] | None = None, **when: int) -> dict[str, Any]:
    policy = {"pruner": {"instance_name": "p", "args": controls or {}}, **(when or EVERY)}
    return {"pruners": {"p": {"class": cls, **arguments}}, "policies": [policy]}


AGP = pruned(
    "AutomatedGradualPruner",
    {"initial_sparsity": 0.1, "final_sparsity": 0.7, "weights": ["fc1.weight", "conv2.weight"]},
)
SCHEDULES: dict[str, dict[str, Any]] = {
    "gradients": pruned("GradientRankedFilterPruner_AGP", FILTERS, {"evidence_minibatches": 2}),
    "activations": pruned("ActivationAPoZRankedFilterPruner_AGP", FILTERS, {"evidence_minibatches": 2}),
    "chance": pruned("RandomRankedFilterPruner_AGP", FILTERS),
    "DropFilter": pruned(
        "BernoulliFilterPruner_AGP",
        FILTERS,
        {"use_double_copies": True, "mini_batch_pruning_frequency": 2, "discard_masks_at_minibatch_end": True},
    ),
    # of few weights: among tens of thousands two are so close that the order of a sum decides which of them goes
    "movement, global": pruned(
        "RankedPruner",
        {"final_sparsity": 0.6, "weights": ["fc2.weight", "fc3.weight"], "ranking": "movement", "scope": "global"},
    ),
    "SparseGPT": pruned(
        "SparseGPTPruner",
        {"levels": {"conv2.weight": 0.5, "fc2.weight": 0.7}},
        {"evidence_minibatches": 2},
        starting_epoch=0,
        ending_epoch=1,
        frequency=1,
    ),
    "lottery ticket": pruned(
        "LotteryTicketPruner",
        {"weights": ["fc1.weight"], "fraction": 0.5},
        starting_epoch=0,
        ending_epoch=4,
        frequency=2,
    ),
    "thinning, and a penalty": {
        **pruned("L1RankedStructureParameterPruner_AGP", FILTERS),
        "regularizers": {"r": {"class": "L1Regularizer", "reg_regims": {"fc1.weight": 0.001}}},
        "extensions": {"thin": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
        "policies": [
            {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
            {"extension": {"instance_name": "thin"}, "epochs": [2]},
            {"regularizer": {"instance_name": "r"}, **EVERY},
        ],
    },
    "plateau": {
        "lr_schedulers": {"lr": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.1, "threshold": 0.01}},
        "policies": [{"lr_scheduler": {"instance_name": "lr"}, **EVERY}],
    },
}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Crew]:
    with crew(4, smaller=(2,)) as processes:
        yield processes


@pytest.fixture(scope="module")
def dataset():
    return load(DatasetConfig("digits"))


@pytest.fixture
def config(tmp_path: Path, dataset) -> RunConfig:
    """The last batch of an epoch has three rows: none for the last of four ranks."""
    return RunConfig(
        arch="simplenet_cifar",
        dataset=DatasetConfig("digits"),
        epochs=4,
        batch_size=96,
        lr=0.01,  # a larger one multiplies the rounding of sums past 1e-5, on some processors
        precision="fp32",
        out_dir=str(tmp_path / "one"),
        deterministic=True,
        threads=1,
        tensorboard=False,
        effective_train_size=(4 * 96 + 3) / len(dataset.train_index),
    )


def trained(ranks: Ranks, config: RunConfig, epochs: int | None = None) -> list[EpochMetrics]:
    return list(itertools.islice(fit(config, ranks=ranks), epochs))


def assert_same(one: RunConfig, several: RunConfig) -> None:
    left, right = (read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt") for config in (one, several))
    assert left["model"].keys() == right["model"].keys()
    for name, weight in left["model"].items():
        torch.testing.assert_close(right["model"][name], weight, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert left["scheduler"]["masks"].keys() == right["scheduler"]["masks"].keys()
    for name, mask in left["scheduler"]["masks"].items():
        assert torch.equal(right["scheduler"]["masks"][name], mask), name


def check(ranks: Crew, config: RunConfig, dataset: Any, world: int) -> list[EpochMetrics]:
    several = replace(config, out_dir=f"{config.out_dir}-{world}")
    task = None if config.task.args else Classification(dataset)
    expected = list(fit(config, task=task))
    found = ranks.run(trained, several, world=world)
    assert [type(answer) for answer in found] == [list] * world, found
    for of_rank in found:
        assert [m.epoch for m in of_rank] == [m.epoch for m in expected]
        for mine, theirs in zip(of_rank, expected, strict=True):
            assert (
                mine.metrics["loss"] == found[0][mine.epoch].metrics["loss"]
            )  # the same number on every rank, not about the same
            assert (mine.metrics["loss"], mine.train_loss) == pytest.approx(
                (theirs.metrics["loss"], theirs.train_loss), abs=1e-5
            )
            assert (mine.metrics["top1"], mine.metrics["top5"], mine.sparsity) == (
                theirs.metrics["top1"],
                theirs.metrics["top5"],
                theirs.sparsity,
            )
            assert mine.learning_rate == theirs.learning_rate
    assert_same(config, several)
    return expected


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_gradual_pruning(ranks: Crew, config: RunConfig, dataset, world: int) -> None:
    expected = check(ranks, replace(config, schedule=parse_schedule(AGP, "s.yaml")), dataset, world)
    assert expected[-1].layer_sparsity["fc1.weight"] == pytest.approx(0.7, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_kind_of_policy(ranks: Crew, config: RunConfig, dataset, kind: str) -> None:
    world = 4 if kind in ("activations", "plateau") else 2
    expected = check(ranks, replace(config, schedule=parse_schedule(SCHEDULES[kind], "s.yaml")), dataset, world)
    if kind == "plateau":
        assert expected[-1].learning_rate < 0.05  # it did see a plateau
    if kind == "thinning, and a penalty":
        shapes = read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt")["model"]
        assert shapes["conv2.weight"].shape[0] < 16
    elif kind not in ("plateau", "DropFilter"):
        assert expected[-1].sparsity > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["QuantAwareTrainRangeLinearQuantizer", "PACTQuantizer", "LSQQuantizer"])
def test_quantized(ranks: Crew, config: RunConfig, dataset, kind: str) -> None:
    """Rounding turns the last bit of a sum into a step, so weights agree less closely; ranges are of all rows."""
    quantizers = {"q": {"class": kind, "bits_weights": 8, "bits_activations": 8}}
    policies = [{"quantizer": {"instance_name": "q"}, **EVERY}]
    schedule = parse_schedule({**AGP, "quantizers": quantizers, "policies": [*AGP["policies"], *policies]}, "s.yaml")
    one = replace(config, schedule=schedule, epochs=2)
    several = replace(one, out_dir=f"{config.out_dir}-several")
    expected = list(fit(one, task=Classification(dataset)))
    found = ranks.run(trained, several, world=4)
    assert [type(answer) for answer in found] == [list] * 4, found
    for of_rank in found:
        assert [m.metrics["loss"] for m in of_rank] == [m.metrics["loss"] for m in found[0]]
        assert of_rank[-1].metrics["loss"] == pytest.approx(expected[-1].metrics["loss"], abs=0.02)
    left, right = (read_checkpoint(Path(str(run.out_dir)) / "checkpoint.pt")["model"] for run in (one, several))
    assert left.keys() == right.keys()
    for name in [name for name in left if name.endswith((".lowest", ".highest", ".clip_val", ".steps.size"))]:
        torch.testing.assert_close(right[name], left[name], rtol=0.02, atol=1e-3)


@pytest.mark.slow
def test_accumulated_clipped_warmed_up_and_averaged(ranks: Crew, config: RunConfig, dataset) -> None:
    """The last step is of one batch of three rows; the average of the weights is one process's too."""
    said = Optimizer(
        accumulate=2, clip_norm=0.5, warmup_epochs=1.5, ema=0.8, no_decay=("biases",),
        groups=({"parameters": ["fc3.*"], "lr": 0.02},),
    )  # fmt: skip
    config = replace(config, schedule=parse_schedule(AGP, "s.yaml"), optimizer=said)
    expected = check(ranks, config, dataset, 2)
    assert expected[-1].layer_sparsity["fc1.weight"] == pytest.approx(0.7, abs=1e-4)


@pytest.mark.slow
def test_fitted_weights_are_the_first_ranks(ranks: Crew, config: RunConfig) -> None:
    """The points that are fitted are drawn on each rank: not those of one process, but all ranks end with one fit."""
    schedule = pruned(
        "FMReconstructionChannelPruner",
        {"group_type": "Channels", "desired_sparsity": 0.5, "weights": ["conv2.weight"]},
        {"evidence_minibatches": 1},
        starting_epoch=1,
        ending_epoch=2,
        frequency=1,
    )
    first, second = ranks.run(trained, replace(config, schedule=parse_schedule(schedule, "s.yaml"), epochs=3), world=2)
    assert first[-1].layer_sparsity["conv2.weight"] == pytest.approx(0.5)
    assert [m.metrics["loss"] for m in first] == [m.metrics["loss"] for m in second]


@pytest.mark.slow
def test_cut_off_and_taken_up_by_more_ranks(ranks: Crew, config: RunConfig, dataset) -> None:
    config = replace(config, schedule=parse_schedule(AGP, "s.yaml"))
    list(fit(config, task=Classification(dataset)))
    several = replace(config, out_dir=f"{config.out_dir}-cut")
    assert [m.epoch for m in ranks.run(trained, several, 2, world=2)[0]] == [0, 1]
    assert [m.epoch for m in ranks.run(trained, several, world=4)[3]] == [2, 3]
    assert_same(config, several)


class Exits(SimpleNet):
    """Answers twice: halfway with what its first layer sees, and at its end."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.early = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.early(images.mean((2, 3))), super().forward(images)]


EXITS = TaskConfig(args={"loss_weights": (0.3,), "thresholds": (2.29,)})


@pytest.mark.slow
def test_a_teacher_and_early_exits(ranks: Crew, config: RunConfig, dataset, tmp_path: Path) -> None:
    teacher = replace(config, epochs=1, out_dir=str(tmp_path / "teacher"))
    list(fit(teacher, task=Classification(dataset)))
    taught = Distillation(checkpoint=str(tmp_path / "teacher" / "checkpoint.pt"), temperature=3.0)
    check(ranks, replace(config, epochs=2, distillation=taught), dataset, 2)
    exits = replace(config, epochs=2, arch=f"{__name__}:Exits", task=EXITS)
    exits = replace(exits, out_dir=str(tmp_path / "exits"))
    expected = check(ranks, exits, dataset, 4)
    last = read_checkpoint(Path(f"{exits.out_dir}-4") / "checkpoint.pt")["history"][-1]["metrics"]
    found = {name: value for name, value in last.items() if name.startswith("exit")}
    assert found == pytest.approx({k: v for k, v in expected[-1].metrics.items() if k.startswith("exit")})
    assert set(found) == {"exit0/top1", "exit0/taken", "exit1/top1", "exit1/taken"}


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_each_batch_out(dataset, world: int) -> None:
    whole = TrainFeed(dataset, 100, "cpu", seed=1, fraction=0.2)
    parts = [TrainFeed(dataset, 100, "cpu", seed=1, fraction=0.2, ranks=Ranks(r, world)) for r in range(world)]
    for index, (batch, *shares) in enumerate(zip(whole.epoch(3), *(part.epoch(3) for part in parts), strict=True)):
        assert sum(part.rows(index)[0] for part in parts) == parts[0].rows(index)[1] == len(batch[0])
        for rank, (images, labels) in enumerate(shares):
            assert torch.equal(images, batch[0][rank::world])
            assert torch.equal(labels, batch[1][rank::world])
    held = [EvalFeed(dataset, "validation", 50, "cpu", ranks=Ranks(r, world)).samples for r in range(world)]
    assert sum(held) == len(dataset.validation_index)


class Deaf(Ranks):
    """Hears nothing of what the first rank decides."""

    def tensors_of_first(self, tensors: Any) -> dict[str, torch.Tensor]:
        return dict(tensors)


def trained_deaf(ranks: Ranks, config: RunConfig) -> str:
    try:
        trained(Deaf(ranks.rank, ranks.world, ranks.group), config)
    except TrainingError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_masks_that_differ_end_the_run(ranks: Crew, config: RunConfig) -> None:
    chance = parse_schedule(SCHEDULES["chance"], "s.yaml")
    for said in ranks.run(trained_deaf, replace(config, schedule=chance), world=2):
        assert said.startswith("epoch 0: the masks must be the same on all 2 workers, those of workers [1] differ;")


def trained_onto_a_folder(ranks: Ranks, config: RunConfig) -> str:
    try:
        trained(ranks, config)
    except StorageError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_what_the_first_rank_cannot_write_ends_all(ranks: Crew, config: RunConfig) -> None:
    (Path(str(config.out_dir)) / "sparsity.csv").mkdir(parents=True)
    first, second = ranks.run(trained_onto_a_folder, config, world=2)
    assert "sparsity.csv: cannot be written (is a directory)" in first
    assert second == f"worker 0: {first}"


class Fails(SimpleNet):
    """Runs out of memory in its seventh minibatch, on one rank only."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if self.steps == 7 and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


@pytest.mark.slow
def test_a_rank_that_fails_alone_ends_all(config: RunConfig) -> None:
    failing = replace(config, arch=f"{__name__}:Fails", batch_size=20)
    with crew(2) as processes:
        first, second = processes.run(trained, failing, world=2)
    assert isinstance(second, TrainingError)
    assert str(second).startswith("epoch 0: out of memory with batch_size 20")
    assert isinstance(first, TrainingError)
    assert str(first) == f"worker 1: {second}"


def killed(ranks: Ranks, config: RunConfig) -> None:
    if ranks.rank == 1:
        for _ in fit(config, ranks=ranks):
            os.kill(os.getpid(), signal.SIGKILL)
    trained(ranks, config)


@pytest.mark.slow
def test_a_rank_that_is_killed_is_missed(config: RunConfig) -> None:
    with crew(2) as processes:
        first, second = processes.run(killed, config, world=2)
    assert second is None
    assert isinstance(first, LostWorker)
    assert "lost the connection to another worker" in str(first)
