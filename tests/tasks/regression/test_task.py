"""Figures by scikit-learn's route, data as people have them, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from raydistill import tasks
from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError, ConfigError, DataError
from raydistill.schedule import parse_schedule
from raydistill.sweep.file.load import load_sweep
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.regression import Regression
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
HERE = "tests.tasks.regression.tensors"
CPU = torch.device("cpu")


def task_of(data: DatasetConfig, content: Any = None, **args: Any) -> Regression:
    return Regression.load(data, Weights("mlp", content=content, where="ckpt"), **args)


def houses(count: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    area, town = draw.uniform(20, 200, count), draw.choice(["north", "south"], count)
    return pd.DataFrame({"area": area, "town": town, "price": 1000 * area + 50_000 * (town == "south")})


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "mlp", DatasetConfig("diabetes"), model_args={"widths": [16, 8]}, task=TaskConfig("regression"), epochs=8,
        batch_size=32, lr=0.01, weight_decay=0.01, precision="fp32", device="cpu", threads=1, tensorboard=False,
        deterministic=True, out_dir=str(tmp_path / "run"),
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_figures_are_in_the_targets_unit_and_scikit_learns(tmp_path: Path, loss: str) -> None:
    from sklearn import metrics as figures

    table = houses(60).assign(rooms=lambda t: (t.area // 25).astype(int))
    table.to_csv(tmp_path / "houses.csv", index=False)
    task = task_of(DatasetConfig(data_dir=str(tmp_path)), target=["price", "rooms"], loss=loss)
    torch.manual_seed(0)
    network = task.network("mlp", {"widths": [4]})
    loading = Loading(CPU, 5)
    found = task.evaluate(network, task.feed("test", loading), loading)
    features, standardised = task.parts["test"]
    with torch.no_grad():
        told_as_is = network(features)
    told = (told_as_is.double() * task.scale[1] + task.scale[0]).numpy()
    wanted = (standardised.double() * task.scale[1] + task.scale[0]).numpy()
    assert found["rmse"] == pytest.approx(figures.root_mean_squared_error(wanted, told))
    assert found["mae"] == pytest.approx(figures.mean_absolute_error(wanted, told))
    assert found["r2"] == pytest.approx(figures.r2_score(wanted, told))
    by_hand = {"mse": torch.nn.MSELoss(), "mae": torch.nn.L1Loss(), "huber": torch.nn.HuberLoss()}[loss]
    assert found["loss"] == pytest.approx(float(by_hand(told_as_is, standardised)), rel=1e-6)
    assert set(found) == set(task.metrics)
    assert 1_000 < wanted[:, 0].mean() < 300_000


class Told(Ranks):
    """It keeps what it tells the others, and hears what they told."""

    def __init__(self, rank: int, heard: tuple[Any, ...] = ()) -> None:
        super().__init__(rank, 2)
        self.heard = heard

    def gather(self, value: Any) -> list[Any]:
        self.told = value
        return [value, *self.heard]


@pytest.mark.parametrize("batch_size", [16, 1])
def test_ranks_add_up_to_the_whole_where_one_has_no_rows_too(batch_size: int) -> None:
    task = task_of(DatasetConfig("diabetes"))
    network = task.network("mlp", {"widths": [4]})
    alone = Loading(CPU, 16)
    second = Loading(CPU, batch_size, ranks=(heard := Told(1)))
    task.evaluate(network, task.feed("test", second), second)
    first = Loading(CPU, batch_size, ranks=Told(0, (heard.told,)))
    found = task.evaluate(network, task.feed("test", first), first)
    assert found == pytest.approx(task.evaluate(network, task.feed("test", alone), alone), rel=1e-5)


@pytest.mark.slow
def test_it_learns_diabetes_better_than_the_mean_goes_on_and_prunes(config: RunConfig, tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes

    weights = ["layers.0.weight", "layers.1.weight"]
    agp = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.6, "weights": weights}
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 6, "frequency": 1}
    config = replace(config, schedule=parse_schedule({"pruners": {"agp": agp}, "policies": [policy]}, "agp"))
    whole = list(fit(config))
    parts = replace(config, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = [next(run), next(run)]
    run.close()
    assert [epoch.metrics for epoch in (*first, *fit(parts))] == [epoch.metrics for epoch in whole]
    assert whole[-1].layer_sparsity["layers.0.weight"] == pytest.approx(0.6, abs=0.01)
    path = tmp_path / "run/checkpoint.pt"
    tested = evaluate_checkpoint(path, task_of(DatasetConfig("diabetes"), read_checkpoint(path)), "test", "cpu")
    spread = load_diabetes().target.std()  # what the mean is off by: 77
    assert tested.metrics["rmse"] < 0.85 * spread
    assert tested.metrics["r2"] > 0.25
    assert load_model(path).layers[0].in_features == 10  # its sizes are in the checkpoint


@pytest.mark.parametrize("write", [
    lambda table, path: table.to_csv(path.with_suffix(".csv"), index=False),
    lambda table, path: table.to_parquet(path.with_suffix(".parquet")),
])  # fmt: skip
def test_one_table_is_split_the_same_each_time_and_a_folder_has_its_parts(
    tmp_path: Path, write: Callable[[pd.DataFrame, Path], None]
) -> None:
    write(houses(100), tmp_path / "houses")
    data = DatasetConfig(data_dir=str(next(tmp_path.iterdir())), validation=0.25)
    task = task_of(data, target="price")
    assert {part: len(rows[0]) for part, rows in task.parts.items()} == {"train": 60, "validation": 20, "test": 20}
    seen = torch.cat([rows[1] for rows in task.parts.values()]).flatten().double() * task.scale[1] + task.scale[0]
    assert np.sort(seen.numpy()) == pytest.approx(np.sort(houses(100).price.to_numpy()), rel=1e-4)
    other = task_of(replace(data, split_seed=1), target="price")
    test_rows = [one.parts["test"][1].double() * one.scale[1] + one.scale[0] for one in (task, other)]
    assert torch.allclose(*test_rows)  # the test part stays
    assert task.fingerprint() != other.fingerprint()
    folder = tmp_path / "parts"
    folder.mkdir()
    for part, count in (("train", 40), ("test", 10)):
        write(houses(count, count), folder / part)
    of_folder = task_of(DatasetConfig(data_dir=str(folder), validation=0.1), target="price", features=["area"])
    assert {part: len(rows[0]) for part, rows in of_folder.parts.items()} == {"train": 36, "test": 10, "validation": 4}
    assert of_folder.sizes == {"inputs": 1, "outputs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lengths"),
    [("whole", [72, 8, 20]), ("pairs", [36, 4, 10]), ("parts", [36, 4, 20]), ("all_parts", [40, 10, 20])],
)
def test_tensors_and_datasets_of_ones_own(config: RunConfig, name: str, lengths: list[int]) -> None:
    data = DatasetConfig(f"{HERE}:{name}")
    task = task_of(data)
    assert [len(task.parts[part][0]) for part in ("train", "validation", "test")] == lengths
    straight = replace(config, arch=f"{HERE}:Net", model_args={}, dataset=data, epochs=12)
    *_, last = fit(replace(straight, lr=0.2, momentum=0.0, batch_size=8, weight_decay=0.0))
    assert last.metrics["rmse"] < 0.1  # of a straight line


@pytest.mark.parametrize(
    ("data", "args", "error", "says"),
    [
        ({}, {}, ConfigError, "dataset.name: is no table, got 'cifar10'; give --data-dir (CSV or"),
        ({"name": "diabetes"}, {"loss": "msr"}, ConfigError, "task.args.loss: is not known, got 'msr'"),
        ({"name": "diabetes"}, {"target": 3}, ConfigError, "task.args.target: must name columns, got 3; as"),
        ({"name": "diabetes"}, {"features": []}, ConfigError, "task.args.features: must name columns, got []"),
        ({"name": f"{HERE}:words"}, {}, DataError, "must give (features, targets): two tensors, or a torch Dataset"),
        ({"name": f"{HERE}:unequal"}, {}, DataError, "must give as many targets as features, got (4, 5)"),
        ({"name": f"{HERE}:infinite"}, {}, DataError, "must give finite targets; leave those rows out"),
        ({"name": f"{HERE}:other_parts"}, {}, DataError, "returns other parts, got ['train', 'tset']"),
        ({"name": f"{HERE}:other_shapes"}, {}, DataError, "must give all parts the same shape"),
        ({"name": f"{HERE}:gone"}, {}, ConfigError, "dataset.name: "),
        ({"data_dir": "{tmp}"}, {}, ConfigError, "task.args.target: must name columns, got None"),
        ({"data_dir": "{tmp}"}, {"target": "prize"}, ConfigError, "no such column in"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, data: dict[str, str], args: dict[str, Any], error: type[Exception], says: str
) -> None:
    houses(20).to_csv(tmp_path / "houses.csv", index=False)
    data = {key: value.format(tmp=tmp_path) for key, value in data.items()}
    with pytest.raises(error) as caught:
        tasks.load(TaskConfig("regression", args), DatasetConfig(**data), Weights("mlp"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "a.csv: is empty"),
        ("a.csv", b"\x89PNG\x00\xff\xfe", "a.csv: is no CSV table"),
        ("a.csv", b"a,b\n1,2,3\n1,2,3,4\n", "a.csv: is no CSV table (ParserError"),
        ("a.csv", b"a,b\n", "a.csv: has no rows"),
        ("a.parquet", b"PAR1 and nothing", "a.parquet: is no Parquet table (Arrow"),
    ],
)
def test_files_that_are_no_tables_are_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        task_of(DatasetConfig(data_dir=str(tmp_path / name)), target="b")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_bring_their_scales(config: RunConfig, tmp_path: Path) -> None:
    houses(60).to_csv(tmp_path / "houses.csv", index=False)
    data = DatasetConfig(data_dir=str(tmp_path / "houses.csv"))
    list(fit(replace(config, dataset=data, task=TaskConfig("regression", {"target": "price"}), epochs=1)))
    content = read_checkpoint(tmp_path / "run/checkpoint.pt")
    assert content["sizes"] == {"inputs": 3, "outputs": 1}
    houses(80, 5).assign(area=lambda t: t.area * 2).to_csv(tmp_path / "others.csv", index=False)
    others = DatasetConfig(data_dir=str(tmp_path / "others.csv"))
    own, theirs = task_of(others, target="price"), task_of(others, content, target="price")
    assert torch.equal(theirs.scale, content["target_scale"])
    assert not torch.equal(own.scale, theirs.scale)
    with pytest.raises(ConfigError, match=r"task.args.target: must be those that ckpt was trained on, .*'price'"):
        task_of(others, content, target="area")
    with pytest.raises(CheckpointError, match=r"ckpt: is damaged, or tells another number of targets"):
        task_of(DatasetConfig(f"{HERE}:whole"), {**content, "target_scale": torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=r"ckpt: knows other columns, or scales of them, than others.csv"):
        own.wanted_by(Weights("mlp", {}, content, "ckpt"))
    with pytest.raises(CheckpointError, match=r"ckpt: is of no regression, as others.csv is; start from another"):
        own.check_knows({"num_classes": 3}, "ckpt")
    with pytest.raises(ConfigError, match=r"model.arch: 'mlp' gets inputs from the data, 3, got 7; leave it out"):
        own.network("mlp", {"inputs": 7})
    with pytest.raises(
        ConfigError, match=r"model: must give a tensor of shape \(8, 1\), got \(8, 2\); see its outputs"
    ):
        own.loss(lambda features: torch.zeros(8, 2), (torch.zeros(8, 3), torch.zeros(8, 1)))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.slow
def test_it_is_swept_and_the_knee_is_better_than_the_mean(root: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes

    space = yaml.safe_load((root / "search_spaces/regression.yaml").read_text())
    file = tmp_path / "diabetes.yaml"
    file.write_text(yaml.safe_dump({**space, "num_samples": 3}, sort_keys=False))
    assert [(o.name, o.direction) for o in load_sweep(file).objectives] == [("rmse", "min"), ("sparsity", "max")]
    ended = subprocess.run(
        [*RUN, "sweep", str(file)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        capture_output=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Pareto front: diabetes, rmse on its validation and test split" in ended.stdout
    events = [json.loads(line) for line in (tmp_path / "sweeps/diabetes/journal.jsonl").read_text().splitlines()]
    tested = [event["evaluation"]["metrics"] for event in events if event["event"] == "tested"]
    assert tested
    assert max(metrics["rmse"] for metrics in tested) < 0.9 * load_diabetes().target.std()
