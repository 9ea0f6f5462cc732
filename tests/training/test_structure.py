"""A checkpoint holds the changes that its network went through; they are made again, and go on from run to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill import models
from raydistill.compression.structure import replay, structure_from
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, load_model, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint

FILTERS = {
    "version": 1,
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5,
            "weights": ["conv2.weight"],
        }
    },
    "extensions": {"thinner": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
    "policies": [
        {"pruner": {"instance_name": "filters"}, "epochs": [0]},
        {"extension": {"instance_name": "thinner"}, "epochs": [1]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=3, batch_size=256, lr=0.02, effective_train_size=0.2,
        effective_valid_size=0.2, out_dir=str(tmp_path / "run"), deterministic=True, threads=1, tensorboard=False,
        device="cpu", schedule=parse_schedule(FILTERS, "filters"),
    )  # fmt: skip


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.slow
def test_a_thinned_network_is_built_again_from_its_record(config: RunConfig, task: Classification) -> None:
    *_, last = fit(config, task=task)
    content = read_checkpoint(str(last.checkpoint))
    (change,) = structure_from(content["structure"])
    assert len(change.outputs["conv2"].kept) == 8
    fresh = replay(models.create("simplenet_cifar", 10), [change])
    assert shapes(fresh) == {name: tensor.shape for name, tensor in content["model"].items()}
    kept = change.outputs["conv2"].indices()
    masked = models.create("simplenet_cifar", 10)
    sliced = replay(models.create("simplenet_cifar", 10), [])
    sliced.load_state_dict(masked.state_dict())
    replay(sliced, [change])
    assert torch.equal(sliced.conv2.weight, masked.conv2.weight[kept])


@pytest.mark.slow
def test_what_goes_on_from_it_keeps_the_record(config: RunConfig, task: Classification, tmp_path: Path) -> None:
    *_, last = fit(config, task=task)
    before = read_checkpoint(str(last.checkpoint))["structure"]
    tuned = replace(config, schedule=None, epochs=1, out_dir=str(tmp_path / "tuned"), init_from=last.checkpoint)
    *_, after = fit(tuned, task=task)
    more = replace(config, schedule=None, epochs=4, out_dir=str(tmp_path / "more"), continue_from=last.checkpoint)
    *_, further = fit(more, task=task)
    for checkpoint in (after.checkpoint, further.checkpoint):
        assert _plain(read_checkpoint(str(checkpoint))["structure"]) == _plain(before)
        assert shapes(load_model(str(checkpoint))) == shapes(load_model(str(last.checkpoint)))


@pytest.mark.slow
@pytest.mark.parametrize("begins", ["init_from", "continue_from"])
def test_a_run_that_begins_thinned_is_killed_and_goes_on(
    begins: str, config: RunConfig, task: Classification, tmp_path: Path
) -> None:
    """What its network went through before it began is not done twice; thinned again in the run, it is done once."""
    *_, last = fit(config, task=task)
    again = parse_schedule(
        {
            **FILTERS,
            "policies": [
                {"pruner": {"instance_name": "filters"}, "epochs": [3]},
                {"extension": {"instance_name": "thinner"}, "epochs": [4]},
            ],
        },
        "again",
    )  # fmt: skip
    begun = {begins: str(last.checkpoint), "epochs": 7}
    whole = [
        epoch.metrics for epoch in fit(replace(config, schedule=again, out_dir=str(tmp_path / "w"), **begun), task=task)
    ]
    parts = replace(config, schedule=again, out_dir=str(tmp_path / "p"), **begun)
    found = []
    for _ in whole:
        run = fit(parts, task=task)
        found.append(next(run).metrics)
        run.close()
    assert found == whole
    content = read_checkpoint(tmp_path / "p/checkpoint.pt")
    assert [len(change["outputs"]["conv2"]["kept"]) for change in content["structure"]] == [8, 4]
    assert content["model"]["conv2.weight"].shape[0] == 4
    assert shapes(load_model(tmp_path / "p/checkpoint.pt"))["conv2.weight"][0] == 4
    wrong = {**content, "structure": content["structure"][1:]}
    write_checkpoint(tmp_path / "p/checkpoint.pt", wrong)
    with pytest.raises(CheckpointError, match="begins with other changes than those of the network"):
        next(fit(replace(parts, epochs=9), task=task))


@pytest.mark.slow
def test_a_file_of_before_there_were_records_gets_one_when_it_goes_on(
    config: RunConfig, task: Classification, tmp_path: Path
) -> None:
    *_, last = fit(config, task=task)
    content = read_checkpoint(str(last.checkpoint))
    del content["structure"]
    write_checkpoint(tmp_path / "old.pt", content)
    tuned = replace(config, schedule=None, epochs=1, out_dir=str(tmp_path / "t"), init_from=str(tmp_path / "old.pt"))
    *_, after = fit(tuned, task=task)
    (change,) = structure_from(read_checkpoint(str(after.checkpoint))["structure"])
    assert (change.outputs["conv2"].width, len(change.outputs["conv2"].kept)) == (16, 8)
    assert shapes(load_model(str(after.checkpoint))) == shapes(load_model(tmp_path / "old.pt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("structure", "says"),
    [
        ([{"change": "folded"}], r"structure\[0\].norms: must map layers to batch norms"),
        ([{"change": "bent"}], r"structure\[0\].change: is not known, got 'bent'"),
        ([3], "must be a list of changes"),
        ([{"change": "thinned", "outputs": {"conv2": {"width": 16, "kept": [3, 2]}}, "inputs": {}}], "each once"),
        ([{"change": "thinned", "outputs": {"nowhere": {"width": 16, "kept": [3]}}, "inputs": {}}], "no such layer"),
        ([], "must have shape"),
    ],
)
def test_a_record_that_does_not_fit_the_weights_is_one_line(
    config: RunConfig, task: Classification, tmp_path: Path, structure: Any, says: str
) -> None:
    *_, last = fit(replace(config, epochs=2), task=task)
    write_checkpoint(tmp_path / "odd.pt", {**read_checkpoint(str(last.checkpoint)), "structure": structure})
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(tmp_path / "odd.pt")
    assert "\n" not in str(caught.value)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
