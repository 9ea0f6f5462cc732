"""A trained network, folded, calibrated and quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.post_training import calibrate, moved, post_train, statistics_named
from raydistill.compression.quantizers.frozen import freeze
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.plan import Plan
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import LayerRecords, as_mapping, write_statistics
from raydistill.errors import ConfigError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = (
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + x)


def network() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(stem, Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


DATA = [(torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),) for seed in range(3)]


@pytest.mark.slow
def test_batch_norms_are_folded_first_and_their_statistics_move() -> None:
    model = network()
    before = model(*DATA[0]).detach()
    known = calibrate(model, DATA[0], lambda: DATA)
    assert "0.1" in known
    report = post_train(model, PostTrainLinearQuantizer("q", per_channel_wts=True), DATA[0], known)
    assert dict(report.folded.norms) == {"0.0": "0.1", "1.conv": "1.bn", "2.conv": "2.bn"}
    assert report.statistics is not None
    assert "0.1" not in report.statistics
    assert report.statistics["0.0"].output == known["0.1"].output
    assert quantization_of(model) is report.quantization
    assert 0 < float((model(*DATA[0]) - before).norm() / before.norm()) < 0.03


@pytest.mark.slow
def test_statistics_from_before_folding_and_from_after_give_the_same_network() -> None:
    first, second = network(), network()
    quantizer = PostTrainLinearQuantizer("q", mode="ASYMMETRIC_UNSIGNED", clip_acts="AVG")
    post_train(first, quantizer, DATA[0], calibrate(first, DATA[0], lambda: DATA))
    folded = network()
    from raydistill.compression.deployment import folding

    folding(folded, DATA[0])[0].apply(folded)
    post_train(second, quantizer, DATA[0], calibrate(folded, DATA[0], lambda: DATA))
    assert torch.allclose(first(*DATA[1]), second(*DATA[1]), atol=1e-4)


@pytest.mark.slow
def test_the_plan_and_the_buffers_make_it_again() -> None:
    model = network()
    report = post_train(model, PostTrainLinearQuantizer("q"), DATA[0], calibrate(model, DATA[0], lambda: DATA))
    again = network()
    report.folded.apply(again)
    Plan.from_state(report.plan.to_state()).carry_out(again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(*DATA[1]), model(*DATA[1]))


@pytest.mark.slow
def test_the_quantizer_may_name_a_file_or_hold_its_content(tmp_path: Path) -> None:
    known = calibrate(network(), DATA[0], lambda: DATA)
    write_statistics(tmp_path / "s.yaml", known)
    outputs = []
    for said in (str(tmp_path / "s.yaml"), {name: as_mapping(records) for name, records in known.items()}):
        model = network()
        post_train(model, PostTrainLinearQuantizer("q", model_activation_stats=said), DATA[0])
        outputs.append(model(*DATA[1]))
    assert torch.equal(*outputs)
    assert statistics_named(PostTrainLinearQuantizer("q")) is None
    with pytest.raises(ConfigError, match="no such file"):
        statistics_named(PostTrainLinearQuantizer("q", model_activation_stats=str(tmp_path / "t.yaml")))


def test_without_statistics_ranges_follow_the_data() -> None:
    model = network()
    before = model(DATA[0][0] * 100).detach()
    report = post_train(model, PostTrainLinearQuantizer("q", per_channel_wts=True), (DATA[0][0] / 100,))
    assert report.statistics is None
    after = model(DATA[0][0] * 100)
    assert float((after - before).norm() / before.norm()) < 0.03


@pytest.mark.slow
def test_histograms_are_counted_where_the_quantizer_wants_them() -> None:
    model = network()
    assert calibrate(model, DATA[0], lambda: DATA)["5"].output.histogram is None
    known = calibrate(model, DATA[0], lambda: DATA, PostTrainLinearQuantizer("q", clip_acts="MSE"))
    assert known["5"].output.histogram is not None
    assert calibrate(model, DATA[0], lambda: DATA, PostTrainLinearQuantizer("q"))["5"].output.std == 0.0
    assert calibrate(model, DATA[0], lambda: DATA, PostTrainLinearQuantizer("q", clip_acts="GAUSS"))["5"].output.std > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{}, {"per_channel_wts": True, "mode": "ASYMMETRIC_UNSIGNED", "scale_approx_mult_bits": 12}, {"fp16": True}],
)
@pytest.mark.parametrize("static", [True, False])
def test_a_network_whose_numbers_are_settled_gives_what_it_gave(arguments: dict[str, Any], static: bool) -> None:
    model = network()
    known = calibrate(model, DATA[0], lambda: DATA) if static else None
    post_train(model, PostTrainLinearQuantizer("q", **arguments), DATA[0], known)
    with torch.no_grad():
        before = model(*DATA[1])
        assert freeze(model)
        assert torch.allclose(model(*DATA[1]), before, atol=1e-5)


@pytest.mark.slow
def test_pruned_weights_stay_zero_and_fewer_bits_are_further_away() -> None:
    off = []
    for bits in (8, 4, 2):
        model = network()
        weight = model[5].weight
        weight.data[:, ::2] = 0.0
        before = model(*DATA[0]).detach()
        report = post_train(model, PostTrainLinearQuantizer("q", bits_parameters=bits), DATA[0], None)
        rounded = report.quantization.weight("5.weight")(weight)
        assert int((rounded[:, ::2] != 0).sum()) == 0
        off.append(float((model(*DATA[0]) - before).norm()))
    assert off == sorted(off)


@pytest.mark.slow
def test_copies_of_a_quantized_network_compute_the_same() -> None:
    model = network()
    post_train(model, PostTrainLinearQuantizer("q"), DATA[0], calibrate(model, DATA[0], lambda: DATA))
    assert torch.equal(copy_of(model)(*DATA[1]), model(*DATA[1]))


def test_moved_keeps_what_is_known_of_a_layer_whose_norm_was_folded_before() -> None:
    known: dict[str, LayerRecords] = calibrate(network(), DATA[0], lambda: DATA)
    without = {name: records for name, records in known.items() if name != "0.1"}
    assert moved(without, {"0.0": "0.1"}) == without
