from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.errors import StorageError, TrackingError
from raydistill.tracking import SweepLog
from raydistill.tracking.models import export

pytestmark = pytest.mark.slow  # torch.export alone takes seconds to import


class Simple(nn.Module):
    """Two convolutions and a flattened head, as small image networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 84), nn.Linear(84, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(images)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.view(x.size(0), -1))))


class Residual(nn.Module):
    """Batch norm, a stride, and a shortcut padded with zero channels (He et al. 2015, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(images)))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.bn2(self.conv(x)) + shortcut)
        return self.head(nn.functional.avg_pool2d(x, x.size(3)).flatten(1))


class Branches(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images


EXAMPLE = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def mlflow_at(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`mlflow` as a user has it after `mlflow.set_tracking_uri`."""
    import mlflow

    monkeypatch.chdir(storage)
    before = dict(os.environ)
    mlflow.set_tracking_uri(f"sqlite:///{storage}/mlflow.db")
    yield mlflow
    mlflow.set_tracking_uri(None)
    os.environ.clear()
    os.environ.update(before)


def open_log(storage: Path) -> SweepLog:
    log = SweepLog(None, storage, "simplenet", "sweep-1")
    log.start()
    return log


@pytest.mark.parametrize("kind", [Simple, Residual])
def test_the_knee_loads_by_its_alias_and_predicts_any_batch(storage: Path, mlflow_at, trial, kind) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    log = open_log(storage)
    log.trial_started(trial("t0000"))
    log.trial_ended(trial("t0000"))
    log.register(log.log_model("t0000", network, EXAMPLE, {"top1": 0.5, "test_top1": 0.45}, {"lr": 0.1}))
    assert log.finish() == 0
    assert log.errors == []

    served = mlflow_at.pyfunc.load_model("models:/simplenet@pareto-knee")
    loaded = mlflow_at.pytorch.load_model("models:/simplenet@pareto-knee")
    for batch in (1, 2, 7):
        images = np.random.default_rng(batch).normal(size=(batch, 3, 32, 32)).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(loaded(torch.from_numpy(images)).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(served.predict(images), expected, atol=1e-5)
    description = served.metadata
    assert [tuple(spec.shape) for spec in description.signature.inputs] == [(-1, 3, 32, 32)]
    assert [tuple(spec.shape) for spec in description.signature.outputs] == [(-1, 10)]
    assert description.saved_input_example_info is not None
    folder = Path(mlflow_at.artifacts.download_artifacts("models:/simplenet@pareto-knee"))
    assert f"torch=={torch.__version__.split('+')[0]}" in (folder / "requirements.txt").read_text().splitlines()

    (version,) = mlflow_at.MlflowClient().search_model_versions("name = 'simplenet'")
    client = mlflow_at.MlflowClient()
    (logged,) = client.search_logged_models([client.get_experiment_by_name("simplenet").experiment_id])
    assert version.source == logged.artifact_location
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "simplenet", "version": 1}]
    run = mlflow_at.get_run(version.run_id)
    assert run.info.run_name == "t0000"
    assert logged.name == "simplenet-t0000"
    assert logged.params == {"lr": "0.1"}
    assert {metric.key: metric.value for metric in logged.metrics} == {"top1": 0.5, "test_top1": 0.45}
    assert run.data.metrics["test_top1"] == 0.45
    assert len(mlflow_at.MlflowClient().get_metric_history(run.info.run_id, "top1")) == 1
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]


def test_sending_again_makes_no_second_model_or_version(storage: Path, mlflow_at, trial) -> None:
    for _ in range(2):
        log = open_log(storage)
        log.trial_started(trial("t0000"))
        for _ in range(2):
            log.register(log.log_model("t0000", Simple(), EXAMPLE))
        assert log.finish() == 0
        assert log.errors == []
    client = mlflow_at.MlflowClient()
    assert len(client.search_model_versions("name = 'simplenet'")) == 1
    experiment = client.get_experiment_by_name("simplenet")
    assert len(client.search_logged_models([experiment.experiment_id])) == 1

    log = open_log(storage)  # the knee moves to another trial, and back
    log.trial_started(trial("t0001"))
    log.register(log.log_model("t0001", Simple(), EXAMPLE))
    assert log.flush(30) == 0
    assert client.get_model_version_by_alias("simplenet", "pareto-knee").tags["raydistill.trial_id"] == "t0001"
    log.register(log.log_model("t0000", Simple(), EXAMPLE))
    assert log.finish() == 0
    assert client.get_model_version_by_alias("simplenet", "pareto-knee").tags["raydistill.trial_id"] == "t0000"
    assert len(client.search_model_versions("name = 'simplenet'")) == 2


def test_a_half_uploaded_model_is_replaced(storage: Path, mlflow_at, trial) -> None:
    log = open_log(storage)
    log.trial_started(trial("t0000"))
    assert log.flush(30) == 0
    client = mlflow_at.MlflowClient()
    experiment_id = client.get_experiment_by_name("simplenet").experiment_id
    tags = {"raydistill.sweep_id": "sweep-1", "raydistill.trial_id": "t0000"}
    half = client.create_logged_model(experiment_id, "simplenet-t0000", tags=tags)
    log.log_model("t0000", Simple(), EXAMPLE)
    assert log.finish() == 0
    (logged,) = client.search_logged_models([experiment_id])
    assert logged.model_id != half.model_id
    assert str(logged.status).upper().endswith("READY")


def single_run(storage: Path, folder: Path) -> SweepLog:
    log = SweepLog(None, storage, "compress", "run-1", run_name="one", pending=folder)
    log.start()
    return log


def test_a_single_runs_model_is_that_of_its_last_epoch(storage: Path, mlflow_at, epoch) -> None:
    """A run that is given more epochs goes on; sent again as it was, it is still one model."""
    (storage / "runs" / "one").mkdir(parents=True)
    client, ids = mlflow_at.MlflowClient(), []
    for last in (1, 1, 2):
        log = single_run(storage, storage / "runs" / "one")
        log.run_epoch(epoch(last))
        log.log_model("", Simple(), EXAMPLE, {"top1": 0.5})
        assert log.finish() == 0
        assert log.errors == []
        (logged,) = client.search_logged_models([client.get_experiment_by_name("compress").experiment_id])
        ids.append(logged.model_id)
        assert logged.name == "one"
        assert [(metric.key, metric.step) for metric in logged.metrics] == [("top1", last)]
    assert ids[0] == ids[1] != ids[2]
    (run,) = client.search_runs([logged.experiment_id])
    assert logged.source_run_id == run.info.run_id


def test_models_that_wait_are_each_runs_own(storage: Path, mlflow_at, epoch) -> None:
    """Runs of one store end beside each other."""
    others = [folder / "mlflow_pending" / "run-x" for folder in (storage, storage / "runs" / "two")]
    for other in (*others, storage / "runs" / "one"):
        other.mkdir(parents=True)
    log = single_run(storage, storage / "runs" / "one")
    log.log_model("", Simple(), EXAMPLE)
    assert log.finish() == 0
    assert all(other.exists() for other in others)
    assert [path.name for path in (storage / "runs" / "one").iterdir()] == []


def test_the_knee_is_registered_when_mlflow_has_taken_it(storage: Path, mlflow_at, trial) -> None:
    log = open_log(storage)
    log.trial_started(trial("t0000"))
    log.register(log.log_model("t0000", Simple(), EXAMPLE))
    log.finish()
    assert log.registered == "simplenet"
    other = SweepLog(None, storage, "simplenet", "sweep-2")
    other.start()
    other.withdraw()
    other.finish()
    client = mlflow_at.MlflowClient()
    assert client.get_model_version_by_alias("simplenet", "pareto-knee").tags["raydistill.sweep_id"] == "sweep-1"
    log = open_log(storage)
    assert log.registered == ""
    log.withdraw()
    log.withdraw(name="never-registered")
    log.finish()
    assert log.errors == other.errors == []
    assert client.get_registered_model("simplenet").aliases == {}


def test_aliases_that_are_no_longer_wanted_go_and_nobody_elses(storage: Path, mlflow_at, trial) -> None:
    log = open_log(storage)
    members = {}
    for trial_id in ("t0000", "t0001"):
        log.trial_started(trial(trial_id))
        members[trial_id] = log.log_model(trial_id, Simple(), EXAMPLE)
    for alias in ("small", "gentle", "moved"):
        log.register(members["t0000"], alias)
    log.finish()
    log = open_log(storage)
    log.register(members["t0001"], "moved")
    log.finish()
    client = mlflow_at.MlflowClient()
    before = client.get_registered_model("simplenet").aliases
    assert before["small"] == before["gentle"] != before["moved"]
    client.set_registered_model_alias("simplenet", "mine", before["small"])
    client.set_registered_model_alias("simplenet", "gentle", before["moved"])  # by hand
    other = SweepLog(None, storage, "simplenet", "sweep-2")
    other.start()
    other.withdraw_all_but(())
    other.finish()
    assert set(client.get_registered_model("simplenet").aliases) == {"small", "gentle", "moved", "mine"}
    log = open_log(storage)
    log.withdraw_all_but({"moved"})
    log.withdraw_all_but((), name="never-registered")
    log.finish()
    assert log.errors == other.errors == []
    left = client.get_registered_model("simplenet").aliases
    assert left == {"mine": before["small"], "gentle": before["moved"], "moved": before["moved"]}
    assert client.get_model_version("simplenet", before["small"]).tags["raydistill.aliases"] == "[]"


def test_a_knee_that_mlflow_refuses_is_not_called_registered(storage: Path, mlflow_at, trial, monkeypatch) -> None:
    from raydistill.tracking import models
    from raydistill.tracking.writer import Refused

    def refused(*_: object) -> None:
        raise Refused("no room in the registry")

    monkeypatch.setattr(models, "register", refused)
    log = open_log(storage)
    log.trial_started(trial("t0000"))
    log.register(log.log_model("t0000", Simple(), EXAMPLE))
    log.finish()
    assert log.registered == ""
    assert len(log.errors) == 1


def test_names_that_mlflow_forbids(storage: Path, mlflow_at, trial) -> None:
    log = SweepLog(None, storage, "net: 'v1.5'/x", "s")
    log.start()
    log.trial_started(trial("t0000"))
    registered = log.register(log.log_model("t0000", Simple(), EXAMPLE))
    assert log.finish() == 0
    assert log.errors == []
    assert registered == "net- 'v1.5'-x"
    assert mlflow_at.MlflowClient().get_model_version_by_alias(registered, "pareto-knee").version


def test_a_model_that_cannot_be_traced_is_one_line(storage: Path, trial) -> None:
    log = open_log(storage)
    log.trial_started(trial("t0000"))
    with pytest.raises(TrackingError) as caught:
        log.log_model("t0000", Branches(), EXAMPLE)
    assert "\n" not in str(caught.value)
    assert "torch.export cannot trace this model" in str(caught.value)
    assert log.finish() == 0
    assert not (storage / "mlflow_pending").exists()


def test_a_storage_that_cannot_take_the_model_is_one_line(storage: Path, trial) -> None:
    log = open_log(storage)
    (storage / "mlflow_pending").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        log.log_model("t0000", Simple(), EXAMPLE)
    assert "\n" not in str(caught.value)
    assert "the exported model cannot be written" in str(caught.value)
    log.finish()


def test_a_batch_of_one_is_a_callers_mistake(storage: Path, trial) -> None:
    log = open_log(storage)
    with pytest.raises(ValueError, match="2 or more"):
        log.log_model("t0000", Simple(), EXAMPLE[:1])
    log.finish()


def test_the_model_comes_back_in_the_mode_it_was_in(storage: Path, trial) -> None:
    network = Residual().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    log = open_log(storage)
    log.log_model("t0000", network, EXAMPLE)
    log.finish()
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class Reader(nn.Module):
    """Of tokens int64 (B, T); gives logits and a state, as recurrent networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.rnn, self.decoder = nn.Embedding(9, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 9)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, hidden = self.rnn(self.encoder(tokens))
        return self.decoder(states), hidden


def test_a_network_that_reads_tokens_gives_the_first_of_what_it_gives(tmp_path: Path) -> None:
    import mlflow

    torch.manual_seed(0)
    network, tokens = Reader(), np.arange(12).reshape(2, 6) % 9
    export(network, tokens, tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with torch.no_grad():
        expected, _ = network(torch.from_numpy(tokens))
    assert np.allclose(loaded.predict(tokens), expected, atol=1e-6)
    assert [(spec.type, spec.shape) for spec in loaded.metadata.get_input_schema()] == [(np.dtype("int64"), (-1, 6))]


def test_lightning_is_not_imported_for_it_and_can_be_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    code = (
        "import sys, pathlib, numpy, torch\n"
        "from raydistill.tracking.models import export\n"
        "export(torch.nn.Linear(4, 2), numpy.zeros((2, 4), numpy.float32), pathlib.Path('model'))\n"
        "assert not {'pytorch_lightning', 'lightning', 'lightning_fabric'} & sys.modules.keys()\n"
        "import pytorch_lightning, mlflow\n"
        "assert mlflow.pytorch.load_model('model').weight.shape == (2, 4)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
