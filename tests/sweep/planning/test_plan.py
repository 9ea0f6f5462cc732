"""Trials: reproducible, each with its own schedule, planned sparsity by a second route."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from raydistill.errors import ConfigError
from raydistill.parts import identity
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.tasks.classification import ImageShape
from tests.sweep.planning.trunks import BRANCHES

CIFAR = ImageShape(10, (3, 32, 32))

WriteSweep = Callable[..., Path]

SIZES = {"conv1.weight": 450, "conv2.weight": 2400, "fc1.weight": 48000, "fc2.weight": 10080, "fc3.weight": 840}


@pytest.mark.slow
def test_a_trial_depends_on_seed_and_index_alone(write_sweep: WriteSweep) -> None:
    file = write_sweep()
    few = plan_sweep(load_sweep(file), CIFAR).trials
    many = plan_sweep(load_sweep(file, Overrides(num_samples=9)), CIFAR).trials
    other = plan_sweep(load_sweep(file, Overrides(seed=1)), CIFAR).trials
    assert [trial.values for trial in many[:3]] == [trial.values for trial in few]
    assert [trial.trial_id for trial in many] == [f"t{i:04d}" for i in range(9)]
    assert len({tuple(trial.values.values()) for trial in many}) == 9
    assert other[0].values != few[0].values


def test_drawn_values_reach_the_schedule_and_the_training(write_sweep: WriteSweep) -> None:
    for trial in plan_sweep(load_sweep(write_sweep()), CIFAR).trials:
        pruners = yaml.safe_load(trial.schedule_text)["pruners"]
        for weight in ("fc1.weight", "fc2.weight"):
            (pruner,) = [p for p in pruners.values() if p["weights"] == [weight]]
            assert pruner["final_sparsity"] == trial.values[f"per_layer.{weight}.final_sparsity"]
        (conv1,) = [p for p in pruners.values() if p["weights"] == ["conv1.weight"]]
        assert conv1["final_sparsity"] == 0.5
        assert trial.run.lr == trial.values["training.lr"]
        assert trial.run.batch_size == 128


def test_planned_sparsity_counts_weights(write_sweep: WriteSweep) -> None:
    for trial in plan_sweep(load_sweep(write_sweep()), CIFAR).trials:
        zeros = int(0.5 * SIZES["conv1.weight"])
        for weight in ("fc1.weight", "fc2.weight"):
            zeros += int(trial.values[f"per_layer.{weight}.final_sparsity"] * SIZES[weight])
        assert trial.planned_sparsity == pytest.approx(zeros / sum(SIZES.values()), abs=1e-9)


def test_planning_leaves_the_random_state_alone(write_sweep: WriteSweep) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    plan_sweep(load_sweep(write_sweep()), CIFAR)
    assert torch.equal(torch.get_rng_state(), before)


def test_placed_fills_in_where_a_trial_runs(write_sweep: WriteSweep) -> None:
    trial = plan_sweep(load_sweep(write_sweep()), CIFAR).trials[0]
    run = trial.placed("/b/checkpoint.pt", "/s/t0000", 2, "cpu", "bf16").run
    assert (run.init_from, run.out_dir, run.threads, run.device) == ("/b/checkpoint.pt", "/s/t0000", 2, "cpu")
    assert run.precision == "bf16"


def test_a_trial_branches_off_the_trunk_where_it_comes_nearest_to_the_drawn_sparsity(write_sweep: WriteSweep) -> None:
    plan = plan_sweep(load_sweep(write_sweep(*BRANCHES)), CIFAR)
    # by hand: after n epochs the density is 0.8 * (0.1 / 0.8) ** ((n - 1) / 7)
    assert plan.branches == pytest.approx({n: 1 - 0.8 * 0.125 ** ((n - 1) / 7) for n in (2, 4, 6, 8)}, abs=1e-4)
    nearest = {0.4: 2, 0.75: 6, 0.9: 8}  # 0.41, 0.67, 0.82, 0.90
    assert {trial.values["trunk.sparsity"]: trial.branch for trial in plan.trials} == nearest
    for trial in plan.trials:
        assert trial.planned_sparsity == plan.branches[trial.branch]
        run = trial.placed("/b/dense.pt", "/s/t", 1, "cpu", "fp32", {n: f"/t/{n}.pt" for n in plan.branches}).run
        assert run.init_from == f"/t/{trial.branch}.pt"


def test_the_teacher_of_a_branch_is_the_baseline(write_sweep: WriteSweep) -> None:
    trial = plan_sweep(load_sweep(write_sweep(*BRANCHES, ("distillation", {"temperature": 3}))), CIFAR).trials[0]
    run = trial.placed("/b/dense.pt", "/s/t", 1, "cpu", "fp32", {n: f"/t/{n}.pt" for n in (2, 4, 6, 8)}).run
    assert run.distillation is not None
    assert run.distillation.checkpoint == "/b/dense.pt"


def test_fewer_epochs_shorten_the_trunk_too_and_leave_it_a_branch(write_sweep: WriteSweep) -> None:
    sweep = load_sweep(write_sweep(*BRANCHES), Overrides(epochs=1))
    assert list(plan_sweep(sweep, CIFAR).branches) == [1, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"teacher": "none.pt"}, "distillation.teacher: no such file"),
        ({"distill_wt": 0, "student_wt": 0}, "distillation: distill_wt and student_wt must not both be 0"),
        ({"start_epoch": 3, "end_epoch": 3}, "distillation.end_epoch: must be above start_epoch 3, got 3"),
        ({"temperature": 0}, "distillation.temperature"),
        ({"hidden": {"fc1": "fc1"}, "hidden_loss": "mes"}, "distillation.hidden_loss"),
        ({"temprature": 2}, "did you mean 'temperature'?"),
    ],
)
def test_a_wrong_teacher_is_one_line(write_sweep: WriteSweep, change: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(("distillation", change)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_precision_that_the_file_names_stays(write_sweep: WriteSweep) -> None:
    trial = plan_sweep(load_sweep(write_sweep(("training/precision", "fp32"))), CIFAR).trials[0]
    assert trial.placed("b", Path("o"), 1, "cpu", "bf16").run.precision == "fp32"


def test_a_part_of_the_training_split_is_for_the_baseline_too_and_a_trial_of_its_own_identity(
    write_sweep: WriteSweep,
) -> None:
    whole, part = (load_sweep(write_sweep(*changes)) for changes in ((), (("training/effective_train_size", 0.25),)))
    assert [baseline_config(sweep).effective_train_size for sweep in (whole, part)] == [1.0, 0.25]
    runs = [plan_sweep(sweep, CIFAR).trials[0].run for sweep in (whole, part)]
    assert [run.effective_train_size for run in runs] == [1.0, 0.25]
    assert "effective_train_size" not in identity(runs[0])
    assert identity(runs[1])["effective_train_size"] == 0.25


@pytest.mark.parametrize("value", [0, 1.5, True])
def test_a_part_of_the_training_split_is_a_fraction(write_sweep: WriteSweep, value: object) -> None:
    with pytest.raises(ConfigError, match=f"training.effective_train_size: must be .*, got {value}") as caught:
        load_sweep(write_sweep(("training/effective_train_size", value)))
    assert len(caught.value.faults) == 1


def test_a_pruner_with_globs_is_searched_weight_by_weight(write_sweep: Callable[..., Path]) -> None:
    file = write_sweep(
        ("schedule/pruners", {"p": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.05,
                                    "final_sparsity": 0.5, "weights": ["fc?.weight"]}}),
        ("schedule/policies", [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 2,
                                "frequency": 1}]),
        ("search", {"per_layer": {"weights": ["fc*.weight"], "final_sparsity": {"uniform": [0.3, 0.9]}}}),
    )  # fmt: skip
    plan = plan_sweep(load_sweep(file), CIFAR)
    names = [d.path for d in plan.space.dimensions]
    assert names == [f"per_layer.{name}.final_sparsity" for name in ("fc1.weight", "fc2.weight", "fc3.weight")]
    for trial in plan.trials:
        pruners = trial.run.schedule.mapping["pruners"]
        assert {name: body["final_sparsity"] for name, body in pruners.items()} == {
            f"p/{path.split('.', 1)[1].rpartition('.')[0]}": value for path, value in trial.values.items()
        }


def test_a_pruner_with_globs_for_keys_is_searched_weight_by_weight(write_sweep: Callable[..., Path]) -> None:
    file = write_sweep(
        ("schedule/pruners", {"p": {"class": "SparsityLevelParameterPruner",
                                    "levels": {"fc3.weight": 0.1, "fc?.weight": 0.5}}}),
        ("schedule/policies", [{"pruner": {"instance_name": "p"}, "epochs": [0]}]),
        ("search", {"per_layer": {"weights": ["fc[12].weight"], "level": {"uniform": [0.6, 0.9]}}}),
    )  # fmt: skip
    for trial in plan_sweep(load_sweep(file), CIFAR).trials:
        pruners = trial.run.schedule.mapping["pruners"].values()
        levels = {weight: level for body in pruners for weight, level in body["levels"].items()}
        assert set(levels) == {"fc1.weight", "fc2.weight", "fc3.weight"}
        assert levels["fc3.weight"] == 0.1
        assert min(levels["fc1.weight"], levels["fc2.weight"]) >= 0.6


def test_types_and_exclusions_are_searched_weight_by_weight(write_sweep: Callable[..., Path]) -> None:
    file = write_sweep(
        ("schedule/pruners", {"p": {"class": "RankedPruner", "final_sparsity": 0.5, "types": ["Linear", "Conv2d"],
                                    "except": [r"re:conv1\..*"]}}),
        ("schedule/policies", [{"pruner": {"instance_name": "p"}, "epochs": [0]}]),
        ("search", {"per_layer": {"types": "Linear", "except": ["fc3.*"], "final_sparsity": {"uniform": [0.6, 0.9]}}}),
    )  # fmt: skip
    for trial in plan_sweep(load_sweep(file), CIFAR).trials:
        pruners = trial.run.schedule.mapping["pruners"]
        assert set(pruners) == {f"p/{name}.weight" for name in ("conv2", "fc1", "fc2", "fc3")}
        assert {name for name, body in pruners.items() if body["final_sparsity"] != 0.5} == {
            "p/fc1.weight",
            "p/fc2.weight",
        }


@pytest.mark.slow
def test_bits_are_searched_beside_sparsity(tmp_path: Path) -> None:
    file = Path(__file__).resolve().parents[3] / "search_spaces" / "simplenet_bits.yaml"
    said = yaml.safe_load(file.read_text())
    said["dataset"], said["searcher"] = {"name": "digits"}, {"name": "sobol"}
    (tmp_path / "bits.yaml").write_text(yaml.safe_dump(said))
    plan = plan_sweep(load_sweep(tmp_path / "bits.yaml", Overrides(num_samples=4)), CIFAR)
    found = set()
    for trial in plan.trials:
        (quantizer,) = yaml.safe_load(trial.schedule_text)["quantizers"].values()
        for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"):
            bits = quantizer["overrides"][layer]["bits_weights"]
            assert bits == trial.values[f"per_layer.{layer}.weight.bits_weights"]
            found.add(bits)
        assert 0.1 < trial.planned_sparsity < 1
    assert found >= {2, 4, 8}


@pytest.mark.slow
def test_bits_that_no_quantizer_takes_are_one_line(tmp_path: Path) -> None:
    file = Path(__file__).resolve().parents[3] / "search_spaces" / "simplenet_bits.yaml"
    said = yaml.safe_load(file.read_text())
    said["dataset"] = {"name": "digits"}
    said["search"]["per_layer"] = [{"weights": ["fc3.weight"], "bits_weights": {"choice": [1, 8]}}]
    (tmp_path / "bits.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(ConfigError, match=r"bits_weights: must be a whole number from 2 to 32, or null.*got 1"):
        plan_sweep(load_sweep(tmp_path / "bits.yaml", Overrides(num_samples=4)), CIFAR)


@pytest.mark.slow
def test_a_plan_warns_where_trials_are_weighed_before_their_masks_are_final(write_sweep: WriteSweep) -> None:
    weighed = {"name": "hyperband", "grace_period": 1, "score": {"top1": 1.0, "planned_sparsity": 0.3}}
    plan = plan_sweep(load_sweep(write_sweep(("trial_scheduler", weighed))), CIFAR)
    (line,) = [line for line in plan.warnings if "trial_scheduler" in line]
    assert "space.yaml: trial_scheduler.grace_period: hyperband compares" in line
    assert "\n" not in line
    final = 1 + max(p.last_epoch for p in plan.trials[0].run.schedule.policies if p.kind == "pruner")
    assert f"after {final} epochs, got 1" in line
    for said in ({"name": "moasha", "grace_period": 1}, {"name": "none"}, {**weighed, "grace_period": final}):
        plan = plan_sweep(load_sweep(write_sweep(("trial_scheduler", said))), CIFAR)
        assert not [line for line in plan.warnings if "trial_scheduler" in line]
