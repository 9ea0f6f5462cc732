"""Numbers told from the rows of a table; the root mean squared error selects.

A network sees standardised features and tells standardised targets; the errors are in the targets' own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import models
from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, CheckpointError, ConfigError, DataError, Fault, close_match
from raydistill.metrics import LOSS, MAX, MIN, Metric
from raydistill.parts import identity as of_parts
from raydistill.tasks.base import TRAIN, Batch, Feed, Loading, Network, Task, Weights
from raydistill.tasks.feeds import TensorFeed
from raydistill.tasks.files import check_no_images
from raydistill.tasks.regression.columns import Columns, Scale, standard
from raydistill.tasks.regression.tables import DIABETES, own_tensors, tables

RMSE, MAE, R2 = "rmse", "mae", "r2"
LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
Rows = tuple[Tensor, Tensor]


class Regression(Task):
    """parts: (features (N, ...), standardised targets (N, targets)) of each split. scale: mean and std of each target,
    float64 (2, targets). columns: None where the tensors are of one's own.
    """

    metrics: Mapping[str, Metric] = {
        RMSE: Metric(MIN, label="root mean squared error"),
        MAE: Metric(MIN, label="mean absolute error"),
        R2: Metric(MAX, label="R² (share of the variance that is told)"),
        LOSS: Metric(MIN),
    }

    def __init__(
        self,
        parts: Mapping[str, Rows],
        scale: Tensor,
        name: str,
        columns: Columns | None = None,
        loss: str = "mse",
    ) -> None:
        self.parts, self.scale, self.name, self.columns, self.kind = parts, scale, name, columns, loss

    @classmethod
    def check(cls, data: DatasetConfig) -> None:
        check_no_images(data, (DIABETES,), own=True)

    @classmethod
    def load(  # type: ignore[override]  # its arguments are its signature
        cls,
        data: DatasetConfig,
        weights: Weights,
        target: str | list[str] | None = None,
        features: list[str] | None = None,
        loss: str = "mse",
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
    ) -> Regression:
        """data: its data_dir is a CSV or Parquet file, or a folder with one for train and test (and validation), or its
        name is ``diabetes`` or ``pkg.mod:factory``. target: the column or columns to be told. features: None: all
        others. loss: mse, mae or huber, of standardised targets. train, validation, test: names of files in the folder.

        The scales and kinds are those of the weights, where they have some, else of the train part.
        """
        cls.check(data)
        if loss not in LOSSES:
            raise ConfigError(Fault("task.args.loss", "is not known", loss, close_match(loss, LOSSES)))
        if ":" in data.name and data.data_dir is None:
            return cls._of_tensors(data, weights, loss)
        said = {"train": train, "validation": validation, "test": test}
        read, where = tables(data, {part: name for part, name in said.items() if name is not None})
        targets = _names("target", target if data.data_dir is not None else target or "target")
        chosen = None if features is None else _names("features", features)
        columns = Columns.of_checkpoint(weights.content, weights.where) if weights.content is not None else None
        if columns is None:
            columns = Columns.of(read[TRAIN], targets, chosen, where[TRAIN])
        for key, asked, kept in (("target", targets, columns.targets), ("features", chosen, columns.features)):
            names = [one.name for one in kept]
            if asked is not None and asked != names:
                rule = f"must be those that {weights.where} was trained on, {names}"
                raise ConfigError(Fault(f"task.args.{key}", rule, asked, "name these, or start from other weights"))
        parts = {}
        for part, table in read.items():
            numbers = columns.numbers(table, where[part])
            parts[part] = (torch.from_numpy(numbers[0]), torch.from_numpy(numbers[1]))
        scale = _scale(columns.targets)
        name = DIABETES if data.data_dir is None else Path(data.data_dir).resolve().name
        return cls(parts, scale, name, columns, loss)._begun_by(weights)

    @classmethod
    def _of_tensors(cls, data: DatasetConfig, weights: Weights, loss: str) -> Regression:
        own = own_tensors(data)
        targets = {part: rows[1].double() for part, rows in own.items()}
        if len({tuple(rows[0].shape[1:]) + tuple(rows[1].shape[1:]) for rows in own.values()}) > 1:
            raise DataError(Fault("dataset.name", f"'{data.name}' must give all parts the same shape", ABSENT))
        scale = _scale([standard(str(place), column) for place, column in enumerate(targets[TRAIN].numpy().T)])
        if weights.content is not None and "target_scale" in weights.content:
            theirs = weights.content["target_scale"]
            if not isinstance(theirs, Tensor) or theirs.shape != scale.shape or not bool((theirs[1] > 0).all()):
                rule = f"is damaged, or tells another number of targets than {data.name}"
                raise CheckpointError(Fault(weights.where, rule, ABSENT, "use the data it was trained on"))
            scale = theirs.double()
        parts = {part: (rows[0], ((targets[part] - scale[0]) / scale[1]).float()) for part, rows in own.items()}
        return cls(parts, scale, data.name, None, loss)._begun_by(weights)

    @property
    def sizes(self) -> dict[str, int]:
        """What factories of networks may ask for."""
        features, targets = self.parts[TRAIN]
        return {"inputs": int(np.prod(features.shape[1:], dtype=np.int64)), "outputs": targets.shape[1]}

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        return models.create(arch, None, arguments, where, fetch, self.sizes)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, *self.parts[TRAIN][0].shape[1:]),)

    def feed(self, split: str, loading: Loading) -> TensorFeed:
        return TensorFeed(self.parts[split], split, loading)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        features, targets = batch
        return LOSSES[self.kind](_told(network, features, targets), targets)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """Of several targets the mean of each figure over them."""
        training = network.training
        network.eval()
        width = self.scale.shape[1]
        sums = torch.zeros(4, width, dtype=torch.float64, device=loading.device)  # off^2, |off|, y, y^2
        loss_sum, rows = torch.zeros((), dtype=torch.float64, device=loading.device), 0
        try:
            for index, (features, targets) in enumerate(feed.epoch(0)):
                own, _ = feed.rows(index)
                with loading.autocast():
                    told = _told(network, features, targets)
                told, wanted = told[:own].double(), targets[:own].double()
                off = told - wanted
                sums += torch.stack([off.square().sum(0), off.abs().sum(0), wanted.sum(0), wanted.square().sum(0)])
                if own:
                    loss_sum += LOSSES[self.kind](told, wanted) * own
                rows += own
        finally:
            network.train(training)
        every = loading.ranks.gather((sums.cpu(), float(loss_sum), rows))
        squared, absolute, total, squares = torch.stack([part[0] for part in every]).sum(0)
        count = max(1, sum(part[2] for part in every))
        spread = (squares - total.square() / count).clamp(min=1e-12)
        unit = self.scale[1]
        return {
            RMSE: float(((squared / count).sqrt() * unit).mean()),
            MAE: float((absolute / count * unit).mean()),
            R2: float((1 - squared / spread).mean()),
            LOSS: sum(part[1] for part in every) / count,
        }

    def wanted_by(self, weights: Weights, data: DatasetConfig | None = None) -> Regression:
        return self._begun_by(weights)

    def check_knows(self, content: Mapping[str, Any], where: str) -> None:
        if content.get("plain"):  # nothing but weights: their shapes are all that can be looked at
            return
        if content.get("sizes") is None or "target_scale" not in content:
            raise CheckpointError(Fault(where, f"is of no regression, as {self.name} is", ABSENT, "start from another"))
        known = Columns.of_checkpoint(content, where)
        if dict(content["sizes"]) != self.sizes or known != self.columns or not self._scaled_as(content):
            rule = f"knows other columns, or scales of them, than {self.name}"
            raise CheckpointError(Fault(where, rule, content["sizes"], "use the data it was trained on"))

    def described(self) -> dict[str, Any]:
        said = self.columns.described() if self.columns is not None else {}
        return {**said, "sizes": self.sizes, "target_scale": self.scale}

    def identity(self, data: DatasetConfig) -> dict[str, Any]:
        named = [one.name for one in self.columns.features] if self.columns is not None else []
        return {**of_parts(data), "loss": self.kind, "features": named, "sizes": self.sizes}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for rows in self.parts.values() for tensor in rows)

    def _begun_by(self, weights: Weights) -> Regression:
        if weights.content is not None:
            self.check_knows(weights.content, weights.where)
        return self

    def _scaled_as(self, content: Mapping[str, object]) -> bool:
        theirs = content["target_scale"]
        return isinstance(theirs, Tensor) and theirs.shape == self.scale.shape and torch.allclose(theirs, self.scale)


def _scale(targets: Sequence[Scale]) -> Tensor:
    """float64 (2, targets): their means and deviations."""
    return torch.tensor([[one.mean for one in targets], [one.std for one in targets]], dtype=torch.float64)


def _told(network: Network, features: Tensor, targets: Tensor) -> Tensor:
    """What the network tells, float32 (B, targets); a single one may come as (B,)."""
    told = network(features)
    if isinstance(told, Tensor) and told.dim() == 1 and targets.shape[1] == 1:
        told = told[:, None]
    if not isinstance(told, Tensor) or told.shape != targets.shape:
        found = tuple(told.shape) if isinstance(told, Tensor) else type(told).__name__
        raise ConfigError(
            Fault("model", f"must give a tensor of shape {tuple(targets.shape)}", found, "see its outputs")
        )
    return told.float()


def _names(key: str, value: object) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        way_out = "as target: price, or target: [height, weight]"
        raise ConfigError(Fault(f"task.args.{key}", "must name columns", value, way_out))
    return list(dict.fromkeys(names))
