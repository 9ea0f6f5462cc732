"""What a worker says, in the driver's words."""

from __future__ import annotations

import pickle

from raydistill.cluster.worker import Failed, Joined, _device, _said_of
from raydistill.datasets import DatasetConfig
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.training import RunConfig

NAMES = {"/tmp/w/given/0/a.pt": "/home/me/a.pt", "/tmp/w": "/home/me/run"}


def test_a_fault_of_this_workers_paths_is_one_of_the_drivers() -> None:
    fault = Fault("/tmp/w/checkpoint.pt", "is not /tmp/w/given/0/a.pt", ["/tmp/w"], "remove /tmp/w")
    assert _said_of(fault, NAMES) == Fault(
        "/home/me/run/checkpoint.pt", "is not /home/me/a.pt", ["/tmp/w"], "remove /home/me/run"
    )
    assert _said_of(Fault("a", "b", "/tmp/w/x"), NAMES) == Fault("a", "b", "/home/me/run/x")
    assert _said_of(Fault("a", "b", ABSENT), NAMES) == Fault("a", "b")
    assert _said_of("lies in /tmp/w", NAMES) == "lies in /home/me/run"


def test_messages_travel() -> None:
    joined = Joined(1, 2, 7, "box", "10.0.0.1", None, None, "/tmp/w")  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(joined)) == joined
    failed = pickle.loads(pickle.dumps(Failed(1, ConfigError(Fault("a", "b")))))
    assert (failed.rank, str(failed.error)) == (1, "a: b")


def test_without_a_gpu_the_device_is_the_runs() -> None:
    assert _device(RunConfig(arch="simplenet_cifar", dataset=DatasetConfig("digits"), device="cpu")) == "cpu"
