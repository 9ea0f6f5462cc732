"""A field of a part is declared once: section, option, identity, hash and what --resume lets change follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from raydistill.cli.options import NONE, OptionsOf, with_options
from raydistill.parts import Role, Setting, hashed, identity
from raydistill.sweep.baseline import baseline_hash
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import Section, SweepSections
from raydistill.sweep.record.resume import _may_change
from raydistill.training.identity import run_identity
from tests.parts.averaging import Averaging, Run


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
        "max_failures", "dataset.data_dir", "dataset.workers", "dataset.download", "aliases",
    }  # fmt: skip


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


@pytest.mark.slow
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
