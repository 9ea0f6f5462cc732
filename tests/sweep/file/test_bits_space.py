"""A sweep file over bits from curves: valid as it is, choices are what was borne."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.sweep.file.bits_space import bits_space_text
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.space_file import Measured
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks.classification import ImageShape
from raydistill.tasks.classification.metrics import METRICS

BORNE = {
    "conv1.weight": (8,),
    "conv2.weight": (8, 6, 4),
    "fc1.weight": (8, 6, 4, 2),
    "fc2.weight": (8, 6),
    "fc3.weight": (),
}


def measured(folder: Path) -> Measured:
    (folder / "checkpoint.pt").touch()
    return Measured(
        "simplenet_cifar", folder / "checkpoint.pt", 20, 0.02, 10_000, METRICS, 0.9, "raydistill sensitivity",
        dataset={"name": "digits"}, training={"lr": 0.05, "batch_size": 64},
    )  # fmt: skip


@pytest.mark.slow
def test_choices_are_what_each_weight_bears(tmp_path: Path) -> None:
    file = tmp_path / "bits.yaml"
    file.write_text(bits_space_text(file, measured(tmp_path), BORNE))
    plan = plan_sweep(load_sweep(file), ImageShape(10, (3, 32, 32)))
    found = {d.weight: list(d.distribution.options) for d in plan.space.dimensions}  # type: ignore
    assert found == {"conv2.weight": [4, 6, 8], "fc1.weight": [2, 4, 6, 8], "fc2.weight": [6, 8]}
    assert [sorted(trial.values.values()) for trial in plan.warm] == [[8, 8, 8], [2, 4, 6]]
    for trial in plan.trials:
        (quantizer,) = yaml.safe_load(trial.schedule_text)["quantizers"].values()
        assert quantizer["bits_weights"] == 8, "conv1 has the most"
        assert quantizer["overrides"]["fc3"]["bits_weights"] is None
        for weight in found:
            layer = weight.partition(".")[0]
            assert quantizer["overrides"][layer]["bits_weights"] == trial.values[f"per_layer.{weight}.bits_weights"]
    text = file.read_text()
    assert "# conv1.weight keeps 8 bits" in text
    assert "# fc3.weight stays a float" in text


def test_where_no_weight_bears_fewer_bits_there_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-drop: no weight bears fewer bits .*, got 0\.02; raise it"):
        bits_space_text(tmp_path / "b.yaml", measured(tmp_path), {"conv1.weight": (8,), "fc3.weight": ()})
