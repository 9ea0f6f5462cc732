"""Post-training quantization: Distiller's own outputs, and what is rounded of networks of other kinds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers.activations import Accumulator, DynamicRange, FixedGrid, ReducedFloat
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.points import ACCUMULATOR, RESULT
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import LayerRecords, Record, collect, statistics_of
from raydistill.compression.quantizers.weights import ReducedFloatWeight
from raydistill.errors import ConfigError
from tests.compression.quantizers.oracle_nets import Oracles

ON_AN_EDGE = {3: 1, 40: 1, 52: 1, 57: 1, 72: 2, 73: 1, 74: 1, 76: 1, 135: 2}
"""Cases of Distiller's that differ, and how many values on an edge between two numbers account for it: for most the
largest of a SYMMETRIC range, which lies half a step beyond the last number. Distiller multiplies by one over the step,
we divide by it."""


class _Oracle:
    """One case of Distiller's, quantized; values can be moved over the edge that they lie on."""

    def __init__(self, oracles: Oracles, number: int, of_input: dict[int, Grid]) -> None:
        case = oracles.cases["post_train"][number]
        said = oracles.cases["stats"][case["net"]]
        self.net, self.input = oracles.network(case["net"]), oracles.tensor(case["input"])
        quantizer = PostTrainLinearQuantizer("q", **case["args"])
        statistics = statistics_of(said["stats"], "stats") if case["with_stats"] else None
        found = quantizer.find(self.net, (self.input,), statistics)
        self.held = found.carry_out(self.net)
        self._read_as_the_first_case_did(said["net"][0][0], case["net"], of_input)
        self.expected = oracles.tensor(case["output"])

    def _read_as_the_first_case_did(self, first: str, net: int, of_input: dict[int, Grid]) -> None:
        """Distiller keeps the grid of a tensor as an attribute of it, and finds it again when the same tensor goes
        through another network: all cases round their input as the first one did."""
        for point in self.held.points:
            if point.module == first and point.argument == 0:
                own = self.held.activation(point)
                grid = own.grid_for(self.input) if isinstance(own, DynamicRange) else own.grid()
                assert grid is not None
                fixed = FixedGrid.of(8, of_input.setdefault(net, grid))
                self.held.replace_activation(point, fixed)

    def differs(self) -> int:
        with torch.no_grad():
            return int(((self.net(self.input) - self.expected).abs() > 1e-5).sum())

    def over_edges(self, most: int) -> int | None:
        """How few of the values that lie on an edge have to be rounded the other way to agree; None: that is not it."""
        moves: dict[str, list[tuple[int, float]]] = {}
        seen: dict[str, tuple[Tensor, Grid]] = {}

        def watched(key: str, quantizer: Any, grid_of_it: Any) -> None:
            forward = quantizer.forward

            def moved(values: Tensor) -> Tensor:
                seen[key] = values.detach(), grid_of_it(values)
                for at, amount in moves.get(key, ()):
                    values = values.detach().clone()
                    values.view(-1)[at] += amount
                return forward(values)

            quantizer.forward = moved

        for point in self.held.points:
            own = self.held.activation(point)
            if not isinstance(own, Accumulator):
                watched(point.key, own, lambda values, own=own: own.grid() or own.grid_for(values))
        for name in self.held.weight_names():
            weight = self.held.weight(name)
            grid = weight.grid(self.net.get_parameter(name))
            weight.grid = lambda values, grid=grid: grid
            watched(name, weight, lambda values, grid=grid: grid)
        self.differs()
        edges = [(key, *edge) for key, (values, grid) in list(seen.items()) for edge in _edges(values, grid)]
        for count in range(most + 1):
            for chosen in itertools.combinations(edges, count):
                moves.clear()
                for key, at, amount in chosen:
                    moves.setdefault(key, []).append((at, amount))
                if not self.differs():
                    return count
        return None


def _edges(values: Tensor, grid: Grid) -> list[tuple[int, float]]:
    """Which values lie on an edge, and what moves each over it."""
    steps = (values / grid.scale).double().flatten()
    beyond = steps - steps.floor() - 0.5
    scale = grid.scale.expand_as(values).flatten() if grid.scale.dim() == values.dim() else grid.scale.flatten()[:1]
    found = []
    for at in (beyond.abs() < 3e-4).nonzero().flatten().tolist():
        up = beyond[at] < 0 or (beyond[at] == 0 and int(steps[at].floor()) % 2 == 0)
        step = float(scale[at if len(scale) > 1 else 0])
        found.append((at, (1 if up else -1) * (float(beyond[at].abs()) + 1e-4) * step))
    return found


@pytest.mark.slow
def test_all_of_distillers_outputs(compat: Path) -> None:
    oracles = Oracles.read(compat)
    assert len(oracles.cases["post_train"]) == 137
    of_input: dict[int, Grid] = {}
    differ = []
    for number in range(137):
        case = _Oracle(oracles, number, of_input)
        if case.differs():
            differ.append(number)
            assert case.over_edges(ON_AN_EDGE.get(number, 0)) == ON_AN_EDGE.get(number), number
    assert differ == list(ON_AN_EDGE)


class Net(nn.Module):
    """Modules and functions, a sum, a concatenation, a product, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc, self.out = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(12, 3)
        self.scale = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        y = F.relu(self.fc(x))
        z = y + self.words(words)
        z = torch.cat([z, F.linear(y, self.scale)], dim=1)
        attended = F.softmax(z @ z.T, dim=1)
        return self.out(attended @ z)


EXAMPLE = (torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 6, 2]))


def network() -> Net:
    torch.manual_seed(1)
    return Net().eval()


def statistics(model: nn.Module, **arguments: Any) -> dict[str, LayerRecords]:
    return collect(model, EXAMPLE, lambda: [EXAMPLE], **arguments)


def quantized(model: nn.Module, known: dict[str, LayerRecords] | None, **arguments: Any) -> Quantization:
    return PostTrainLinearQuantizer("q", **arguments).find(model, EXAMPLE, known).carry_out(model)


def named(held: Quantization, argument: int = RESULT) -> set[str]:
    return {point.name for point in held.points if point.argument == argument}


@pytest.mark.parametrize("static", [True, False])
def test_functional_calls_sums_concatenations_products_and_embeddings_are_rounded(static: bool) -> None:
    model = network()
    before = model(*EXAMPLE).detach()
    held = quantized(model, statistics(model) if static else None)
    everything = {"relu_0", "add_0", "cat_0", "linear_0", "matmul_0", "softmax_0", "matmul_1", "out"}
    assert named(held) == everything  # the layer before the ReLU is rounded with it; an embedding by its weight
    assert named(held, ACCUMULATOR) == {"fc", "linear_0", "matmul_0", "matmul_1", "out"}
    assert named(held, 0) == {"fc"}  # what the network is given; all else is rounded when it is made
    assert set(held.weight_names()) == {"words.weight", "fc.weight", "scale", "out.weight"}
    after = model(*EXAMPLE).detach()
    assert 0 < float((after - before).norm() / before.norm()) < 0.1
    step = held.activation(next(point for point in held.points if point.name == "out" and point.argument == RESULT))
    grid = step.grid() if static else None
    if grid is not None:
        assert torch.equal(grid.nearest(after), after)


def test_what_a_layer_gives_lies_on_the_grid_of_its_record() -> None:
    """By hand: (input rounded) times (weight rounded) plus the bias in units of both, behind the ReLU, rounded."""
    model = network()
    known = statistics(model)
    held = quantized(model, known, mode="ASYMMETRIC_UNSIGNED", per_channel_wts=True)
    x, weight, bias = EXAMPLE[0].double(), model.fc.weight.detach().double(), model.fc.bias.detach().double()
    low, high = min(known["fc"].inputs[0].min, 0.0), max(known["fc"].inputs[0].max, 0.0)
    unit = (high - low) / 255
    zero = -round(low / unit)
    given = (torch.clamp(torch.round(x / unit) + zero, 0, 255) - zero) * unit
    lows, highs = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
    units = ((highs - lows) / 255)[:, None]
    zeros = -torch.round(lows[:, None] / units)
    rounded = (torch.clamp(torch.round(weight / units) + zeros, 0, 255) - zeros) * units
    sums = given @ rounded.T + torch.round(bias / (units[:, 0] * unit)) * units[:, 0] * unit
    step = max(known["fc"].output.max, 0.0) / 255
    expected = torch.clamp(torch.round(sums.relu() / step), 0, 255) * step
    seen = {}
    relu = held.activation(next(point for point in held.points if point.name == "relu_0"))
    relu.register_forward_hook(lambda module, inputs, output: seen.update(output=output))
    model(*EXAMPLE)
    off = (seen["output"].double() - expected).abs()
    assert float(off.max()) <= step * 1.001
    assert int((off > 1e-5).sum()) <= 1


def test_a_module_that_serves_two_layers_rounds_each_over_its_own_range() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()
            self.large.weight.data *= 100

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.large(self.act(self.small(x))))

    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(64, 4)
    known = collect(model, (x,), lambda: [(x,)])
    before = model(x)
    held = PostTrainLinearQuantizer("q").find(model, (x,), known).carry_out(model)
    assert named(held) == {"small", "large"}
    assert float((model(x) - before).norm() / before.norm()) < 0.02


def test_an_accumulator_of_few_bits_saturates() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    model[0].weight.data.copy_(torch.tensor([[1.0, 1.0]]))
    x = torch.tensor([[1.0, 1.0], [0.1, 0.1]])
    known = collect(model, (x,), lambda: [(x,)])
    args = {"mode": "SYMMETRIC_RESTRICTED", "bits_accum": 12}
    PostTrainLinearQuantizer("q", **args).find(model, (x,), known).carry_out(model)
    unit = (1 / 127) ** 2
    assert float(model(x)[0]) == pytest.approx(2047 * unit, abs=2 / 127)  # in place of 2.0, which is 2 * 127 ** 2 units
    assert float(model(x)[1]) == pytest.approx(2047 * unit, abs=2 / 127)


@pytest.mark.slow
@pytest.mark.parametrize("static", [True, False])
def test_scales_as_multiplier_and_shift_are_near_the_floats(static: bool) -> None:
    """A multiplier of 4 bits is off by up to an eighth, one of 20 bits hardly."""
    floats = network()(*EXAMPLE)
    off = {}
    for bits in (4, 20):
        model = network()
        quantized(model, statistics(model) if static else None, scale_approx_mult_bits=bits)
        off[bits] = float((model(*EXAMPLE) - floats).norm() / floats.norm())
    plain = network()
    quantized(plain, statistics(plain) if static else None)
    without = float((plain(*EXAMPLE) - floats).norm() / floats.norm())
    assert off[20] == pytest.approx(without, abs=0.01)
    assert off[4] > 2 * without


def test_overrides_say_what_a_layer_is_rounded_to() -> None:
    model = network()
    said = {
        "fc": {"bits_weights": None, "bits_activations": None},
        "out": {"bits_weights": 4, "bits_activations": 6, "mode": "ASYMMETRIC_SIGNED"},
    }
    held = quantized(model, statistics(model), overrides=said)
    assert "fc.weight" not in held.weight_names()
    assert held.weight("out.weight").bits == 4
    assert named(held, 0) == {"relu_0"}  # it reads a float, and is rounded by itself
    last = next(point for point in held.points if point.name == "out" and point.argument == RESULT)
    grid = held.activation(last).grid()
    assert (grid.low, grid.high) == (-32, 31)


def test_weights_alone_and_activations_alone() -> None:
    model = network()
    held = quantized(model, None, bits_activations=None, bits_parameters=4)
    assert not held.points
    assert set(held.weight_names()) == {"words.weight", "fc.weight", "scale", "out.weight"}
    model = network()
    held = quantized(model, statistics(model), bits_parameters=None)
    assert not held.weight_names()
    assert not named(held, ACCUMULATOR) - {"matmul_0", "matmul_1"}
    assert "out" in named(held)


def test_layers_in_half_precision() -> None:
    model = network()
    before = model(*EXAMPLE)
    held = quantized(model, statistics(model), fpq_module=16)
    assert isinstance(held.weight("fc.weight"), ReducedFloatWeight)
    assert isinstance(held.weight("fc.bias"), ReducedFloatWeight)
    of_layer = [held.activation(point) for point in held.points if point.name == "out"]
    assert {type(quantizer) for quantizer in of_layer} == {ReducedFloat}
    assert torch.equal(model(*EXAMPLE), model(*EXAMPLE).half().float())
    assert float((model(*EXAMPLE) - before).norm() / before.norm()) < 0.05


def records(lowest: float, highest: float, **other: float) -> LayerRecords:
    said = Record(lowest, highest, lowest, highest, (lowest + highest) / 2, **other)
    return LayerRecords(said, {0: said})


@pytest.mark.parametrize(("kind", "low", "high"), [(nn.Tanh(), -4.0, 4.0), (nn.Sigmoid(), -6.0, 6.0)])
def test_what_saturates_afterwards_is_clipped(kind: nn.Module, low: float, high: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), kind).eval()
    known = {"0": records(-50.0, 50.0), "1": records(-1.0, 1.0)}
    found = PostTrainLinearQuantizer("q", mode="ASYMMETRIC_UNSIGNED").find(model, (torch.ones(1, 2),), known)
    grid = found.activations["0:linear:0"]
    assert float(grid.scale) == pytest.approx((high - low) / 255)


def test_clipping_is_of_the_record_and_not_where_an_override_says_none() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    wide = LayerRecords(Record(-8.0, 8.0, -2.0, 2.0, 0.0, 1.0, 0.8), {0: Record(-8.0, 8.0, -2.0, 2.0, 0.0, 1.0, 0.8)})
    known = {"0": wide, "1": wide}
    said = {"overrides": {"1": {"clip_acts": "NONE"}}, "mode": "ASYMMETRIC_SIGNED"}
    found = PostTrainLinearQuantizer("q", clip_acts="AVG", **said).find(model, (torch.ones(1, 2),), known)
    assert float(found.activations["0:linear:0"].scale) == pytest.approx(4 / 255)
    assert float(found.activations["1:linear:0"].scale) == pytest.approx(16 / 255)
    found = PostTrainLinearQuantizer("q", clip_acts="N_STD", clip_n_stds=3.0, **said).find(
        model, (torch.ones(1, 2),), known
    )
    assert float(found.activations["0:linear:0"].scale) == pytest.approx(6 / 255)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["PERCENTILE", "MSE"])
def test_ranges_from_counts_have_a_smaller_error_with_few_bits(clip: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 2)
    x[0] = 40.0  # one outlier
    for static in (True, False):
        off = {}
        for way in ("NONE", clip):
            model = nn.Sequential(nn.Linear(2, 2)).eval()
            model[0].weight.data.copy_(torch.eye(2))
            known = collect(model, (x,), lambda: [(x,)], histograms=True) if static else None
            quantizer = PostTrainLinearQuantizer("q", bits_activations=4, clip_acts=way, clip_percentile=99.9)
            floats = model(x)
            quantizer.find(model, (x,), known).carry_out(model)
            off[way] = float((model(x) - floats)[1:].square().mean())
        assert off[clip] < off["NONE"] / 10


def test_embeddings_take_the_range_that_was_seen() -> None:
    model = network()
    found = PostTrainLinearQuantizer("q").find(model, EXAMPLE, statistics(model))
    seen = model.words(EXAMPLE[1]).abs().max()
    assert float(found.weights["words.weight"].scale) == pytest.approx(float(seen) / 127.5)


@pytest.mark.slow
def test_weights_are_clipped_where_it_is_asked_for() -> None:
    model = network()
    found = PostTrainLinearQuantizer("q", clip_acts="MSE", also_clip_weights=True, bits_parameters=3).find(
        model, EXAMPLE, statistics(model, histograms=True)
    )
    whole = grid_of(-float(model.fc.weight.abs().max()), float(model.fc.weight.abs().max()), 3, Mode.SYMMETRIC)
    assert float(found.weights["fc.weight"].scale) < float(whole.scale)


ONE = Record(0.0, 1.0, 0.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("known", "arguments", "text"),
    [
        ({"conv": LayerRecords(ONE)}, {}, "hold none of this network's layers"),
        ("without out", {}, "hold nothing of a layer of this network, got 'out'"),
        ("all", {"clip_acts": "MSE"}, "MSE needs histograms; calibrate in the same run"),
        ("all", {"inputs_quant_auto_fallback": False}, "fc, input 0: reads a float that nothing has rounded"),
        (
            "all",
            {"overrides": {"out": {"input_overrides": {0: {"clip_acts": "AVG"}}}}},
            "out.input_overrides.0: says what is rounded already",
        ),
        (None, {"bits_activations": None, "bits_parameters": None}, "bits_parameters: nothing would be quantized"),
    ],
)
def test_what_cannot_be_done_with_a_network_is_one_line(known: Any, arguments: dict[str, Any], text: str) -> None:
    model = network()
    if isinstance(known, str):
        known = {name: said for name, said in statistics(model).items() if known == "all" or name != "out"}
    with pytest.raises(ConfigError) as error:
        PostTrainLinearQuantizer("q", **arguments).find(model, EXAMPLE, known)
    assert text in str(error.value)


def test_calls_that_a_file_does_not_know_stay_floats_and_are_said() -> None:
    model = network()
    known = {name: said for name, said in statistics(model).items() if name in ("fc", "out", "words", "linear_0")}
    joined = {"add_0", "cat_0", "matmul_0", "matmul_1"}
    with pytest.raises(ConfigError, match="hold nothing of a layer"):  # integer kernels want those
        PostTrainLinearQuantizer("q").find(model, EXAMPLE, known)
    off = {"|".join(joined): {"bits_activations": None}}
    found = PostTrainLinearQuantizer("q", overrides=off).find(model, EXAMPLE, known)
    assert found.notes == ("softmax_0 stays a float: the statistics hold nothing of it",)


def test_an_input_override_rounds_what_the_network_is_given() -> None:
    model = network()
    said = {"fc": {"input_overrides": {0: {"bits_activations": 4, "mode": "ASYMMETRIC_UNSIGNED"}}}}
    held = quantized(model, statistics(model), inputs_quant_auto_fallback=False, overrides=said)
    grid = held.activation(next(point for point in held.points if point.argument == 0)).grid()
    assert (grid.low, grid.high) == (0, 15)
