"""What each layer reads in a network that is changed on the way, against passes of a network that holds still."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.calibration import PRODUCTS, SQUARES
from raydistill.compression.calibration.walk import all_at_once, calibrating, layer_by_layer
from raydistill.compression.copying import copy_of
from raydistill.errors import ConfigError, DataError
from raydistill.models import create
from tests.compression.calibration.test_survey import Blocks


def tokens(count: int, rows: int = 3) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(0, 11, (rows, 6), generator=generator),) for _ in range(count)]


def decoder(depth: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create("decoder_lm", 11, {"width": 8, "depth": depth, "heads": 2, "dropout": 0.3, "context": 6})


def transformer() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.Sequential(nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3))


def read_by(model: nn.Module, layer: str, batches: Iterable[Sequence[Any]]) -> Tensor:
    """The products of the inputs of a linear layer, from whole passes of the network as it is."""
    total = torch.zeros(0)

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        rows = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
        total = rows.T @ rows if not total.numel() else total + rows.T @ rows

    handle = model.get_submodule(layer).register_forward_pre_hook(see)
    with calibrating(model):
        for inputs in batches:
            model(*inputs)
    handle.remove()
    return total


def matrices(model: nn.Module, *without: str) -> list[str]:
    named = model.named_parameters()
    return [name for name, value in named if value.dim() > 1 and not any(part in name for part in without)]


@pytest.mark.slow
@pytest.mark.parametrize("net", ["decoder", "blocks", "keeps"])
def test_each_layer_reads_what_those_before_it_give_once_they_are_changed(net: str) -> None:
    """Every layer is halved in its turn; a second network, changed by hand as far, says what the next one must read.

    ``keeps`` uses what every block gives, so that its chain cannot be passed over for the last layer.
    """
    model = decoder() if net == "decoder" else Blocks(keeps=net == "keeps")
    data: list[Any] = tokens(3) if net == "decoder" else [(torch.randn(5, 2),) for _ in range(3)]
    names = matrices(model, "encoder", "positions")
    by_hand = copy_of(model)
    seen: list[str] = []
    with calibrating(model):
        for name, sums in layer_by_layer(model, dict.fromkeys(names, PRODUCTS), lambda: data):
            expected = read_by(by_hand, name.removesuffix(".weight"), data)
            assert sums.total is not None
            torch.testing.assert_close(sums.total[0], expected, atol=1e-4, rtol=1e-4)
            for one in (model, by_hand):
                one.get_parameter(name).mul_(0.5)
            seen.append(name)
    assert sorted(seen) == sorted(names)


@pytest.mark.slow
def test_packed_attention_is_read_where_fused_kernels_would_pass_it_over() -> None:
    model = transformer()
    names = [name for name in matrices(model) if name != "0.weight"]
    data = tokens(2)
    found = {}
    with calibrating(model):
        for name, sums in layer_by_layer(model, dict.fromkeys(names, PRODUCTS), lambda: data):
            assert sums.total is not None
            found[name] = sums.total.clone()
    assert list(found)[:4] == [
        "1.layers.0.self_attn.in_proj_weight", "1.layers.0.self_attn.out_proj.weight",
        "1.layers.0.linear1.weight", "1.layers.0.linear2.weight",
    ]  # fmt: skip
    rows = torch.cat([model[0](batch[0]).reshape(-1, 8) for batch in data]).double()
    for group in found["1.layers.0.self_attn.in_proj_weight"]:
        torch.testing.assert_close(group, rows.T @ rows, atol=1e-4, rtol=1e-4)
    expected = read_by(model, "1.layers.1.linear2", data)
    torch.testing.assert_close(found["1.layers.1.linear2.weight"][0], expected, atol=1e-4, rtol=1e-4)


def test_a_shared_weight_reads_what_both_of_its_layers_read() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    data = [(torch.randn(6, 4),)]
    expected = read_by(model, "0", data) + read_by(model, "2", data)
    with calibrating(model):
        found = {
            n: s.squares for n, s in layer_by_layer(model, {"0.weight": SQUARES, "3.weight": SQUARES}, lambda: data)
        }
    torch.testing.assert_close(found["0.weight"][0], expected.diagonal(), atol=1e-4, rtol=1e-4)
    assert list(found) == ["0.weight", "3.weight"]


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.always, self.rarely, self.never = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.always(x)
        return self.rarely(x) if float(x.sum()) > 1e3 else x


def test_a_layer_that_some_batches_do_not_reach_is_found_and_one_that_none_reaches_is_named() -> None:
    model = Sometimes()
    with torch.no_grad():
        model.always.weight.fill_(1.0)
    data = [(torch.ones(1, 2),), (torch.full((1, 2), 1e4),)]
    with calibrating(model):
        wanted = dict.fromkeys(["rarely.weight", "always.weight"], SQUARES)
        found = {name: sums.samples for name, sums in layer_by_layer(model, wanted, lambda: data)}
        assert found == {"always.weight": 2, "rarely.weight": 1}
        with pytest.raises(ConfigError, match=r"never\.weight: is of a layer that is not called in the forward pass"):
            list(layer_by_layer(model, {"never.weight": SQUARES}, lambda: data))


def test_no_data_and_data_that_are_not_finite_are_said() -> None:
    model = Blocks()
    with calibrating(model):
        with pytest.raises(DataError, match="calibration: needs at least one batch"):
            list(layer_by_layer(model, {"stem.weight": SQUARES}, list))
        with pytest.raises(DataError, match=r"stem\.weight: reads values that are not finite"):
            list(layer_by_layer(model, {"stem.weight": SQUARES}, lambda: [(torch.full((1, 2), torch.inf),)]))


def test_training_mode_and_random_state_come_back() -> None:
    model = decoder(1)
    model.blocks[0].norm1.eval()  # type: ignore[index,union-attr]
    before = torch.get_rng_state()
    with calibrating(model):
        assert not model.training
        torch.rand(3)
    assert model.training
    assert not model.blocks[0].norm1.training  # type: ignore[index,union-attr]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_all_at_once_is_what_the_network_reads_as_it_is() -> None:
    model, data = decoder(2), tokens(2)
    names = matrices(model, "encoder", "positions", "decoder")
    with calibrating(model):
        sums, blocks = all_at_once(model, names, lambda: data)
    for name in names:
        expected = read_by(model, name.removesuffix(".weight"), data).diagonal()
        torch.testing.assert_close(sums[name].squares[0], expected, atol=1e-4, rtol=1e-4)
    assert set(blocks.values()) == {"blocks.0", "blocks.1"}


def alive() -> int:
    """Bytes of all tensors that Python holds, each memory once."""
    gc.collect()
    found = {}
    for value in gc.get_objects():
        if type(value) in (Tensor, nn.Parameter):  # others may have no memory: what an exporter has left
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.slow
def test_memory_is_one_layers_sums_and_the_inputs_of_one_block() -> None:
    """However deep the network: the inputs of all blocks together would be eight times as much."""
    width, rows, count, depth = 8, 200, 3, 8
    model = decoder(depth)
    data = tokens(count, rows)
    names = matrices(model, "encoder", "positions")
    inputs = count * rows * 6 * width * 4
    largest = (4 * width) ** 2 * 8
    gc.freeze()  # what was there before is not looked through each time
    try:
        before, peak = alive(), 0
        with calibrating(model):
            for _ in layer_by_layer(model, dict.fromkeys(names, PRODUCTS), lambda: data):
                peak = max(peak, alive() - before)
    finally:
        gc.unfreeze()
    assert inputs <= peak <= 2 * inputs + largest
    assert 2 * inputs + largest < depth * inputs / 2
