"""A field of a part is declared once: section, option, identity, hash and what --resume lets change follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import pytest
import typer
from annotated_types import Ge, Lt
from typer.testing import CliRunner

from raydistill.cli.options import NONE, OptionsOf, with_options
from raydistill.errors import ConfigError
from raydistill.parts import Role, Setting, hashed, identity, out_of_bounds, settings
from raydistill.parts.kinds import NUMBER, Count, Positive
from raydistill.parts.setting import HASH, IDENTITY
from raydistill.sweep.baseline import baseline_hash
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import DatasetSection, Section, SweepSections, TrainingSection
from raydistill.sweep.record.resume import _may_change
from raydistill.training import RunConfig
from raydistill.training.identity import run_identity
from raydistill.training.loop import check_run


def _span(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-"))


@dataclass(frozen=True, kw_only=True)
class Averaging:
    decay: Annotated[float, NUMBER, Ge(0), Lt(1), Setting("Of the mean.", ("--dk",))] = 0.99
    start_step: Annotated[Count, Setting("The first step.", option="from-step", younger=(IDENTITY, HASH))] = 1
    kind: Annotated[Literal["plain", "biased"], Setting("Which mean.", role=Role.MAY_CHANGE)] = "plain"
    folder: Annotated[str | None, Setting("Where means are kept.", path=True, role=Role.FREE)] = None
    span: Annotated[tuple[int, ...], Setting("As 1-3.", metavar="A-B", read=_span)] = ()
    averaged: Annotated[bool, Setting("Whether.", ("--avg",))] = False
    hidden: Annotated[int, Setting(option=None, role=Role.FREE)] = 5


@dataclass(frozen=True)
class Run(RunConfig, Averaging):
    pass


class AveragingSection(Section, Averaging):
    pass


class Nested(Section):
    averaging: AveragingSection = AveragingSection()
    maybe: AveragingSection | None = None
    trials: Annotated[int, Setting(role=Role.FREE)] = 1


class _Task:
    name = "some"

    def identity(self, data: Any) -> dict[str, Any]:
        return {}


def test_a_field_is_part_of_the_identity_by_its_role() -> None:
    assert identity(Averaging()) == {"decay": 0.99, "span": (), "averaged": False}
    assert identity(Averaging(start_step=2))["start_step"] == 2
    said = run_identity(Run("a", decay=0.5), _Task(), None, {})  # type: ignore[arg-type]
    assert said.items() >= {"decay": 0.5, "lr": 0.05, "arch": "a"}.items()
    assert not said.keys() & {"kind", "folder", "start_step", "epochs", "threads", "effective_train_size"}


@pytest.mark.parametrize(("key", "value", "counts"), [
    ("decay", 0.5, True), ("kind", "biased", True), ("start_step", 2, True),
    ("folder", "/x", False), ("hidden", 6, False),
])  # fmt: skip
def test_a_field_is_part_of_a_baselines_hash_unless_nothing_depends_on_it(key: str, value: Any, counts: bool) -> None:
    run = Run("a")
    assert (baseline_hash(replace(run, **{key: value}), "f") != baseline_hash(run, "f")) is counts


def test_a_field_that_came_later_leaves_old_hashes_alone() -> None:
    assert "start_step" not in hashed(Averaging(), asdict(Averaging()))


def test_a_section_takes_the_fields_with_their_bounds_and_defaults() -> None:
    assert AveragingSection().model_dump() == asdict(Averaging())
    said = {"decay": 1, "start_step": True, "kind": "odd", "foldr": "x"}
    _, faults = validate(Nested, {"averaging": said}, "f.yaml")
    assert [str(fault) for fault in faults] == [
        "f.yaml: averaging.decay: must be below 1, got 1",
        "f.yaml: averaging.start_step: must be a number, got True",
        "f.yaml: averaging.kind: must be one of plain, biased, got 'odd'; use one of: biased, plain",
        "f.yaml: averaging.foldr: unknown key; did you mean 'folder'?",
    ]


def test_what_nothing_depends_on_may_change_on_resume() -> None:
    assert _may_change(Nested) == (
        "averaging.folder", "averaging.hidden", "maybe.folder", "maybe.hidden", "trials",
    )  # fmt: skip
    assert set(_may_change(SweepSections)) == {
        "num_samples", "confirm", "constraints", "tracking", "resources_per_trial", "workers_per_trial",
        "max_failures", "dataset.data_dir", "dataset.workers", "dataset.download",
    }  # fmt: skip


def test_bounds_hold_without_a_file_too() -> None:
    faults = out_of_bounds(Averaging(decay=1.0, start_step=0, kind="odd"), "averaging.")  # type: ignore[arg-type]
    assert [str(fault) for fault in faults] == [
        "averaging.decay: must be a number from 0 to below 1, got 1.0",
        "averaging.start_step: must be a whole number from 1 up, got 0",
        "averaging.kind: is not known, got 'odd'; use plain or biased",
    ]


@dataclass(frozen=True)
class _Rates:
    above: Annotated[Positive, Setting()] = 1.0
    from_zero: Annotated[Positive, Setting(excluded_too=True)] = 1.0
    most: Annotated[int | None, Ge(1), Setting()] = None


@pytest.mark.parametrize(("value", "rules"), [
    (0.0, ["above: must be a number above 0, got 0.0"]),
    (-1, ["above: must be a number above 0, got -1", "from_zero: must be a number from 0 up, got -1"]),
    (1e39, ["above: must be a number above 0, below 3.40282e+38, got 1e+39",
            "from_zero: must be a number from 0 up, below 3.40282e+38, got 1e+39"]),
    (True, ["above: must be a number above 0, got True", "from_zero: must be a number from 0 up, got True"]),
])  # fmt: skip
def test_a_bound_that_is_excluded_of_files_only(value: Any, rules: list[str]) -> None:
    assert [str(fault) for fault in out_of_bounds(_Rates(value, value), "")] == rules


def test_none_has_no_bounds_but_a_number_in_its_place_has() -> None:
    assert out_of_bounds(_Rates(most=None), "") == []
    assert str(out_of_bounds(_Rates(most=0), "")[0]) == "most: must be a whole number from 1 up, got 0"


def test_a_run_says_all_that_is_out_of_bounds() -> None:
    with pytest.raises(ConfigError) as caught:
        check_run(Run("a", epochs=0, lr=-1.0, threads=0, decay=2.0))
    assert [fault.where for fault in caught.value.faults] == [
        "training.decay", "training.epochs", "training.lr", "training.threads",
    ]  # fmt: skip


def _app(said: list[Mapping[str, Any]]) -> typer.Typer:
    def command(
        before: Annotated[str, typer.Option()],
        averaging: Annotated[Mapping[str, Any], OptionsOf(Averaging, "Averaging")] = NONE,
        after: Annotated[int, typer.Option()] = 3,
    ) -> None:
        """What it does."""
        said.extend((averaging, {"before": before, "after": after}))

    app = typer.Typer()
    app.command()(with_options(command))
    return app


def test_a_field_is_an_option_with_its_spellings_help_and_default() -> None:
    shown = CliRunner().invoke(_app([]), ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for word in (
        "What it does.",
        "--dk",
        "--decay",
        "Of the mean.",
        "0.99",
        "--from-step",
        "x>=1",
        "A-B",
        "--avg",
        "3",
    ):
        assert word in shown
    assert "hidden" not in shown
    assert "start-step" not in shown
    assert "--no-averaged" not in shown


def test_a_command_gets_the_values_by_the_names_of_the_fields() -> None:
    said: list[Mapping[str, Any]] = []
    line = ["--before", "x", "--dk", "0.5", "--from-step", "4", "--folder", "here", "--span", "1-3", "--avg"]
    ended = CliRunner().invoke(_app(said), line)
    assert ended.exit_code == 0, ended.output
    averaging, others = said
    assert Averaging(**averaging) == Averaging(
        decay=0.5, start_step=4, folder="here", span=(1, 3), averaged=True, kind="plain"
    )
    assert "hidden" not in averaging
    assert others == {"before": "x", "after": 3}
    assert CliRunner().invoke(_app(said), ["--before", "x", "--from-step", "0"]).exit_code == 2


def test_every_field_of_the_parts_of_a_run_says_what_depends_on_it() -> None:
    own = {"arch", "dataset", "schedule", "strict", "distillation", "init_from", "continue_from", "model_args", "task",
           "train", "values"}  # fmt: skip
    described = {field.name for field in settings(RunConfig)}
    assert set(RunConfig.__dataclass_fields__) == described | own


def test_stored_hashes_stay_what_they_are() -> None:
    assert baseline_hash(RunConfig("simplenet_cifar"), "f") == "367cbbdc7dc95899"
    other = RunConfig("resnet20_cifar", epochs=3, lr=0.2, nesterov=True, precision="bf16", model_args={"width": 2})
    assert baseline_hash(other, "g") == "0faad72794afccea"


def test_the_sections_defaults_are_those_of_a_run() -> None:
    run = RunConfig("a")
    assert all(getattr(run, key) == value for key, value in dict(TrainingSection()).items())
    assert DatasetSection().config() == run.dataset
