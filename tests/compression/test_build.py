from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.compression import build, check, planned_sparsity
from raydistill.errors import ConfigError
from raydistill.models import create
from raydistill.schedule import load_schedule, parse_schedule

MAPPING = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner",
            "initial_sparsity": 0.1,
            "final_sparsity": 0.5,
            "weights": ["conv.weight", "module.fc.weight"],
        }
    },
    "lr_schedulers": {"lr": {"class": "ExponentialLR", "gamma": 0.5}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
        {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}


def faults_of(model: nn.Module, change: dict) -> list[str]:
    mapping = copy.deepcopy(MAPPING)
    for path, value in change.items():
        section, name, key = path.split(".")
        if value is None:
            del mapping[section][name][key]
        else:
            mapping[section][name][key] = value
    with pytest.raises(ConfigError) as caught:
        check(parse_schedule(mapping, "s.yaml"), model)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"pruners.agp.class": "AutomatedGradualPrunner"},
            "s.yaml: pruners.agp.class: unknown pruner class, got 'AutomatedGradualPrunner'; "
            "did you mean 'AutomatedGradualPruner'?",
        ),
        (
            {"pruners.agp.final_sparsty": 0.5},
            "s.yaml: pruners.agp.final_sparsty: unknown argument; did you mean 'final_sparsity'?",
        ),
        ({"pruners.agp.final_sparsity": None}, "s.yaml: pruners.agp.final_sparsity: is missing"),
        (
            {"pruners.agp.weights": ["cnv.weight"]},
            "s.yaml: pruners.agp.weights: the model has no such weight, got 'cnv.weight'; did you mean 'conv.weight'?",
        ),
        ({"pruners.agp.final_sparsity": 0.05}, "s.yaml: pruners.agp.final_sparsity: must not be below"),
        ({"pruners.agp.class": "nowhere.mod:Pruner"}, "cannot import pruner class"),
        ({"pruners.agp.class": "collections:Countr"}, "did you mean 'Counter'?"),
        ({"pruners.agp.class": "fractions:Fraction"}, "s.yaml: pruners.agp"),
        ({"lr_schedulers.lr.class": "ExponentalLR"}, "did you mean 'ExponentialLR'?"),
        ({"lr_schedulers.lr.gama": 0.1}, "lr_schedulers.lr.gama: unknown argument; did you mean 'gamma'?"),
    ],
)
def test_what_the_model_or_a_class_refuses_is_one_line(model: nn.Module, change: dict, says: str) -> None:
    faults = faults_of(model, change)
    assert any(says in fault for fault in faults), faults
    assert not any("\n" in fault for fault in faults)


def test_all_faults_are_reported_together(model: nn.Module) -> None:
    faults = faults_of(model, {"pruners.agp.weights": ["a.weight", "b.weight"], "lr_schedulers.lr.gama": 1})
    assert len(faults) == 3


def test_a_policy_argument_that_nothing_reads_is_refused(model: nn.Module) -> None:
    mapping = copy.deepcopy(MAPPING)
    mapping["policies"][0]["pruner"]["args"] = {"keep_msk": True}
    with pytest.raises(ConfigError, match=r"policies\[0\].pruner.args.keep_msk: unknown argument"):
        check(parse_schedule(mapping, "s.yaml"), model)


def test_building_leaves_the_schedule_as_it_was(model: nn.Module) -> None:
    spec = parse_schedule(MAPPING, "s.yaml")
    build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert spec == parse_schedule(MAPPING, "s.yaml")


def test_a_users_own_pruner_comes_in_by_its_dotted_path(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_pruners.py").write_text(
        "from raydistill.compression.pruners import SparsityLevelParameterPruner\n"
        "class Mine(SparsityLevelParameterPruner):\n"
        "    def __init__(self, name, half_of):\n"
        "        super().__init__(name, {half_of: 0.5})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mapping = {
        "pruners": {"own": {"class": "my_pruners:Mine", "half_of": "fc.weight"}},
        "policies": [{"pruner": {"instance_name": "own"}, "epochs": [0]}],
    }
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    scheduler.on_epoch_begin(0)
    assert int((model.fc.weight == 0).sum()) == 20


def test_planned_sparsity_is_where_the_last_policy_leads(model: nn.Module) -> None:
    mapping = copy.deepcopy(MAPPING)
    mapping["pruners"]["late"] = {"class": "SparsityLevelParameterPruner", "levels": {"fc.weight": 0.75}}
    mapping["policies"].append({"pruner": {"instance_name": "late"}, "epochs": [9]})
    total, levels = planned_sparsity(parse_schedule(mapping, "s.yaml"), model)
    assert levels == {"conv.weight": 54 / 108, "fc.weight": 30 / 40}
    assert total == (54 + 30) / 148


@pytest.mark.slow
def test_the_articles_schedule_reaches_its_figures(root: Path) -> None:
    model = create("simplenet_cifar", 10)
    scheduler = build(
        load_schedule(root / "schedules" / "simplenet_agp.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1)
    )
    for epoch in range(100):
        scheduler.on_epoch_begin(epoch)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    zeros = {name: int((p == 0).sum()) for name, p in weights.items()}
    assert zeros == {
        "conv1.weight": 135,  # 30 % of 450
        "conv2.weight": 1200,  # 50 % of 2,400
        "fc1.weight": 38400,  # 80 % of 48,000
        "fc2.weight": 8064,
        "fc3.weight": 672,
    }
    assert sum(zeros.values()) == 48471
    assert sum(p.numel() for p in weights.values()) == 61770


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("pruners", "pruner"),
        ("regularizers", "regularizer"),
        ("quantizers", "quantizer"),
        ("lr_schedulers", "lr_scheduler"),
        ("extensions", "extension"),
    ],
)
@pytest.mark.parametrize(
    "class_name", ["os:system", "subprocess:run", "torch.hub:load", "pathlib:Path.touch", "torch:save"]
)
def test_what_is_no_class_of_its_section_is_not_called(
    section: str, kind: str, class_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instance's name would be its first argument."""
    monkeypatch.chdir(tmp_path)
    mapping = {section: {"touch called": {"class": class_name}}, "policies": []}
    mapping["policies"] = [{kind: {"instance_name": "touch called"}, "epochs": [0]}]
    model = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match=rf"{section}\.touch called\.class: is not an? \w+, got '{class_name}'"):
        check(parse_schedule(mapping, "s.yaml"), model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("class_name", ["os:system", "builtins:exec"])
def test_nor_is_one_that_is_nested(class_name: str) -> None:
    nested = {"class": "SequentialLR", "milestones": [1], "schedulers": [{"class": class_name}, {"class": class_name}]}
    mapping = {"lr_schedulers": {"lr": nested}, "policies": [{"lr_scheduler": {"instance_name": "lr"}, "epochs": [0]}]}
    with pytest.raises(ConfigError, match=rf"schedulers\[0\]\.class: is not a LRScheduler, got '{class_name}'"):
        check(parse_schedule(mapping, "s.yaml"), nn.Linear(4, 4))
