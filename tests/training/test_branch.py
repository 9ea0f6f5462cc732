"""Networks are kept along a run, and another run begins with one and its masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit, load_model, read_checkpoint
from raydistill.training.branch import branch_name, keep_branch

PRUNED = parse_schedule({
    "pruners": {"p": {
        "class": "RankedPruner", "initial_sparsity": 0.25, "final_sparsity": 0.75, "rate": "linear",
        "weights": ["0.weight"],
    }},
    "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
}, "pruned")  # fmt: skip
RUN = RunConfig(
    "tests.tasks.own:net", task=TaskConfig("tests.tasks.own:Line"), schedule=PRUNED, epochs=3, lr=0.01, batch_size=16,
    device="cpu", precision="fp32", tensorboard=False,
)  # fmt: skip


def trunk(folder: Path) -> RunConfig:
    run = replace(RUN, out_dir=str(folder))
    for _ in fit(run):
        keep_branch(folder / "checkpoint.pt", (2, 3))
    return run


def zeros(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return state["0.weight"] == 0


@pytest.mark.slow
def test_a_branch_begins_with_the_masks_of_its_epoch_and_keeps_them(tmp_path: Path) -> None:
    trunk(tmp_path / "trunk")
    assert sorted(path.name for path in (tmp_path / "trunk").glob("after-*")) == [branch_name(2), branch_name(3)]
    for epochs, share in ((2, 0.5), (3, 0.75)):
        start = tmp_path / "trunk" / branch_name(epochs)
        begun = zeros(read_checkpoint(start)["model"])
        assert float(begun.float().mean()) == share
        assert torch.equal(load_model(start, RUN.arch).state_dict()["0.weight"] == 0, begun)
        branch = replace(RUN, schedule=None, init_from=str(start), out_dir=str(tmp_path / f"branch-{epochs}"))
        for metrics in fit(branch):
            assert metrics.epoch < 3
        trained = read_checkpoint(tmp_path / f"branch-{epochs}" / "checkpoint.pt")
        assert torch.equal(zeros(trained["model"]), begun)  # without masks a step would have filled them
        assert not torch.equal(trained["model"]["0.weight"], read_checkpoint(start)["model"]["0.weight"])


@pytest.mark.slow
def test_a_branch_that_is_resumed_still_has_its_masks(tmp_path: Path) -> None:
    trunk(tmp_path / "trunk")
    start = str(tmp_path / "trunk" / branch_name(2))
    branch = replace(RUN, schedule=None, init_from=start, out_dir=str(tmp_path / "branch"))
    whole = replace(branch, out_dir=str(tmp_path / "whole"))
    training = fit(branch)
    next(training)
    training.close()
    for run in (replace(branch, resume=True), whole):
        for _ in fit(run):
            pass
    ends = [read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("branch", "whole")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


@pytest.mark.slow
def test_a_network_is_kept_once_and_as_the_checkpoint_had_it(tmp_path: Path) -> None:
    trunk(tmp_path)
    last = read_checkpoint(tmp_path / "checkpoint.pt")
    kept = tmp_path / branch_name(3)
    assert all(torch.equal(read_checkpoint(kept)["model"][name], value) for name, value in last["model"].items())
    assert "optimizer" not in read_checkpoint(kept)
    before = kept.stat().st_mtime_ns
    assert keep_branch(tmp_path / "checkpoint.pt", (3,)) is None
    assert kept.stat().st_mtime_ns == before
    kept.unlink()  # as a process that was killed between the two files leaves it
    assert keep_branch(tmp_path / "checkpoint.pt", (3,)) == kept
    assert kept.exists()
