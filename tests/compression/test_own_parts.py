"""A user's own ranking, rate, granularity and scope, named in a schedule: they prune, and a wrong one is a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import check
from raydistill.errors import ConfigError
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit, read_checkpoint

OWN = "tests.compression.own:"


def schedule(kind: str = "RankedPruner", **args: Any) -> ScheduleSpec:
    said = {"class": kind, "final_sparsity": 0.5, "weights": ["0.weight", "2.weight"], **args}
    args = {key: value for key, value in said.items() if value is not ...}
    policy = {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    return parse_schedule({"version": 1, "pruners": {"p": args}, "policies": [policy]}, "s.yaml")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))


def trained(tmp_path: Path, **args: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The sparsity of each layer, epoch by epoch, and the weights at the end."""
    run = RunConfig(
        "tests.tasks.own:net", epochs=3, batch_size=32, lr=0.02, out_dir=str(tmp_path / "run"), threads=1,
        tensorboard=False, device="cpu", task=TaskConfig("tests.tasks.own:Line"), schedule=schedule(**args),
    )  # fmt: skip
    epochs = list(fit(run))
    return [dict(epoch.layer_sparsity) for epoch in epochs], read_checkpoint(str(epochs[-1].checkpoint))["model"]


@pytest.mark.slow
def test_an_own_ranking(tmp_path: Path) -> None:
    _, weights = trained(tmp_path, ranking=f"{OWN}ORDER", rate="one_shot")
    kept = weights["0.weight"].reshape(-1) != 0
    assert kept.tolist() == [False] * 24 + [True] * 24


def test_an_own_rate(tmp_path: Path) -> None:
    epochs, _ = trained(tmp_path, rate=f"{OWN}STEPS")
    assert [layers["2.weight"] for layers in epochs] == [0.25, 0.25, 0.5]


def test_an_own_granularity(tmp_path: Path) -> None:
    _, weights = trained(tmp_path, granularity=f"{OWN}PAIRS")
    zeros = (weights["0.weight"] == 0).reshape(-1, 2)
    assert torch.equal(zeros[:, 0], zeros[:, 1])
    assert int(zeros[:, 0].sum()) == 12


def test_an_own_scope(tmp_path: Path) -> None:
    epochs, _ = trained(tmp_path, scope=f"{OWN}SPARING", rate="one_shot")
    assert epochs[-1] == {"0.weight": 0.5, "2.weight": 0.0}


def test_who_else_takes_a_ranking_or_a_group_type_by_name_takes_ones_own(net: nn.Module) -> None:
    check(schedule("NMPruner", ranking=f"{OWN}ORDER", weights=["0.weight"], n=1, m=2, final_sparsity=...), net)
    norm = {"group_type": f"{OWN}PAIRS", "desired_sparsity": 0.5, "final_sparsity": ...}
    check(schedule("L1RankedStructureParameterPruner", **norm), net)
    with pytest.raises(ConfigError, match="group_type: must be one of Filters, 3D, got"):
        check(schedule("RandomRankedFilterPruner", **norm), net)
    lasso = {"class": "GroupLassoRegularizer", "reg_regims": {"0.weight": [0.1, f"{OWN}PAIRS+Rows"]}}
    policy = {"regularizer": {"instance_name": "r"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
    check(parse_schedule({"version": 1, "regularizers": {"r": lasso}, "policies": [policy]}, "s.yaml"), net)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"ranking": f"{OWN}ORDERS"}, "p.ranking: module 'tests.compression.own' has no such ranking, got"),
        ({"ranking": f"{OWN}STEPS"}, "p.ranking: is not a Ranking, got 'tests.compression.own:STEPS'; name an object"),
        ({"ranking": f"{OWN}Ranking"}, "p.ranking: is not a Ranking, got 'tests.compression.own:Ranking'; it is"),
        ({"ranking": "os:system"}, "p.ranking: is not a Ranking, got 'os:system'"),
        ({"ranking": ["l1"]}, "p.ranking: must be one of magnitude, l1"),
        ({"ranking": f"{OWN}ONE_FOR_ALL"}, "p.ranking: must give one score a group, a tensor (groups,): of 3"),
        ({"ranking": f"{OWN}DIVIDES"}, "p.ranking: fails on 3 groups of 2 weights (ZeroDivisionError: "),
        ({"ranking": f"{OWN}WANTS_LUCK"}, "p.ranking: has evidence 'luck', it must be one of none, gradients"),
        ({"ranking": f"{OWN}WANTS_FILTERS"}, "p.ranking: has evidence apoz, which knows whole filters"),
        ({"rate": f"{OWN}two_steps"}, "p.rate: is not a Curve"),
        ({"rate": f"{OWN}TOO_HIGH"}, "p.rate: must give levels in [0, 1], it gives 1.5 at epoch 3 of 4"),
        ({"rate": f"{OWN}NO_RATE"}, "p.rate: fails at epoch 0 of 4 (TypeError: 'float' object is not callable)"),
        ({"granularity": f"{OWN}Pairs"}, "p.granularity: is not a Granularity"),
        ({"granularity": f"{OWN}PAIRS", "block_shape": [1, 2, 1, 1]}, "p.block_shape: is for group type Blocks only"),
        ({"granularity": f"{OWN}SHUFFLED"}, "expand() must give each element of (8, 6) its group's value"),
        ({"granularity": f"{OWN}LOSES"}, "group type Loses: groups() must give every element once"),
        ({"scope": f"{OWN}ORDER"}, "p.scope: is not a Scope"),
        ({"scope": f"{OWN}HALVES"}, "p.scope: must give 1 for what is kept and 0 for what is pruned"),
        ({"scope": f"{OWN}FORGETS"}, "p.scope: must give one tensor a weight, of the shape of its scores"),
        ({"scope": f"{OWN}SPARING", "group_dependency": "Leader"}, "p.scope: must be layer where group_dependency"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_runs(net: nn.Module, args: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(schedule(**args), net)
    first = str(caught.value.faults[0])
    assert first.startswith("s.yaml: pruners.p.")
    assert says in first
    assert "\n" not in first
