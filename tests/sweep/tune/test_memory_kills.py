"""What is changed inside Ray, and that another Ray is left alone. A real kill is in test_faults_said.py."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

from raydistill.sweep.tune import memory_kills
from raydistill.sweep.tune.memory_kills import MADE_FOR, survive_memory_kills


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> type:
    """Ray's own class, put back as it was."""
    found = importlib.import_module(memory_kills._MODULE).RayActorManager
    monkeypatch.setattr(found, memory_kills._METHOD, getattr(found, memory_kills._METHOD))
    monkeypatch.setattr(Trial, memory_kills._FIRST, getattr(Trial, memory_kills._FIRST))
    return found


def test_this_ray_is_as_it_was_made_for(manager: type) -> None:
    rule = f"made for Ray {MADE_FOR}, this is {ray.__version__}: look into {memory_kills._MODULE} and mend memory_kills"
    assert survive_memory_kills(), rule
    once = getattr(manager, memory_kills._METHOD)
    assert survive_memory_kills()
    assert getattr(manager, memory_kills._METHOD) is once  # not wrapped twice


@pytest.mark.parametrize("error", [OutOfMemoryError("the node was low on memory"), NodeDiedError("low on memory")])
def test_a_killed_actor_is_one_that_died(manager: type, error: Exception) -> None:
    """Tune's manager tells who is concerned of an actor that died, and raises what it does not expect."""
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda _, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    this = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    assert survive_memory_kills()
    getattr(manager, memory_kills._METHOD)(this, task, error)
    assert [type(told_error) for told_error in told] == [RayActorError]
    assert "low on memory" in str(told[0])  # what the reason is made of
    with pytest.raises(RuntimeError, match="other"):
        getattr(manager, memory_kills._METHOD)(this, task, KeyError("other"))


@pytest.mark.usefixtures("manager")
def test_a_process_that_is_killed_before_its_first_result_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune's own reporter asks for it when the trial has failed."""

    def killed(reference: object) -> None:
        raise OutOfMemoryError("the node was low on memory")

    trial = Trial("trainable", stub=True)
    monkeypatch.setattr(trial, memory_kills._KEPT, ray.ObjectRef(bytes(28)))
    monkeypatch.setattr(ray, "get", killed)
    assert survive_memory_kills()
    assert trial.last_result == {"trial_id": trial.trial_id}


def _without_method() -> ModuleType:
    module = ModuleType(memory_kills._MODULE)
    module.RayActorManager = type("RayActorManager", (), {})  # type: ignore[attr-defined]
    return module


def _with_another_signature() -> ModuleType:
    module = ModuleType(memory_kills._MODULE)
    method = {memory_kills._METHOD: lambda self, task, error, origin: None}
    module.RayActorManager = type("RayActorManager", (), method)  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    "other",
    [lambda: None, lambda: ModuleType("x"), _without_method, _with_another_signature],
    ids=["no module", "no class", "no method", "another signature"],
)
def test_another_ray_is_left_as_it_is_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: Callable[[], ModuleType | None]
) -> None:
    module = other()
    before = dict(vars(module.RayActorManager)) if hasattr(module, "RayActorManager") else None
    monkeypatch.setitem(sys.modules, memory_kills._MODULE, module)
    assert survive_memory_kills() is False
    assert before is None or dict(vars(module.RayActorManager)) == before  # type: ignore[union-attr]
    assert capsys.readouterr() == ("", "")
