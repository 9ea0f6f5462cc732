from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy
from raydistill.compression.rates import PolicyTime
from raydistill.compression.thinning import EXTENSIONS, ChannelRemover, FilterRemover, StructureRemover
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, ConfigError
from raydistill.schedule import load_schedule, parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, load_model, read_checkpoint
from tests.compression.thinning.conftest import unsettled, zeroed

WHEN = PolicyTime(0, 0, 1, 1)
SCHEDULE = parse_schedule(
    {
        "pruners": {
            "filters": {
                "class": "L1RankedStructureParameterPruner_AGP",
                "initial_sparsity": 0.3,
                "final_sparsity": 0.5,
                "group_type": "Filters",
                "weights": ["conv1.weight", "conv2.weight"],
            },
            "fine": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.5,
                "weights": ["fc1.weight"],
            },
        },
        "extensions": {"thinner": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
        "policies": [
            {"pruner": {"instance_name": "filters"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
            {"pruner": {"instance_name": "fine"}, "starting_epoch": 0, "ending_epoch": 5, "frequency": 1},
            {"extension": {"instance_name": "thinner"}, "epochs": [2]},
        ],
    },
    "s.yaml",
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean((2, 3)))


def model() -> tuple[Small, torch.optim.Optimizer, MaskSet]:
    torch.manual_seed(0)
    small = unsettled(Small())
    masks = MaskSet(small)
    for name, mask in zeroed(small, {"conv1": [1, 2]}, {"conv2": [4]}).items():
        masks.set(name, mask)
    return small, torch.optim.SGD(small.parameters(), lr=0.1), masks


@pytest.mark.parametrize(
    ("name", "function", "width"),
    [
        ("FilterRemover", None, 4),
        ("FilterRemover", "remove_filters", 4),
        ("ChannelRemover", None, 5),
        ("ChannelRemover", "remove_channels", 5),
        ("StructureRemover", "remove_channels", 3),
        ("StructureRemover", None, 3),
    ],
)
def test_each_removes_what_its_name_says_at_the_beginning_of_an_epoch(
    name: str, function: str | None, width: int
) -> None:
    small, optimizer, masks = model()
    remover = EXTENSIONS[name]("thinner", function, "resnet20_cifar", "cifar10")
    assert isinstance(remover, Policy)
    remover.bind(small, optimizer, masks, None)  # the dataset's name gives the input
    assert remover.report is None
    remover.on_epoch_begin(WHEN)
    assert small.conv1.out_channels == small.conv2.in_channels == width
    assert masks["conv1.weight"].shape[0] == masks["conv2.weight"].shape[1] == width
    assert remover.report is not None
    assert remover.report.removed == {"conv1": 6 - width}


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"thinning_func_str: is not known, got 'remove_filter'; did you mean"):
        FilterRemover("thinner", "remove_filter")
    with pytest.raises(ConfigError, match="arch: must be a name, got 3"):
        ChannelRemover("thinner", arch=3)
    remover = StructureRemover("thinner", dataset="flowers")
    with pytest.raises(ConfigError, match=r"thinner.dataset: .* got 'flowers'; use one of: cifar10, imagenet"):
        remover.bind(*model(), None)
    with pytest.raises(ConfigError, match="thinner: has no model yet"):
        remover.on_epoch_begin(WHEN)


@pytest.mark.slow
def test_schedule_files_that_thin_are_built(compat: Path) -> None:
    files = [path for path in sorted((compat / "distiller_schedules").rglob("*.yaml")) if "Remover" in path.read_text()]
    assert files
    for path in files:
        for instance in load_schedule(path).instances:
            if instance.section == "extensions":
                built = EXTENSIONS[instance.class_name](instance.name, **instance.args)
                built.bind(*model(), None)


def test_the_scheduler_thins_in_mid_run_and_goes_on_pruning() -> None:
    small, optimizer, _ = model()
    spec = parse_schedule(
        {
            "pruners": {"fine": {"class": "SparsityLevelParameterPruner", "levels": {"conv2.weight": 0.5}}},
            "extensions": {"thinner": {"class": "FilterRemover", "dataset": "cifar10"}},
            "policies": [
                {"extension": {"instance_name": "thinner"}, "epochs": [0]},
                {"pruner": {"instance_name": "fine"}, "epochs": [0, 1]},
            ],
        },
        "s.yaml",
    )
    scheduler = build(spec, small, optimizer, (torch.zeros(1, 3, 12, 12),))
    for epoch in range(2):
        scheduler.on_epoch_begin(epoch)
        small(torch.randn(2, 3, 12, 12)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.on_minibatch_end(epoch, 0, 1)
        assert scheduler.masks["conv2.weight"].shape == small.conv2.weight.shape == (5, 4, 3, 3)
        assert scheduler.masks.sparsity()["conv2.weight"] == pytest.approx(0.5)
        assert int((small.conv2.weight == 0).sum()) == 90


@pytest.mark.slow
def test_a_run_that_thins_resumes_bit_for_bit_and_its_checkpoint_loads_by_itself(tmp_path: Path) -> None:
    dataset = load(DatasetConfig("digits"))
    config = RunConfig(
        arch="simplenet_cifar",
        dataset=DatasetConfig("digits"),
        epochs=5,
        lr=0.05,
        batch_size=512,
        schedule=SCHEDULE,
        out_dir=str(tmp_path / "whole"),
        deterministic=True,
        threads=1,
        tensorboard=False,
    )
    whole = list(fit(config, task=Classification(dataset)))
    for stop in (2, 4):  # before the thinning, and after it
        parts = replace(config, out_dir=str(tmp_path / f"parts{stop}"))
        list(fit(replace(parts, epochs=stop), task=Classification(dataset)))
        rest = list(fit(replace(parts, resume=True), task=Classification(dataset)))
        assert [m.metrics["loss"] for m in rest] == [m.metrics["loss"] for m in whole[stop:]]
        left, right = (read_checkpoint(Path(c.out_dir) / "checkpoint.pt")["model"] for c in (config, parts))
        assert all(torch.equal(left[name], right[name]) for name in left)
    path = tmp_path / "whole" / "checkpoint.pt"
    saved = read_checkpoint(path)
    loaded = load_model(path)
    assert (loaded.conv1.out_channels, loaded.conv2.in_channels, loaded.conv2.out_channels) == (3, 3, 8)
    assert loaded.fc1.weight.shape == saved["model"]["fc1.weight"].shape == (120, 8 * 25)
    assert saved["optimizer"]["state"][0]["momentum_buffer"].shape == (3, 3, 5, 5)
    assert saved["scheduler"]["masks"]["fc1.weight"].shape == (120, 200)
    assert float((loaded.fc1.weight == 0).float().mean()) == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(CheckpointError, match="belongs to another architecture"):
        list(
            fit(
                replace(config, arch="resnet20_cifar", init_from=path, out_dir=None, schedule=None),
                task=Classification(dataset),
            )
        )
