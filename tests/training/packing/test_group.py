"""An epoch of several runs as one network is the epoch that each has by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydistill.errors import TrainingError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks.feeds import Kept
from raydistill.training import fit, read_checkpoint
from raydistill.training.packing.group import Group, _bounds
from raydistill.training.packing.member import Member
from raydistill.training.packing.ways import Folded, Mapped, Way
from tests.training.packing.members import TASK, config, member

AGP = parse_schedule({
    "pruners": {"agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.2, "final_sparsity": 0.5,
                        "weights": ["0.weight"]}},
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"2.weight": 0.01}}},
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
                 {"regularizer": {"instance_name": "l1"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
}, "s")  # fmt: skip
ADAPTERS = parse_schedule({
    "pruners": {"half": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
    "extensions": {"recovery": {"class": "LowRankRecovery", "rank": 2, "lr": 0.05}},
    "policies": [{"pruner": {"instance_name": "half"}, "epochs": [0]},
                 {"extension": {"instance_name": "recovery"}, "epochs": [0]}],
}, "s")  # fmt: skip
RUNS = ({"lr": 0.05}, {"lr": 0.02, "weight_decay": 0.1}, {"lr": 0.02, "schedule": AGP, "seed": 3})


class Narrow(nn.Module):
    """Has memory for two places at a time, and finds out when it has learned of a minibatch already."""

    most = 2

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.norm(self.first(rows))
        weight = self.first.weight
        if weight.dim() == 3 and len(weight) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.last(torch.relu(hidden))  # type: ignore[no-any-return]


class NoMemory(Narrow):
    most = 0


class Roomy(Narrow):
    most = 64


def narrow() -> nn.Module:
    return Narrow()


def roomy() -> nn.Module:
    return Roomy()


def no_memory() -> nn.Module:
    return NoMemory()


def group(members: Sequence[Member], most: int = 64, way: type[Folded | Mapped] = Folded,
          say: Callable[[str], None] = print) -> Group:  # fmt: skip
    make: Callable[[], Way] = functools.partial(way, members[0].network)
    used = frozenset(name for name, _ in members[0].network.named_parameters())
    return Group(members, make, used, most, say)


def an_epoch(of: Group) -> None:
    for one in of.present:
        one.begin_epoch()
    of.train()


def assert_as_alone(one: Member, said: dict[str, object], folder: Path) -> None:
    """After one epoch: weights, the training loss, masks."""
    (metrics,) = fit(config(**{**said, "epochs": 1, "out_dir": str(folder)}), task=TASK)
    content = read_checkpoint(folder / "checkpoint.pt")
    for name, value in content["model"].items():
        torch.testing.assert_close(one.network.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    assert one.train_loss == pytest.approx(metrics.train_loss, rel=1e-4)
    masks = content["scheduler"]["masks"]
    assert set(one.run.scheduler.masks.names()) == set(masks)
    for name, mask in masks.items():
        assert torch.equal(one.run.scheduler.masks[name], mask)


@pytest.mark.slow
@pytest.mark.parametrize("way", [Folded, Mapped])
@pytest.mark.parametrize("most", [64, 2])
def test_each_learns_what_it_does_by_itself(way: type[Folded | Mapped], most: int, tmp_path: Path) -> None:
    members = [member(key, **said) for key, said in enumerate(RUNS)]  # type: ignore[arg-type]
    an_epoch(group(members, most, way))
    for key, (one, said) in enumerate(zip(members, RUNS, strict=True)):
        assert one.error is None
        assert_as_alone(one, said, tmp_path / str(key))


@pytest.mark.slow
def test_one_that_trains_adapters_alone_among_others(tmp_path: Path) -> None:
    runs = ({"lr": 0.05}, {"lr": 0.05, "schedule": ADAPTERS})
    members = [member(key, **said) for key, said in enumerate(runs)]  # type: ignore[arg-type]
    an_epoch(group(members))
    for key, (one, said) in enumerate(zip(members, runs, strict=True)):
        assert one.error is None
        assert_as_alone(one, said, tmp_path / str(key))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "close"),
    [
        ({"optimizer": Optimizer(accumulate=4, clip_norm=0.5, ema=0.5)}, 1e-5),
        ({"optimizer": Optimizer(clip_norm=0.5), "precision": "fp16"}, 1e-3),  # cut by their own size, not the scaled
    ],
)
def test_what_happens_to_gradients_and_is_averaged_is_each_runs_own(
    said: dict[str, object], close: float, tmp_path: Path
) -> None:
    members = [member(key, **said, seed=key) for key in range(2)]
    whole = group(members)
    an_epoch(whole)
    judged = whole.validate(None)
    for key, one in enumerate(members):
        (metrics,) = fit(config(**said, seed=key, epochs=1, out_dir=str(tmp_path / str(key))), task=TASK)
        assert one.train_loss == pytest.approx(metrics.train_loss, rel=10 * close)
        assert judged[key] == pytest.approx(metrics.metrics, rel=10 * close)
        content = read_checkpoint(tmp_path / str(key) / "checkpoint.pt")
        with one.run.as_delivered():
            for name, value in content["model"].items():
                torch.testing.assert_close(one.network.state_dict()[name], value, atol=close, rtol=10 * close)


@pytest.mark.slow
def test_memory_that_runs_out_halves_it_and_nothing_is_lost() -> None:
    """What was learned of the minibatch by then is forgotten before it is done again."""
    trained = {}
    for arch in ("narrow", "roomy"):
        trained[arch] = [member(key, arch=f"{__name__}:{arch}", seed=key) for key in range(3)]
        lines: list[str] = []
        whole = group(trained[arch], say=lines.append)
        an_epoch(whole)
        if arch == "narrow":
            assert (lines, whole.most) == (["out of memory with 3 trials side by side: they go on by 2"], 2)
        else:
            assert (lines, whole.most) == ([], 64)
    for one, other in zip(*trained.values(), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        for name, value in other.network.state_dict().items():
            torch.testing.assert_close(one.network.state_dict()[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_one_that_has_no_memory_by_itself_has_failed() -> None:
    members = [member(key, arch=f"{__name__}:no_memory", seed=key) for key in range(2)]
    whole = group(members, say=lambda line: None)
    an_epoch(whole)
    for one in members:
        assert isinstance(one.error, TrainingError)
        assert str(one.error).startswith("epoch 0: out of memory with batch_size 16")


@pytest.mark.slow
def test_what_goes_wrong_in_one_is_not_the_others(tmp_path: Path) -> None:
    members = [member(0, **RUNS[0]), member(1, lr=1e38), member(2, **RUNS[2])]  # type: ignore[arg-type]
    an_epoch(group(members))
    assert [one.error is None for one in members] == [True, False, True]
    assert "must be finite" in str(members[1].error)
    for key in (0, 2):
        assert_as_alone(members[key], RUNS[key], tmp_path / str(key))


@pytest.mark.slow
def test_a_place_that_is_free_computes_for_nothing(tmp_path: Path) -> None:
    members = [member(key, **said) for key, said in enumerate(RUNS)]  # type: ignore[arg-type]
    whole = group(members)
    whole.drop(members[1])
    assert whole.present == [members[0], members[2]]
    before = [value.clone() for value in members[1].network.state_dict().values()]
    an_epoch(whole)
    assert all(map(torch.equal, members[1].network.state_dict().values(), before))
    assert list(whole.validate(None)) == [0, 2]
    for key in (0, 2):
        assert_as_alone(members[key], RUNS[key], tmp_path / str(key))


@pytest.mark.slow
def test_members_in_other_epochs_have_their_own_minibatches(tmp_path: Path) -> None:
    list(fit(config(epochs=1, out_dir=str(tmp_path / "ahead")), task=TASK))
    members = [member(0, out_dir=str(tmp_path / "ahead")), member(1)]
    assert [one.epoch for one in members] == [1, 0]
    an_epoch(group(members))
    assert_as_alone(members[1], {}, tmp_path / "alone")
    list(fit(config(epochs=2, out_dir=str(tmp_path / "both")), task=TASK))
    for name, value in read_checkpoint(tmp_path / "both/checkpoint.pt")["model"].items():
        torch.testing.assert_close(members[0].network.state_dict()[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_outputs_that_are_kept_are_judged_as_each_network_is(tmp_path: Path) -> None:
    members = [member(key, **said) for key, said in enumerate(RUNS)]  # type: ignore[arg-type]
    whole = group(members, most=2)
    an_epoch(whole)
    at_once = whole.validate(Kept(members[0].run.validation_feed))
    one_by_one = whole.validate(None)
    assert list(at_once) == list(one_by_one) == [0, 1, 2]
    for key, metrics in one_by_one.items():
        assert at_once[key] == pytest.approx(metrics, rel=1e-5)
    assert len({metrics["loss"] for metrics in at_once.values()}) == 3


def test_it_holds_networks_until_they_are_replaced_and_gives_back_their_own_tensors() -> None:
    members = [member(0), member(1)]
    whole = group(members)
    assert all(map(whole.holds, members))
    members[0].network.get_submodule("0").weight = nn.Parameter(torch.zeros(8, 6))
    assert [whole.holds(one) for one in members] == [False, True]
    whole.release()
    weight = members[1].network.get_submodule("0").weight
    assert weight.untyped_storage().nbytes() == 48 * 4  # type: ignore[operator,union-attr]


@pytest.mark.parametrize(
    ("count", "most", "bounds"),
    [(3, 64, [(0, 3)]), (5, 2, [(0, 1), (1, 3), (3, 5)]), (4, 2, [(0, 2), (2, 4)]), (1, 1, [(0, 1)])],
)
def test_parts_are_of_about_one_size(count: int, most: int, bounds: list[tuple[int, int]]) -> None:
    assert _bounds(count, most) == bounds
