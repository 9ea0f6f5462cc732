"""A real Lightning trainer as a trial: the same results as without, resumed bit for bit, stopped when it is to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression import build
from raydistill.errors import TrainingError
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, fit, read_checkpoint
from raydistill.training.determinism import seed_everything
from tests.adapters.loops import lightning_module, loaders, quiet
from tests.adapters.resumed import assert_goes_on_bit_for_bit
from tests.adapters.rounded import assert_rounded_at_the_end
from tests.tasks.own import net

lightning = pytest.importorskip("lightning", reason="Lightning is not installed")
pytestmark = pytest.mark.slow  # it takes seconds to import

AGP = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5, "weights": ["0.weight"],
        },
    },
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"2.weight": 0.05}}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        {"regularizer": {"instance_name": "l1"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}  # fmt: skip


def run(folder: Path, schedule: ScheduleSpec | None, loop: str = "lightning") -> RunConfig:
    return RunConfig(
        "tests.tasks.own:net", task=TaskConfig("tests.training.own_loops:Points"), epochs=4, schedule=schedule,
        train=OwnLoop(f"tests.adapters.loops:{loop}"), device="cpu", threads=1, out_dir=str(folder),
    )  # fmt: skip


def by_hand(schedule: ScheduleSpec) -> dict[str, torch.Tensor]:
    """The same in a plain loop: Lightning's order of drawing from torch's random state is what it is, so the batches
    are taken from a Lightning trainer that trains nothing."""
    torch.set_num_threads(1)
    seed_everything(0)
    model = net()
    batches: list[Any] = []

    class Records(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            batches.append(batch)
            return self.nothing * 0.0

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    lightning.Trainer(**quiet(), max_epochs=4).fit(Records(), *loaders())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = build(schedule, model, optimizer)
    for epoch in range(4):
        scheduler.on_epoch_begin(epoch)
        for index, (x, y) in enumerate(batches[8 * epoch : 8 * epoch + 8]):
            scheduler.on_minibatch_begin(epoch, index, 8)
            loss = scheduler.before_backward(epoch, index, 8, torch.nn.functional.mse_loss(model(x), y))
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, 8)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, 8)
        scheduler.on_epoch_end(epoch, mae=0.0, loss=0.0)
    return model.state_dict()


def test_a_dense_trial_learns_what_the_trainer_learns_alone(tmp_path: Path) -> None:
    list(fit(run(tmp_path, None)))
    torch.set_num_threads(1)
    seed_everything(0)
    module = lightning_module(net(), 0.02)
    lightning.Trainer(**quiet(), max_epochs=4).fit(module, *loaders())
    kept = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    assert all(torch.equal(value, kept[name]) for name, value in module.net.state_dict().items())


def test_policies_act_as_in_a_loop_by_hand_losses_included(tmp_path: Path) -> None:
    schedule = parse_schedule(AGP, "s")
    epochs = list(fit(run(tmp_path, schedule)))
    expected = by_hand(schedule)
    kept = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    assert epochs[-1].layer_sparsity["0.weight"] == pytest.approx(0.5)
    assert all(torch.equal(value, kept[name]) for name, value in expected.items())


def test_it_is_stopped_after_any_epoch_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    schedule = parse_schedule(AGP, "s")
    assert_goes_on_bit_for_bit(lambda folder: run(folder, schedule), tmp_path)


def test_metrics_that_are_not_logged_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.adapters import loops

    made = loops.lightning_module

    def silent(*args: Any) -> Any:
        module = made(*args)
        module.validation_step = lambda batch, batch_idx: None
        return module

    monkeypatch.setattr(loops, "lightning_module", silent)
    with pytest.raises(TrainingError, match=r"train: yields no 'mae', got \[\]; the task names its metrics"):
        list(fit(run(tmp_path, None)))


def test_a_network_is_rounded_at_the_end_before_it_is_validated(tmp_path: Path) -> None:
    assert_rounded_at_the_end(run, "tests.tasks.own:net", lambda network, inputs: network(inputs), tmp_path)
