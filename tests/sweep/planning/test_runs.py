"""The runs of a sweep: of the baseline, of the trunk, and who teaches a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.runs import baseline_config, run_config, trunk_config
from raydistill.tasks.classification import ImageShape
from raydistill.training import Distillation
from tests.sweep.planning.trunks import BRANCHES

CIFAR = ImageShape(10, (3, 32, 32))
WriteSweep = Callable[..., Path]


def test_a_trunk_is_pruned_at_a_constant_rate_from_its_first_epoch(write_sweep: WriteSweep) -> None:
    run = trunk_config(load_sweep(write_sweep(*BRANCHES, ("trunk/lr", 0.3))))
    assert (run.epochs, run.lr, run.batch_size, run.checkpoint_every) == (8, 0.3, 128, 1)
    assert run.schedule is not None
    assert [policy.kind for policy in run.schedule.policies] == ["pruner"]


def test_the_baseline_follows_training_but_for_its_own_epochs_and_rate(write_sweep: WriteSweep) -> None:
    run = baseline_config(load_sweep(write_sweep(("training/weight_decay", 0.01))))
    assert (run.epochs, run.lr, run.batch_size, run.weight_decay, run.schedule) == (3, 0.05, 128, 0.01, None)
    own = baseline_config(load_sweep(write_sweep(("baseline/batch_size", 64))))
    assert (own.batch_size, own.epochs) == (64, 3)
    plain = baseline_config(load_sweep(write_sweep(("baseline", {}))))
    assert (plain.epochs, plain.lr) == (4, 0.02)


@pytest.mark.slow
def test_the_baseline_teaches_every_trial_but_not_itself(write_sweep: WriteSweep) -> None:
    taught = ("distillation", {"temperature": 3, "distill_wt": 0.6, "start_epoch": 2, "end_epoch": 4})
    sweep = load_sweep(write_sweep(taught))
    assert baseline_config(sweep).distillation is None
    trial = plan_sweep(sweep, CIFAR).trials[0]
    run = trial.placed("/b/checkpoint.pt", "/s/t0000", 1, "cpu", "fp32").run
    assert run.distillation == Distillation(
        checkpoint="/b/checkpoint.pt", temperature=3.0, distill_wt=0.6, student_wt=0.3, start_epoch=2, end_epoch=4
    )
    hidden = {"hidden": {"fc1": "fc1"}, "hidden_wt": 2, "hidden_loss": "cosine"}
    run = plan_sweep(load_sweep(write_sweep(("distillation", hidden))), CIFAR).trials[0].run
    assert run.distillation is not None
    assert {key: getattr(run.distillation, key) for key in hidden} == hidden
    with pytest.raises(ConfigError, match=r"distillation.hidden: the network has no such module, got 'fc9'"):
        plan_sweep(load_sweep(write_sweep(("distillation", {"hidden": {"fc9": "fc1"}}))), CIFAR)
    shorter = load_sweep(write_sweep(taught), Overrides(epochs=2))
    found = plan_sweep(shorter, CIFAR).trials[0].run.distillation
    assert found is not None
    assert (found.start_epoch, found.end_epoch) == (1, 2)
    assert plan_sweep(load_sweep(write_sweep()), CIFAR).trials[0].run.distillation is None


def test_a_drawn_value_reaches_a_loop_of_ones_own_alone(write_sweep: WriteSweep) -> None:
    sweep = load_sweep(write_sweep())
    section = sweep.sections.training
    drawn = {"training.lr": 0.03, "train.args.momentum": 0.5}
    plain = run_config(sweep, section, None, drawn)
    assert (plain.train, dict(plain.values), plain.lr) == (None, {}, section.lr)
    assert (plain.arch, plain.seed, plain.dataset.name) == ("simplenet_cifar", 0, "digits")
    own = load_sweep(write_sweep(("train", {"name": "own:loop", "args": {"momentum": 0.9}})))
    run = run_config(own, section, None, drawn)
    assert run.train is not None
    assert (run.train.name, dict(run.train.args)) == ("own:loop", {"momentum": 0.5})
    assert dict(run.values) == drawn
    assert run_config(own, section, None).values == {}


def test_a_baseline_that_prunes_or_goes_on_too_long_is_one_line_each(write_sweep: WriteSweep) -> None:
    schedule = {
        "version": 1,
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"fc1.weight": 0.5}}},
        "lr_schedulers": {"decay": {"class": "StepLR", "step_size": 1}},
        "policies": [
            {"pruner": {"instance_name": "p"}, "epochs": [0]},
            {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1},
        ],
    }
    with pytest.raises(ConfigError) as caught:
        baseline_config(load_sweep(write_sweep(("baseline/schedule", schedule))))
    dense, late = caught.value.faults
    assert "space.yaml: baseline.schedule.pruners.p: the baseline is dense, only lr_schedulers may act" in str(dense)
    assert "baseline.epochs" in str(late)
