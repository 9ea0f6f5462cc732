"""The optimizer section, held against torch's own loops written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.errors import CheckpointError, ConfigError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit, read_checkpoint
from raydistill.training.optimizer import check_optimization, learning_rate, make_optimizer, order_of
from tests.tasks.own import Line, net

NET, LINE = "tests.tasks.own:net", "tests.tasks.own:Line"
POINTS, ROWS, EPOCHS = 85, 16, 3
"""Of Line's train split; its last batch is of 5 rows."""


def run(tmp_path: Path, **said: Any) -> RunConfig:
    return RunConfig(
        NET, task=TaskConfig(LINE), epochs=EPOCHS, batch_size=ROWS, precision="fp32", device="cpu", threads=1,
        deterministic=True, tensorboard=False, out_dir=str(tmp_path / "run"), **said,
    )  # fmt: skip


def trained(config: RunConfig, key: str = "model") -> dict[str, torch.Tensor]:
    list(fit(config))
    return read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt")[key]


def batches(epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The task's own batches of an epoch: order is the feed's business."""
    from raydistill.tasks import Loading

    return list(Line().feed("train", Loading(torch.device("cpu"), ROWS)).epoch(epoch))


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return net()


def same(state: dict[str, torch.Tensor], model: nn.Module) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def near(state: dict[str, torch.Tensor], model: nn.Module) -> bool:
    return all(torch.allclose(value, state[name], atol=1e-6) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_without_a_section_it_is_the_sgd_that_it_always_was_bit_for_bit(tmp_path: Path) -> None:
    model = fresh()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    for epoch in range(EPOCHS):
        for x, y in batches(epoch):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    assert same(trained(run(tmp_path, lr=0.02)), model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "args"),
    [("AdamW", {"betas": [0.8, 0.95]}), ("RMSprop", {"alpha": 0.9, "momentum": 0.5}), ("Adagrad", {}), ("NAdam", {})],
)
def test_any_class_of_torch_by_its_name(name: str, args: dict[str, Any], tmp_path: Path) -> None:
    model = fresh()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, weight_decay=0.02, **args)
    for epoch in range(EPOCHS):
        for x, y in batches(epoch):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    assert same(trained(run(tmp_path, optimizer=Optimizer(name=name, lr=0.01, weight_decay=0.02, args=args))), model)


def test_what_is_left_out_is_the_class_s_own() -> None:
    said = RunConfig(NET, optimizer=Optimizer(name="AdamW"))
    group = make_optimizer(net(), said).param_groups[0]
    assert (learning_rate(said), group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 1e-3, 1e-2, (0.9, 0.999))


@pytest.mark.slow
def test_gradients_are_cut_by_norm_and_by_value(tmp_path: Path) -> None:
    by_norm, by_value = fresh(), fresh()
    for model, cut in (
        (by_norm, lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.5)),
        (by_value, lambda m: nn.utils.clip_grad_value_(m.parameters(), 0.1)),
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
        for epoch in range(EPOCHS):
            for x, y in batches(epoch):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                cut(model)
                optimizer.step()
    assert same(trained(run(tmp_path / "n", lr=0.02, optimizer=Optimizer(clip_norm=0.5))), by_norm)
    assert same(trained(run(tmp_path / "v", lr=0.02, optimizer=Optimizer(clip_value=0.1))), by_value)
    assert not near(by_norm.state_dict(), by_value)


@pytest.mark.slow
def test_accumulated_minibatches_learn_what_one_of_their_size_does(tmp_path: Path) -> None:
    """85 rows in batches of 16, three at a time: steps of 48 and 37 rows, the last one of 5 among them."""
    model = fresh()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    for epoch in range(EPOCHS):
        rows = batches(epoch)
        for part in (rows[:3], rows[3:]):
            x, y = (torch.cat(parts) for parts in zip(*part, strict=True))
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    config = run(tmp_path, lr=0.02, optimizer=Optimizer(accumulate=3))
    assert near(trained(config), model)
    steps = torch.optim.Adam  # one that counts its steps
    state = trained(run(tmp_path / "a", optimizer=Optimizer(name=steps.__name__, accumulate=3)), "optimizer")
    assert {float(entry["step"]) for entry in state["state"].values()} == {2.0 * EPOCHS}


@pytest.mark.slow
def test_the_rate_rises_step_by_step_under_whatever_the_schedule_makes_of_it(tmp_path: Path) -> None:
    schedule = parse_schedule(
        {
            "lr_schedulers": {"decay": {"class": "ExponentialLR", "gamma": 0.5}},
            "policies": [
                {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
            ],
        },
        "s",
    )
    model = fresh()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    seen = []
    for epoch in range(EPOCHS):
        for index, (x, y) in enumerate(batches(epoch)):
            done = epoch + (index + 1) / 6
            optimizer.param_groups[0]["lr"] = 0.02 * 0.5**epoch * min(1.0, done / 1.5)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
    config = run(tmp_path, lr=0.02, schedule=schedule, optimizer=Optimizer(warmup_epochs=1.5))
    told = [epoch.learning_rate for epoch in fit(config)]
    assert told == pytest.approx(seen)
    assert near(read_checkpoint(tmp_path / "run/checkpoint.pt")["model"], model)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
        self.embed = nn.Embedding(3, 4)
        self.head = nn.Linear(4, 1)


def test_groups_and_what_has_no_decay() -> None:
    said = Optimizer(
        name="AdamW", weight_decay=0.1, no_decay=("norms", "biases", "embed*"),
        groups=({"parameters": ["head.*"], "lr": 0.5},),
    )  # fmt: skip
    model = Normed()
    optimizer = make_optimizer(model, RunConfig(NET, optimizer=said))
    names = iter(order_of(model, optimizer))
    found = {next(names): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for _ in g["params"]}
    assert found == {
        "body.0.weight": (1e-3, 0.1), "body.0.bias": (1e-3, 0.0), "body.1.weight": (1e-3, 0.0),
        "body.1.bias": (1e-3, 0.0), "body.2.weight": (1e-3, 0.0), "body.2.bias": (1e-3, 0.0),
        "embed.weight": (1e-3, 0.0), "head.weight": (0.5, 0.1), "head.bias": (0.5, 0.0),
    }  # fmt: skip


FULL = Optimizer(
    name="AdamW", lr=0.01, no_decay=("biases",), accumulate=2, warmup_epochs=2.0, ema=0.9, clip_norm=1.0,
    groups=({"parameters": ["2.*"], "weight_decay": 0.3},),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(precision: str, tmp_path: Path) -> None:
    config = replace(run(tmp_path, optimizer=FULL), precision=precision, epochs=5)
    whole = trained(config)
    halves = replace(config, out_dir=str(tmp_path / "halves"))
    first = fit(halves)
    assert [next(first).epoch, next(first).epoch] == [0, 1]
    first.close()
    parts = trained(halves)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    content = read_checkpoint(tmp_path / "halves/checkpoint.pt")
    assert ("scaler" in content["stepping"]) == (precision == "fp16")


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_optimizer_only(tmp_path: Path) -> None:
    trained(run(tmp_path, optimizer=FULL))
    other = replace(run(tmp_path, optimizer=replace(FULL, ema=0.8)), epochs=EPOCHS + 1)
    with pytest.raises(CheckpointError, match=r"was trained with optimizer \{.*'ema': 0.9"):
        next(fit(other))
    into = replace(other, optimizer=Optimizer(), out_dir=None, continue_from=str(tmp_path / "run/checkpoint.pt"))
    with pytest.raises(CheckpointError, match=r"another optimizer than SGD, got 'AdamW'"):
        next(fit(into))


@pytest.mark.slow
def test_small_gradients_survive_fp16(tmp_path: Path) -> None:
    """A loss of 1e-7 times another has gradients that fp16 rounds to nothing, were they not scaled."""
    config = replace(
        run(tmp_path, lr=2e5), task=TaskConfig("tests.training.test_optimizer:Tiny"), precision="fp16", weight_decay=0.0
    )
    losses = [epoch.train_loss for epoch in fit(config)]
    assert losses[-1] < 0.5 * losses[0]


class Tiny(Line):
    def loss(self, network: Any, batch: Any) -> torch.Tensor:
        return 1e-7 * super().loss(network, batch).float()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"optimizer": Optimizer(name="Adamw")}, r"optimizer.name: unknown optimizer, got 'Adamw'; .*'AdamW'"),
        ({"optimizer": Optimizer(name="LBFGS")}, r"optimizer.name: evaluates the loss several times"),
        ({"optimizer": Optimizer(name="os:system")}, r"optimizer.name: is not an Optimizer, got 'os:system'"),
        ({"optimizer": Optimizer(name="AdamW", args={"beta": 1})}, r"args.beta: unknown argument.*'betas'"),
        ({"optimizer": Optimizer(name="AdamW", args={"lr": 1})}, r"args.lr: has a key of its own"),
        ({"optimizer": Optimizer(name="AdamW", args={"betas": [0.9, 7.0]})}, r"AdamW does not take it \(.*7.0"),
        ({"optimizer": Optimizer(name="AdamW"), "lr": 0.2}, r"training.lr: is SGD's, the optimizer is AdamW, got 0.2"),
        ({"optimizer": Optimizer(lr=0.1), "lr": 0.2}, r"training.lr: stands in training.optimizer too, got 0.2"),
        ({"optimizer": Optimizer(name="Rprop", weight_decay=0.1)}, r"optimizer.weight_decay: Rprop has none"),
        ({"optimizer": Optimizer(accumulate=0)}, r"optimizer.accumulate: must be a whole number from 1 up, got 0"),
        ({"optimizer": Optimizer(ema=1.0)}, r"optimizer.ema: must be a number above 0 and below 1, got 1.0"),
        ({"optimizer": Optimizer(clip_norm=-1.0)}, r"optimizer.clip_norm: must be a number above 0, got -1.0"),
        (
            {"optimizer": Optimizer(no_decay=("norm",))},
            r"no_decay: matches no parameter, got 'norm'; use norms, biases",
        ),
        ({"optimizer": Optimizer(groups=({"lr": 1.0},))}, r"groups\[0\].parameters: must be a list of names or globs"),
        ({"optimizer": Optimizer(groups=({"parameters": ["0.*"], "lrr": 1},))}, r"lrr: unknown argument.*'lr'"),
        ({"optimizer": Optimizer(groups=({"parameters": ["x"]},))}, r"match no parameter, got \['x'\]"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_trained(said: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        next(fit(run(tmp_path, **said)))
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "run").exists()


def test_all_faults_of_the_section_are_said_together() -> None:
    said = RunConfig(NET, lr=0.3, optimizer=Optimizer(name="Adam", args={"beta": 1, "epss": 1}, accumulate=0))
    assert [fault.where for fault in check_optimization(said)] == [  # type: ignore[union-attr]
        "training.optimizer.accumulate", "training.lr", "training.optimizer.args.beta", "training.optimizer.args.epss",
    ]  # fmt: skip
