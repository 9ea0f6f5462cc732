"""The options of AMC are those of the searcher, under Distiller's names."""

from __future__ import annotations

from raydistill.parts import AMC, settings
from raydistill.sweep.file.spec import SearcherSection


def test_every_field_is_an_option_of_the_searcher_or_the_goal() -> None:
    fields = {field.name for field in settings(AMC)}
    assert fields - {"target_density"} == SearcherSection.uses["amc"]
    assert all(str(field.setting.option).startswith("amc-") for field in settings(AMC))
    assert AMC() == AMC(**dict.fromkeys(fields))  # type: ignore[arg-type]
