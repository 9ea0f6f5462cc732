"""A real transformers Trainer as a trial: the same results as without, resumed bit for bit, losses included."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, fit, read_checkpoint
from raydistill.training.determinism import seed_everything
from tests.adapters.loops import trainer, wrapped_net
from tests.adapters.resumed import assert_goes_on_bit_for_bit
from tests.adapters.rounded import assert_rounded_at_the_end

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
pytestmark = pytest.mark.slow  # it takes seconds to import

AGP = {
    "pruners": {
        "agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5,
                "weights": ["net.0.weight"]},
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
}  # fmt: skip
L1 = {
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"net.2.weight": 0.05}}},
    "policies": [{"regularizer": {"instance_name": "l1"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
}


def run(folder: Path, schedule: ScheduleSpec | None) -> RunConfig:
    return RunConfig(
        "tests.adapters.loops:wrapped_net", task=TaskConfig("tests.training.own_loops:Points"), epochs=4,
        train=OwnLoop("tests.adapters.loops:transformers"), schedule=schedule, device="cpu", threads=1,
        out_dir=str(folder),
    )  # fmt: skip


def alone(folder: Path, penalty: float = 0.0) -> dict[str, torch.Tensor]:
    """The Trainer without the adapter; penalty: an L1 of the last layer, in the loss itself."""
    torch.set_num_threads(1)
    seed_everything(0)
    model = wrapped_net()
    made = trainer(model, str(folder / "alone"), 4, 0.02, [])
    if penalty:
        forward = model.forward

        def with_penalty(x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            found = forward(x, labels)
            if model.training:
                found["loss"] = found["loss"] + penalty * model.net[2].weight.abs().sum()  # type: ignore[union-attr,index,operator]
            return found

        model.forward = with_penalty  # type: ignore[method-assign]
    made.train()
    return copy.deepcopy(model.state_dict())


def test_a_dense_trial_learns_what_the_trainer_learns_alone(tmp_path: Path) -> None:
    epochs = list(fit(run(tmp_path, None)))
    kept = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    assert all(torch.equal(value, kept[name]) for name, value in alone(tmp_path).items())
    assert epochs[-1].metrics["mae"] < epochs[0].metrics["mae"]


def test_a_regularizer_s_penalty_is_in_the_loss(tmp_path: Path) -> None:
    list(fit(run(tmp_path, parse_schedule(L1, "s"))))
    kept = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    expected = alone(tmp_path, penalty=0.05)
    assert all(torch.allclose(value, kept[name], atol=1e-6) for name, value in expected.items())
    assert not torch.allclose(kept["net.2.weight"], alone(tmp_path)["net.2.weight"], atol=1e-3)


def test_it_is_stopped_after_any_epoch_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    schedule = parse_schedule(AGP, "s")
    whole = assert_goes_on_bit_for_bit(lambda folder: run(folder, schedule), tmp_path)
    assert whole[-1].layer_sparsity["net.0.weight"] == pytest.approx(0.5)


def test_a_network_is_rounded_at_the_end_before_it_is_validated(tmp_path: Path) -> None:
    assert_rounded_at_the_end(
        run, "tests.adapters.loops:wrapped_net", lambda network, inputs: network(inputs)["logits"], tmp_path
    )
