"""The options of quantization after training: Distiller's names, and nothing that a run's identity depends on."""

from __future__ import annotations

from raydistill.parts import PostTraining, Role, settings


def test_options_have_distillers_names_and_none_is_part_of_a_runs_identity() -> None:
    found = {field.setting.option: field for field in settings(PostTraining)}
    assert all(option.startswith(("qe-", "lapq-", "quantize-eval")) for option in found)
    assert {field.setting.role for field in found.values()} == {Role.FREE}
    short = {"qe-mode": "--qem", "qe-bits-acts": "--qeba", "qe-bits-wts": "--qebw", "qe-per-channel": "--qepc"}
    assert {option: found[option].setting.also[0] for option in short} == short


def test_defaults_are_distillers() -> None:
    said = PostTraining()
    assert (said.bits_acts, said.bits_wts, said.bits_accum, said.mode, said.clip_acts) == (8, 8, 32, "sym", "none")
