"""A table's columns as the numbers that a network sees: standardised, text one-hot; as the train part has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill.errors import ABSENT, CheckpointError, ConfigError, DataError, Fault, close_match

if TYPE_CHECKING:
    import pandas

_MOST_TEXTS = 1000
"""Different texts in a column that becomes one input each; a column with more is a name, no kind."""


@dataclass(frozen=True)
class Scale:
    """A column of numbers. mean, std: of the train part; std is 1 where all are the same."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class Kinds:
    """A column of text. values: the train part's, sorted; another one is none of them."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """features: the inputs, in their order. targets: what is to be told."""

    features: tuple[Scale | Kinds, ...]
    targets: tuple[Scale, ...]

    @classmethod
    def of(cls, table: pandas.DataFrame, targets: Sequence[str], features: Sequence[str] | None, where: str) -> Columns:
        """Of the train part. features: None: all columns that are no targets.

        Raises:
            ConfigError: a column that is not there, stands twice, or is neither numbers nor kinds.
        """
        known = [str(name) for name in table.columns]
        chosen = [name for name in known if name not in targets] if features is None else list(features)
        for key, names in (("target", targets), ("features", chosen)):
            if not names:
                raise ConfigError(Fault(f"task.args.{key}", "must name a column", list(names), f"it has {known[:12]}"))
            for name in names:
                if name not in known:
                    rule = f"no such column in {where}"
                    raise ConfigError(Fault(f"task.args.{key}", rule, name, close_match(name, known)))
        both = sorted(set(targets) & set(chosen))
        if both:
            raise ConfigError(Fault("task.args.features", "holds a target", both[0], "leave it out"))
        return cls(
            tuple(_column(table, name, where) for name in chosen), tuple(_scale(table, name, where) for name in targets)
        )

    @classmethod
    def of_checkpoint(cls, content: Mapping[str, Any], where: str) -> Columns | None:
        """What a checkpoint's network was trained on; None where it is of another task.

        Raises:
            CheckpointError: it is damaged.
        """
        said = content.get("columns")
        if said is None:
            return None
        try:
            return cls(
                tuple(
                    Kinds(str(one["name"]), tuple(map(str, one["values"]))) if "values" in one else _said(one)
                    for one in said["features"]
                ),
                tuple(_said(one) for one in said["targets"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(Fault(where, "is damaged: its 'columns' are not what they must be")) from error

    @property
    def inputs(self) -> int:
        return sum(len(column.values) if isinstance(column, Kinds) else 1 for column in self.features)

    def described(self) -> dict[str, Any]:
        """The keys of a checkpoint that say it."""
        return {
            "columns": {
                "features": [{**asdict(one), **_values(one)} for one in self.features],
                "targets": [asdict(one) for one in self.targets],
            },
            "sizes": {"inputs": self.inputs, "outputs": len(self.targets)},
        }

    def numbers(self, table: pandas.DataFrame, where: str) -> tuple[np.ndarray, np.ndarray]:
        """(features (N, inputs), targets (N, targets)) of a part, float32, standardised.

        Raises:
            DataError: a column is missing, empty in some rows, or no numbers.
        """
        inputs = np.concatenate([_encoded(table, column, where) for column in self.features], axis=1)
        targets = np.concatenate([_encoded(table, column, where) for column in self.targets], axis=1)
        return inputs.astype(np.float32), targets.astype(np.float32)


def standard(name: str, values: np.ndarray) -> Scale:
    """The scale of a column float64 (N,)."""
    std = float(values.std())
    return Scale(name, float(values.mean()), std if std > 0 else 1.0)


def _column(table: pandas.DataFrame, name: str, where: str) -> Scale | Kinds:
    from pandas.api import types

    column = table[name]
    if types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        return _scale(table, name, where)
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        raise ConfigError(_fault(name, where, "is of times, not of numbers", "make numbers of it, or leave it out"))
    _whole(table, name, where)
    values = tuple(sorted(set(column.astype(str))))
    if len(values) > _MOST_TEXTS:
        rule = f"has {len(values):,} different texts, more than {_MOST_TEXTS:,}"
        raise ConfigError(_fault(name, where, rule, "leave it out: task.args.features names those that are used"))
    return Kinds(name, values)


def _scale(table: pandas.DataFrame, name: str, where: str) -> Scale:
    return standard(name, _floats(table, name, where))


def _encoded(table: pandas.DataFrame, column: Scale | Kinds, where: str) -> np.ndarray:
    """float64 (N, 1), or (N, kinds)."""
    if column.name not in table.columns:
        way_out = "give all parts the same columns"
        raise DataError(Fault(where, "lacks a column", column.name, way_out))
    if isinstance(column, Scale):
        return ((_floats(table, column.name, where) - column.mean) / column.std)[:, None]
    _whole(table, column.name, where)
    texts = table[column.name].astype(str).to_numpy(dtype=object)
    return (texts[:, None] == np.asarray(column.values, dtype=object)[None]).astype(np.float64)


def _floats(table: pandas.DataFrame, name: str, where: str) -> np.ndarray:
    _whole(table, name, where)
    try:
        values: np.ndarray = table[name].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(_fault(name, where, "must be of numbers", str(error))) from error
    if not np.isfinite(values).all():
        rule = f"must be finite, {int((~np.isfinite(values)).sum()):,} of {len(values):,} are not"
        raise DataError(_fault(name, where, rule, "leave those rows out"))
    return values


def _whole(table: pandas.DataFrame, name: str, where: str) -> None:
    missing = int(table[name].isna().sum())
    if missing:
        rule = f"is empty in {missing:,} of {len(table):,} rows"
        raise DataError(_fault(name, where, rule, "fill them or leave those rows out, or leave out the column"))


def _fault(name: str, where: str, rule: str, way_out: str) -> Fault:
    return Fault(f"{where}: column '{name}'", rule, ABSENT, way_out)


def _said(one: Mapping[str, Any]) -> Scale:
    return Scale(str(one["name"]), float(one["mean"]), float(one["std"]))


def _values(one: Scale | Kinds) -> dict[str, object]:
    return {"values": list(one.values)} if isinstance(one, Kinds) else {}
