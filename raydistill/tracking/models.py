"""Front members as MLflow models (pt2: torch.export with a free batch size) and the knee in the Model Registry."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from raydistill.errors import Fault, TrackingError
from raydistill.tracking.importing import import_mlflow
from raydistill.tracking.keys import model_name
from raydistill.tracking.serving import serve_images
from raydistill.tracking.sink import PARENT, SWEEP_TAG, TRIAL_TAG, first_line, is_permanent
from raydistill.tracking.store import hush
from raydistill.tracking.writer import Refused

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

ALIAS_PREFIX = "pareto-"
"""Of the aliases in the registry: ``pareto-knee``, ``pareto-max-top1``, ..."""

KNEE_ALIAS = f"{ALIAS_PREFIX}knee"
MODEL_TYPE = "raydistill"
_ALIASES_TAG = "raydistill.aliases"
"""Of a version: the aliases that its sweep has ever given it, as JSON. Others are somebody's own."""

_EPOCHS_TAG = "raydistill.epochs"
_OWN_RUN = "run"
"""Of a single run's model the tag that has a trial's id otherwise."""


@dataclass(frozen=True)
class LoggedMember:
    """A front member whose model is on its way to MLflow."""

    trial_id: str
    model_name: str


@dataclass(frozen=True)
class VersionCard:
    """description: Markdown. tags: shown beside it."""

    description: str
    tags: Mapping[str, str]


def export(
    model: torch.nn.Module, input_example: np.ndarray, folder: Path, metadata: Mapping[str, object] | None = None
) -> None:
    """Write `model` as an MLflow model folder, without any server. input_example: (2 or more, ...) float32, or
    int64 where the network reads numbers of things. Of an output of several parts the first one stays.

    metadata: plain values. With ``preprocessing`` among them (see `datasets.preprocessing`) what MLflow serves takes
    raw images (see `tracking.served`), and ``mlflow.pytorch`` still loads the network itself.

    Two samples, because torch.export takes a batch of one for a constant. Takes 0.2 s for a small network.

    Raises:
        TrackingError: torch.export cannot trace the model.
    """
    import torch

    integers = np.issubdtype(np.asarray(input_example).dtype, np.integer)
    example = np.ascontiguousarray(input_example, dtype=np.int64 if integers else np.float32)
    if example.ndim < 2 or len(example) < 2:
        raise ValueError(f"input_example needs shape (2 or more, ...), got {example.shape}")
    import_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    hush()
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.from_numpy(example))
        if not isinstance(output, torch.Tensor):  # MLflow knows none but tensors
            model, output = _first_output(model), _first(output)
        signature = ModelSignature(  # of tensors without names: those would make pyfunc want a mapping
            Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, *output.shape[1:]))]),
        )
        about = dict(metadata or {})
        needed = [f"torch=={torch.__version__.partition('+')[0]}", "numpy"]
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=folder.parent) as work:
            warnings.simplefilter("ignore")
            of_images = "preprocessing" in about
            network = Path(work) / "network" if of_images else folder
            _pytorch_flavor().save_model(
                model, str(network), signature=signature, input_example=example, serialization_format="pt2",
                metadata=about, pip_requirements=needed,
            )  # fmt: skip
            if of_images:
                serve_images(network, folder, example[0], about, signature.outputs, [*needed, "pillow"])
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        rule = f"torch.export cannot trace this model ({type(error).__name__}: {first_line(error)})"
        way_out = "its checkpoint is kept; see torch.export's rules on data-dependent control flow"
        raise TrackingError(Fault("model", rule, type(model).__name__, way_out)) from error
    finally:
        model.train(was_training)


def _pytorch_flavor() -> ModuleType:
    """``mlflow.pytorch``. For a callback that nobody here asks for it imports Lightning where that is installed, which
    takes longer than all the rest: unless somebody has imported Lightning already, it is kept from it.
    """
    name = "pytorch_lightning"
    hidden = not {name, "lightning", "mlflow.pytorch"} & sys.modules.keys()
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import mlflow.pytorch as flavor
    finally:
        if hidden:
            del sys.modules[name]
    return flavor


def _first(output: object) -> torch.Tensor:
    import torch

    if isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        output = output[0]
    found = getattr(output, "logits", None)
    if not isinstance(found, torch.Tensor):
        found = output
    assert isinstance(found, torch.Tensor)
    return found


def _first_output(model: torch.nn.Module) -> torch.nn.Module:
    """The same, with the logits alone of what it gives."""
    from torch import nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return _first(self.model(inputs))

    return Logits()


def upload(
    client: MlflowClient, experiment_id: str, run_id: str, sweep_id: str, member: LoggedMember, folder: Path,
    metrics: Mapping[str, float], params: Mapping[str, str], step: int, timestamp_ms: int,
) -> None:  # fmt: skip
    """Make the exported folder a logged model of the run, unless this sweep has logged this trial's before.

    A single run may go on after its end: then its longer self takes the place of the model that was there.
    """
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    there = find(client, experiment_id, sweep_id, member.trial_id)
    epochs = str(step + 1)
    if there is not None and member.trial_id == PARENT and there.tags.get(_EPOCHS_TAG) != epochs:
        client.delete_logged_model(there.model_id)
        there = None
    if there is None:
        tags = {SWEEP_TAG: sweep_id, TRIAL_TAG: member.trial_id or _OWN_RUN, _EPOCHS_TAG: epochs}
        logged = client.create_logged_model(
            experiment_id, name=member.model_name, source_run_id=run_id, tags=tags, params=dict(params),
            model_type=MODEL_TYPE,
        )  # fmt: skip
        description = Model.load(str(folder))
        description.artifact_path = logged.artifact_location
        description.model_id = description.model_uuid = logged.model_id
        description.run_id = run_id
        description.save(str(folder / "MLmodel"))
        client.log_model_artifacts(logged.model_id, str(folder))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=step)])
        points = [Metric(name, value, timestamp_ms, step, model_id=logged.model_id) for name, value in metrics.items()]
        client.log_batch(run_id, metrics=points)
        client.finalize_logged_model(logged.model_id, "READY")
    shutil.rmtree(folder, ignore_errors=True)


def register(
    client: MlflowClient, experiment_id: str, run_id: str, sweep_id: str, member: LoggedMember, name: str,
    alias: str = KNEE_ALIAS, about: VersionCard | None = None,
) -> None:  # fmt: skip
    """Give the member's model an alias under `name`, a valid registered name.

    A version made for it before is used again.
    """
    from mlflow.exceptions import MlflowException

    logged = find(client, experiment_id, sweep_id, member.trial_id)
    if logged is None:
        raise Refused("its model was not logged")
    with contextlib.suppress(MlflowException):  # it exists: an earlier sweep's or our own
        client.create_registered_model(name)
    version = None
    for candidate in client.search_model_versions(f"name = '{quoted(name)}'", max_results=1000):
        if candidate.tags.get(SWEEP_TAG) == sweep_id and candidate.tags.get(TRIAL_TAG) == member.trial_id:
            version = candidate.version
    if version is None:
        version = client.create_model_version(
            name, logged.artifact_location, run_id=run_id, model_id=logged.model_id, await_creation_for=0,
            tags={SWEEP_TAG: sweep_id, TRIAL_TAG: member.trial_id},
        ).version  # fmt: skip
    _link(client, logged.model_id, name, int(version))
    if about is not None:
        client.update_model_version(name, version, about.description)
        for tag, text in about.tags.items():
            client.set_model_version_tag(name, version, tag, text)
    given = _given(client.get_model_version(name, version))
    if alias not in given:  # said first: one that is not said would stay for ever
        client.set_model_version_tag(name, version, _ALIASES_TAG, json.dumps([*given, alias]))
    client.set_registered_model_alias(name, alias, version)


def withdraw_all_but(client: MlflowClient, sweep_id: str, name: str, kept: Collection[str]) -> list[str]:
    """Take from the sweep's versions what aliases it gave them, but for those of `kept`; returns which. One that
    somebody else has given them stays, as does one that somebody has moved to another version."""
    gone = []
    for version in client.search_model_versions(f"name = '{quoted(name)}'", max_results=1000):
        given = _given(version) if version.tags.get(SWEEP_TAG) == sweep_id else []
        now = client.get_model_version(name, version.version).aliases if given else []
        left = [alias for alias in given if alias in kept and alias in now]
        if left == given:
            continue
        for alias in sorted(set(given) & set(now) - set(kept)):
            client.delete_registered_model_alias(name, alias)
            gone.append(alias)
        client.set_model_version_tag(name, version.version, _ALIASES_TAG, json.dumps(left))
    return gone


def _given(version: ModelVersion) -> list[str]:
    try:
        said = json.loads(version.tags.get(_ALIASES_TAG, "[]"))
    except ValueError:
        return []
    return [alias for alias in said if isinstance(alias, str)] if isinstance(said, list) else []


def withdraw(client: MlflowClient, sweep_id: str, name: str, alias: str = KNEE_ALIAS) -> None:
    """Take the alias from the sweep's version, if it has it."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if is_permanent(error):  # there is no such model, or no such alias
            return
        raise
    if version.tags.get(SWEEP_TAG) == sweep_id:
        client.delete_registered_model_alias(name, alias)


def _link(client: MlflowClient, model_id: str, name: str, version: int) -> None:
    """Name the version on the logged model's page; a store without a server does not do it by itself."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    entries = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if not any(entry.get("name") == name and str(entry.get("version")) == str(version) for entry in entries):
        entries.append({"name": name, "version": version})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(entries)})


def find(client: MlflowClient, experiment_id: str, sweep_id: str, trial_id: str) -> LoggedModel | None:
    """The trial's finished logged model; None if there is none. A half-uploaded one is removed."""
    wanted = f"tags.`{SWEEP_TAG}` = '{sweep_id}' AND tags.`{TRIAL_TAG}` = '{trial_id or _OWN_RUN}'"
    ready = None
    for logged in client.search_logged_models([experiment_id], filter_string=wanted):
        if str(logged.status).upper().endswith("READY"):
            ready = ready or logged
        else:
            client.delete_logged_model(logged.model_id)
    return ready


def member_of(sweep_name: str, trial_id: str) -> LoggedMember:
    """trial_id: `PARENT` of a single run, whose name then stands in place of the sweep's."""
    return LoggedMember(trial_id, model_name(f"{sweep_name}-{trial_id}" if trial_id else sweep_name))


def quoted(text: str) -> str:
    """`text` inside the quotes of a search filter."""
    return text.replace("'", "\\'")
