"""What is collected of activations: against sums over all of the data at once, and Distiller's own files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from raydistill.compression.quantizers.statistics import (
    as_mapping,
    collect,
    read_statistics,
    statistics_of,
    write_statistics,
)
from raydistill.errors import ConfigError, DataError
from tests.compression.quantizers.oracle_nets import Oracles

RIGHT = ("min", "max", "mean")


@pytest.fixture(scope="module")
def oracles(compat: Path) -> Oracles:
    return Oracles.read(compat)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_distillers_statistics(oracles: Oracles, number: int) -> None:
    """All but avg_min and avg_max. Distiller's mean over samples weighs what came before by its count of elements, not
    of samples, so later batches hardly count; that is shown here, and ours is the mean over samples that it means."""
    said = oracles.cases["stats"][number]
    batches = [oracles.tensor(name) for name in said["batches"]]
    found = collect(oracles.network(number), (batches[0],), lambda: [(batch,) for batch in batches], spread=False)
    assert list(found) == list(said["stats"])
    for name, theirs in said["stats"].items():
        ours = as_mapping(found[name])
        assert sorted(ours["inputs"]) == [int(key) for key in theirs["inputs"]]
        for mine, distillers in ((ours["output"], theirs["output"]), (ours["inputs"][0], theirs["inputs"]["0"])):
            assert {key: mine[key] for key in ("std", "b", "shape", "total_numel")} == {
                key: distillers[key] for key in ("std", "b", "shape", "total_numel")
            }
            for key in RIGHT:
                assert mine[key] == pytest.approx(distillers[key], abs=1e-6)
    rows = [batch.flatten(1) for batch in batches]
    first = next(iter(said["stats"]))
    for key, extremes in (("avg_min", [row.amin(1) for row in rows]), ("avg_max", [row.amax(1) for row in rows])):
        wrong, elements = 0.0, 0
        for row, extreme in zip(rows, extremes, strict=True):
            wrong = (elements * wrong + float(extreme.sum())) / (elements + len(extreme))
            elements += row.numel()
        assert wrong == pytest.approx(said["stats"][first]["inputs"]["0"][key], abs=1e-6)
        assert getattr(found[first].inputs[0], key) == pytest.approx(float(torch.cat(extremes).mean()), abs=1e-6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.fc(x))
        z = torch.cat([y, F.relu(y - 1)], dim=1)[:, :6]
        return self.out(z + y)


def test_it_is_what_all_of_the_data_give_at_once() -> None:
    torch.manual_seed(0)
    model, data = Net(), torch.randn(30, 4)
    batches = [(data[:7],), (data[7:9],), (data[9:],)]
    found = collect(model, (data[:2],), lambda: batches, histograms=True)
    with torch.no_grad():
        before = model.fc(data)
    ours = found["act"].inputs[0]  # the layer writes over it in place
    assert ours.min == pytest.approx(float(before.min()))
    assert ours.avg_max == pytest.approx(float(before.amax(1).mean()), rel=1e-5)
    assert ours.mean == pytest.approx(float(before.mean()), rel=1e-5)
    assert ours.std == pytest.approx(float(before.std(unbiased=False)), rel=1e-4)
    assert ours.b == pytest.approx(float((before - before.mean()).abs().mean()), rel=1e-4)
    assert ours.total_numel == before.numel()
    assert ours.histogram is not None
    assert float(ours.histogram.counts.sum()) == before.numel()
    assert found["act"].output.min == 0.0
    assert {"sub_0", "relu_0", "cat_0", "add_0"} <= set(found)
    assert set(found["cat_0"].inputs) == {0, 1}
    assert not any(name.startswith("getitem") for name in found)
    single = found["out"].output  # one number a sample: the extremes are the batch's
    with torch.no_grad():
        given = [model(batch) for (batch,) in batches]
    assert single.avg_min == pytest.approx(sum(float(part.min()) for part in given) / 3, rel=1e-5)


@pytest.mark.parametrize(("kind", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-6), (torch.float64, 1e-12)])
def test_sums_of_many_values_are_those_of_float64(kind: torch.dtype, off: float) -> None:
    data = (torch.rand(3, 1, 400, 500, generator=torch.Generator().manual_seed(0)) + 7).to(kind)
    found = collect(nn.Identity(), (data,), lambda: [(data,)], spread=False)
    assert found == {}  # nothing is called
    found = collect(nn.Sequential(nn.ReLU()), (data,), lambda: [(data,), (data,)])
    exact = data.double().numpy()
    assert found["0"].output.mean == pytest.approx(exact.mean(), rel=off)
    assert found["0"].output.std == pytest.approx(exact.std(), rel=1e-5)
    assert found["0"].output.b == pytest.approx(abs(exact - exact.mean()).mean(), rel=1e-5)
    assert found["0"].output.avg_min == pytest.approx(exact.reshape(3, -1).min(1).mean(), rel=1e-6)


def test_what_is_known_of_a_tensor_is_not_known_of_it_once_it_is_written_over() -> None:
    class Over(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1.0
            y += 1.0
            y = F.relu(y, inplace=True)
            y += y
            return y

    data = torch.tensor([[-3.0, 1.0], [-2.0, 0.5]])
    found = collect(Over(), (data,), lambda: [(data,), (data - 1,)])
    told = {name: (one.inputs[0].min, one.inputs[0].max, one.output.min, one.output.max) for name, one in found.items()}
    assert told == {
        "mul_0": (-4.0, 1.0, -4.0, 1.0), "add_0": (-4.0, 1.0, -3.0, 2.0), "relu_0": (-3.0, 2.0, 0.0, 2.0),
        "add_1": (0.0, 2.0, 0.0, 4.0),
    }  # fmt: skip


def test_the_network_is_as_it_was_and_the_batches_are_read_twice_for_the_spread() -> None:
    model = Net().train()
    read = []

    def batches() -> Any:
        read.append(1)
        yield (torch.ones(2, 4),)

    collect(model, (torch.ones(2, 4),), batches)
    assert len(read) == 2
    assert all(module.training for module in model.modules())
    collect(model, (torch.ones(2, 4),), batches, spread=False)
    assert len(read) == 3


@pytest.mark.slow
def test_a_file_comes_back_and_has_distillers_form(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = collect(Net(), (torch.randn(2, 4),), lambda: [(torch.ones(3, 4),), (torch.zeros(1, 4),)])
    write_statistics(tmp_path / "s.yaml", found)
    assert read_statistics(tmp_path / "s.yaml") == found
    content = yaml.safe_load((tmp_path / "s.yaml").read_text())
    keys = ["min", "max", "avg_min", "avg_max", "mean", "std", "b", "shape", "total_numel"]
    assert list(content["fc"]["output"]) == keys
    assert list(content["fc"]["inputs"]) == [0]
    assert content["fc"]["output"]["shape"] == "(3, 6)"


def test_files_of_older_versions_lack_b_and_may_carry_the_prefix_of_data_parallel() -> None:
    record = {"min": -1, "max": 2.0, "avg_min": -0.5, "avg_max": 1, "mean": 0.1, "std": 1.0, "shape": "(1, 2)"}
    found = statistics_of({"module.conv1": {"inputs": {"0": record}, "output": record}}, "s.yaml")
    assert found["conv1"].inputs[0].max == 2.0
    assert found["conv1"].output.b == 0.0


def record(**other: object) -> dict[str, object]:
    return {"min": 0.0, "max": 1.0, "avg_min": 0.0, "avg_max": 1.0, "mean": 0.5, "std": 0.1, "b": 0.1, **other}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "s.yaml: holds no statistics; calibrate first"),
        ({"fc": 3}, "s.yaml: fc: must map 'output', and 'inputs' if any, to their statistics, got 3"),
        ({"fc": {"output": record(max=math.nan)}}, "s.yaml: fc.output.max: must be finite, got nan; calibrate again"),
        ({"fc": {"output": record(mean="x")}}, "s.yaml: fc.output.mean: must be a number, got 'x'"),
        ({"fc": {"output": record(min=2.0)}}, "min must not be above max"),
        ({"fc": {"output": record(std=-1.0)}}, "nor std or b below 0"),
        (
            {"fc": {"output": record(), "inputs": {"x": record()}}},
            "s.yaml: fc.inputs: must map positions to statistics",
        ),
        ({"fc": {"output": record(), "inputs": {0: 1}}}, "s.yaml: fc.inputs.0: must map min, max, ... to numbers"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(content: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        statistics_of(content, "s.yaml")
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_no_data_and_values_that_are_not_finite_are_said() -> None:
    with pytest.raises(DataError, match="needs at least one batch"):
        collect(Net(), (torch.ones(1, 4),), list)
    with pytest.raises(DataError, match="values that are not finite"):
        collect(Net(), (torch.ones(1, 4),), lambda: [(torch.full((1, 4), math.nan),)])


def test_clipping_a_record_clips_its_extremes_only() -> None:
    found = statistics_of({"fc": {"output": record(min=-3.0, avg_min=-2.0)}}, "s")["fc"].output
    cut = found.clipped(0.0, 0.5)
    assert (cut.min, cut.avg_min, cut.max, cut.avg_max, cut.mean) == (0.0, 0.0, 0.5, 0.5, 0.5)
