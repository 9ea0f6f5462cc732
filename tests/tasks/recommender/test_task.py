"""Figures by hand, feeds, learning a taste, what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from raydistill import tasks
from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError, ConfigError
from raydistill.parts.optimizer import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.recommender import Recommender
from raydistill.tasks.recommender.task import top_figures
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from tests.tasks.recommender.ratings import KINDS, rows, write

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
CPU = torch.device("cpu")
SMALL = {"mf_dim": 8, "mlp_layers": [16, 8]}
AGP = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5,
            "weights": ["mlp.0.weight", "mlp_user_embed.weight"],
        }
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 1}],
}  # fmt: skip
CHANCE = 0.1
"""Ten of a hundred candidates."""


@pytest.fixture
def data(tmp_path: Path) -> DatasetConfig:
    (tmp_path / "ml").mkdir()
    write(tmp_path / "ml")
    return DatasetConfig(data_dir=str(tmp_path / "ml"))


@pytest.fixture
def config(data: DatasetConfig, tmp_path: Path) -> RunConfig:
    return RunConfig(
        "neumf", data, model_args=SMALL, task=TaskConfig("recommender"), epochs=6, batch_size=64,
        optimizer=Optimizer(name="Adam", lr=0.01), precision="fp32", device="cpu", threads=1, tensorboard=False,
        deterministic=True, schedule=parse_schedule(AGP, "agp"), out_dir=str(tmp_path / "run"),
    )  # fmt: skip


def task_of(data: DatasetConfig, content: Any = None, **args: Any) -> Recommender:
    return Recommender.load(data, Weights("neumf", content=content, where="ckpt"), **args)


class Taste(nn.Module):
    """It knows the kinds of `ratings.rows`."""

    def forward(self, pairs: Tensor) -> Tensor:
        return (pairs[:, 0] % KINDS == pairs[:, 1] % KINDS).float()


class Nothing(nn.Module):
    def forward(self, pairs: Tensor) -> Tensor:
        return torch.zeros(len(pairs))


def test_a_hit_is_among_the_first_ten_and_gains_by_its_place() -> None:
    scores = torch.zeros(4, 100)
    scores[0, 0] = 1.0  # the first
    scores[1, 1:4] = 2.0
    scores[1, 0] = 1.0  # the fourth
    scores[2, 1:11] = 1.0
    scores[2, 0] = 0.5  # the eleventh
    hit, gain = top_figures(scores)  # of the last one all are the same
    assert hit.tolist() == [1, 1, 0, 0]
    assert gain.tolist() == pytest.approx([1, 1 / math.log2(5), 0, 0])


@pytest.mark.slow
def test_figures_of_networks_that_are_known(data: DatasetConfig) -> None:
    task = task_of(data)
    loading = Loading(CPU, 1024)
    found = task.evaluate(Nothing(), task.feed("test", loading), loading)
    assert found == pytest.approx({"hit_rate_10": 0.0, "ndcg_10": 0.0, "loss": math.log(2)})
    knowing = task.evaluate(Taste(), task.feed("validation", loading), loading)
    hits, gains = [], []
    for (user, item), row in zip(task.interactions.held_out["validation"], task.candidates["validation"], strict=True):
        rivals = int((row[1:] % KINDS == user % KINDS).sum())  # about a quarter of 99, fewer for those taken up
        place = rivals / 2 if item % KINDS == user % KINDS else rivals + (99 - rivals) / 2
        hits.append(place < 10)
        gains.append((place < 10) / math.log2(place + 2))
    assert knowing["hit_rate_10"] == pytest.approx(np.mean(hits))
    assert knowing["ndcg_10"] == pytest.approx(np.mean(gains))
    assert 0.3 < knowing["hit_rate_10"] < 1


class Told(Ranks):
    """It keeps what it tells the others, and hears what they told."""

    def __init__(self, rank: int, heard: tuple[Any, ...] = ()) -> None:
        super().__init__(rank, 2)
        self.heard = heard

    def gather(self, value: Any) -> list[Any]:
        self.told = value
        return [value, *self.heard]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1024, 1])
def test_ranks_add_up_to_the_whole(data: DatasetConfig, batch_size: int) -> None:
    task = task_of(data)
    second = Loading(CPU, batch_size, ranks=(heard := Told(1)))
    task.evaluate(Taste(), task.feed("test", second), second)
    first = Loading(CPU, batch_size, ranks=Told(0, (heard.told,)))
    found = task.evaluate(Taste(), task.feed("test", first), first)
    alone = Loading(CPU, 1024)
    assert found == pytest.approx(task.evaluate(Taste(), task.feed("test", alone), alone))


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_of_train_has_every_pair_once_and_others_beside_it(data: DatasetConfig, world: int) -> None:
    task = task_of(data, negatives=3)
    feeds = [task.feed("train", Loading(CPU, 100, ranks=Ranks(rank, world))) for rank in range(world)]
    assert feeds[0].samples == 120 * 12 * 4
    positives, others = [], []
    for feed in feeds:
        for index, (pairs, labels) in enumerate(feed.epoch(1)):
            own, of_all = feed.rows(index)
            assert (len(labels), of_all) == (own, min(100, feed.samples - 100 * index))
            positives += pairs[labels == 1].tolist()
            others += pairs[labels == 0].tolist()
    assert sorted(positives) == sorted(task.interactions.train.tolist())
    assert len(others) == 3 * len(positives)
    assert not set(map(tuple, others)) & set(map(tuple, positives))
    again = [pairs for pairs, _ in task.feed("train", Loading(CPU, 100)).epoch(1)]
    other = [pairs for pairs, _ in task.feed("train", Loading(CPU, 100)).epoch(2)]
    assert not torch.equal(torch.cat(again), torch.cat(other))


@pytest.mark.slow
def test_fractions_of_the_parts(data: DatasetConfig) -> None:
    task = task_of(data)
    loading = Loading(CPU, 100, fraction=0.25)
    assert task.feed("train", loading).samples == 360 * 5
    feed = task.feed("test", loading)
    assert feed.samples == 30 == sum(feed.rows(index)[0] for index in range(feed.batches))


@pytest.mark.slow
def test_it_learns_a_taste_and_goes_on_and_prunes(config: RunConfig, data: DatasetConfig, tmp_path: Path) -> None:
    *_, last = fit(config)
    assert last.metrics["hit_rate_10"] > 3 * CHANCE
    assert last.layer_sparsity["mlp_user_embed.weight"] == pytest.approx(0.5, abs=0.01)
    short = replace(config, epochs=3, schedule=None, out_dir=str(tmp_path / "whole"))
    whole, parts = list(fit(short)), replace(short, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = next(run)
    run.close()
    assert [epoch.metrics for epoch in (first, *fit(parts))] == [epoch.metrics for epoch in whole]
    path = tmp_path / "run/checkpoint.pt"
    content = read_checkpoint(path)
    assert content["sizes"] == {"users": 120, "items": 160}
    tested = evaluate_checkpoint(path, task_of(data, content), "test", "cpu")
    assert tested.metrics["hit_rate_10"] > 2.5 * CHANCE
    assert load_model(path).mf_item_embed.num_embeddings == 160
    write(tmp_path / "ml", table=rows(users=121))
    for check, ids in ((task_of(data), "users"), (None, "users")):
        with pytest.raises(CheckpointError, match=rf"ckpt: knows other {ids}: ml/u.data has 121, got .*'users': 120"):
            check.check_knows(content, "ckpt") if check is not None else task_of(data, content)
    with pytest.raises(CheckpointError, match=r"ckpt: is of no recommender, as ml/u.data is; start from another"):
        task_of(data).check_knows({"num_classes": 3}, "ckpt")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"negatives": 0}, "task.args.negatives: must be a whole number from 1 up, got 0"),
        ({"eval_negatives": True}, "task.args.eval_negatives: must be a whole number from 1 up, got True"),
        ({"eval_negatives": 150}, "task.args.eval_negatives: must be at most 146"),
        ({"negative": 3}, "task.args: 'recommender' does not take them (got an unexpected keyword argument"),
    ],
)
def test_arguments_that_are_none_are_one_line(data: DatasetConfig, args: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.load(TaskConfig("recommender", args), data, Weights("neumf"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_users_who_are_not_evaluated_are_told_of_and_a_wrong_network_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, table=np.concatenate([rows(), [[5000, 1, 3, 1]]]))
    task = task_of(DatasetConfig(data_dir=str(tmp_path)))
    assert task.note == "1 of 121 users have fewer than 3 items: none is held out"
    with pytest.raises(ConfigError, match=r"model: must give a logit for each of 4 pairs, got \(4, 2\)"):
        task.loss(lambda pairs: torch.zeros(4, 2), (torch.zeros(4, 2), torch.zeros(4)))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.slow
def test_it_is_swept_and_beats_chance(config: RunConfig, root: Path, tmp_path: Path) -> None:
    space = yaml.safe_load((root / "search_spaces/neumf.yaml").read_text())
    space |= {"name": "tastes", "dataset": {"data_dir": config.dataset.data_dir}, "num_samples": 2}
    space["training"] |= {"batch_size": 64, "optimizer": {"name": "Adam", "lr": 0.01}}
    space["model"]["args"] = SMALL
    file = tmp_path / "tastes.yaml"
    file.write_text(yaml.safe_dump(space, sort_keys=False))
    ended = subprocess.run(
        [*RUN, "sweep", str(file)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        capture_output=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Pareto front: ml/u.data, hit_rate_10" in ended.stdout
    events = [json.loads(line) for line in (tmp_path / "sweeps/tastes/journal.jsonl").read_text().splitlines()]
    tested = [event["evaluation"]["metrics"] for event in events if event["event"] == "tested"]
    assert len(tested) > 1
    assert min(metrics["hit_rate_10"] for metrics in tested) > 2 * CHANCE
