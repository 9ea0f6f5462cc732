"""One run of several: what it is like, what goes wrong in it, and that it draws its own random numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.errors import CheckpointError, RaydistillError, TrainingError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.training import Distillation, fit
from raydistill.training.packing.member import always_alone
from tests.training.packing.members import TASK, config, member

EVERY = {"starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
L1 = parse_schedule({
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"0.weight": 0.5}}},
    "policies": [{"regularizer": {"instance_name": "l1"}, **EVERY}],
}, "s")  # fmt: skip
QUANTIZED = parse_schedule({
    "quantizers": {"q": {"class": "QuantAwareTrainRangeLinearQuantizer", "bits_weights": 8, "bits_activations": 8}},
    "policies": [{"quantizer": {"instance_name": "q"}, **EVERY}],
}, "s")  # fmt: skip


def test_its_making_moves_nobodys_random_state_and_it_goes_on_with_its_own() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = member(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    with one.chance.in_force():
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    other = member(seed=3)
    torch.rand(7)
    with other.chance.in_force():
        assert torch.equal(torch.rand(3), drawn)


def test_members_of_one_kind_differ_in_what_is_no_code_and_no_shape() -> None:
    kind = member().kind()
    for same in ({"lr": 0.5}, {"seed": 9}, {"schedule": L1}, {"optimizer": Optimizer(name="AdamW", lr=0.1)}):
        changed = {**same, **({"lr": 0.05} if "optimizer" in same else {})}
        assert member(**changed).kind() == kind, same
    others = ({"batch_size": 8}, {"model_args": {"hidden": 4}}, {"precision": "bf16"}, {"effective_train_size": 0.5})
    kinds = [member(**other).kind() for other in others]
    assert len({kind, *kinds}) == 5


def test_one_that_was_thinned_or_whose_feed_is_another_is_of_another_kind() -> None:
    one, other = member(), member()
    assert one.kind() == other.kind()
    one.network.get_submodule("0").weight = torch.nn.Parameter(torch.zeros(4, 6))
    assert one.kind() != other.kind()


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_somebody_looks_into_the_network(register: str) -> None:
    one = member()
    assert not one.hooked()
    handle = getattr(one.network.get_submodule("2"), register)(lambda *seen: None)
    assert one.hooked()
    handle.remove()
    assert not one.hooked()


@pytest.mark.parametrize(
    ("error", "ends_with"),
    [
        (ZeroDivisionError("here"), ZeroDivisionError),
        (SystemExit(3), SystemExit),
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingError),
    ],
)
def test_what_goes_wrong_ends_it_alone(error: BaseException, ends_with: type[BaseException]) -> None:
    one = member()
    with one.guarded():
        raise error
    assert isinstance(one.error, ends_with)
    assert one.ended
    if ends_with is TrainingError:
        assert str(one.error).startswith("epoch 0: out of memory with batch_size 16")


def test_the_users_interruption_ends_all() -> None:
    one = member()
    with pytest.raises(KeyboardInterrupt), one.guarded():
        raise KeyboardInterrupt
    assert one.error is None


def test_a_loss_that_is_not_finite_ends_it_and_names_the_minibatch() -> None:
    one = member()
    one.check_loss(3.0, 4)
    assert one.error is None
    one.check_loss(math.nan, 4)
    assert isinstance(one.error, TrainingError)
    assert str(one.error).startswith("epoch 0: the training loss (minibatch 4) must be finite, got nan")


def test_its_policies_add_to_its_loss_and_its_share_is_differentiated() -> None:
    one = member(schedule=L1)
    one.begin_epoch()
    one.run.scheduler.on_minibatch_begin(0, 0, 6)
    loss, term = one.loss_of(torch.tensor(2.0), 0, 6, 0.25)
    expected = 2.0 + 0.5 * float(one.network.get_submodule("0").weight.detach().abs().sum())  # type: ignore[operator]
    assert float(loss.detach()) == pytest.approx(expected)
    assert float(term.detach()) == pytest.approx(0.25 * expected)


def test_what_its_policies_draw_in_an_epoch_is_its_own() -> None:
    chance = parse_schedule({
        "pruners": {"p": {"class": "RankedPruner", "rate": "one_shot", "final_sparsity": 0.5, "weights": ["0.weight"],
                          "ranking": "random", "granularity": "Rows"}},
        "policies": [{"pruner": {"instance_name": "p"}, **EVERY}],
    }, "s")  # fmt: skip
    masks = []
    for disturbance in (0, 50):
        one = member(schedule=chance, seed=2)
        torch.rand(disturbance)
        before = torch.get_rng_state()
        one.begin_epoch()
        with one.at_minibatch():
            one.run.scheduler.on_minibatch_begin(0, 0, 6)
        assert torch.equal(torch.get_rng_state(), before)
        masks.append(one.run.scheduler.masks["0.weight"])
    assert torch.equal(*masks)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"distillation": Distillation(checkpoint="x")}, "its teacher watches each network by itself"),
        ({"epochs": 0}, "nothing is trained"),
        ({"trains": False}, "nothing is trained"),
    ],
)
def test_why_a_run_is_never_one_of_several(changed: dict[str, Any], why: str) -> None:
    assert always_alone(config(**changed)) == why


def test_a_quantized_network_is_trained_by_itself() -> None:
    assert member(schedule=QUANTIZED).alone == "its network is quantized"
    assert member(schedule=L1).alone == ""


@pytest.mark.slow
def test_it_begins_where_its_checkpoint_ends(tmp_path: Path) -> None:
    list(fit(config(epochs=2, out_dir=str(tmp_path)), task=TASK))
    more = member(epochs=3, out_dir=str(tmp_path))
    assert (more.epoch, more.ended) == (2, False)
    assert member(epochs=2, out_dir=str(tmp_path)).ended


def test_what_cannot_be_begun_is_what_fit_says_and_chance_is_put_back() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        member(init_from="gone.pt")
    with pytest.raises(RaydistillError):
        member(model_args={"width": 3})
    assert torch.equal(torch.get_rng_state(), before)


def test_events_are_written_until_it_is_closed(tmp_path: Path) -> None:
    one = member(out_dir=str(tmp_path), tensorboard=True)
    one.close()
    one.close()
    assert list(tmp_path.rglob("events.*"))
