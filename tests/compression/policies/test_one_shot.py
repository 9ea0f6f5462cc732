"""Pruning from calibration data by a schedule: who decides with whom, on what, and what stays in force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import CompressionScheduler, build, check, planned_sparsity
from raydistill.compression.masks import MaskSet
from raydistill.compression.one_shot import pruned_at_once
from raydistill.compression.policies.one_shot import prune
from raydistill.compression.pruners import SparseGPTPruner, WandaPruner
from raydistill.compression.pruners.owl import outlier_ratio, shifted
from raydistill.compression.pruners.sparse_gpt import sparse_gpt
from raydistill.compression.pruners.wanda import wanda_scores
from raydistill.errors import ConfigError
from raydistill.models import create
from raydistill.schedule import parse_schedule
from tests.compression.calibration.test_walk import read_by, tokens

MATRICES = "blocks.*.weight"


def decoder(depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return create("decoder_lm", 11, {"width": 8, "depth": depth, "heads": 2, "dropout": 0.3, "context": 6})


def built(model: nn.Module, pruners: dict[str, Any], data: Any = None, **policy: Any) -> CompressionScheduler:
    policies = [{"pruner": {"instance_name": name, **policy}, "epochs": [0]} for name in pruners]
    mapping = {"version": 1, "pruners": pruners, "policies": policies}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    calibration = None if data is None else lambda: data
    return build(parse_schedule(mapping, "s.yaml"), model, optimizer, calibration=calibration)


def zeros(model: nn.Module) -> dict[str, int]:
    named = model.named_parameters()
    return {name: int((weight == 0).sum()) for name, weight in named if weight.dim() > 1 and name.startswith("blocks")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WandaPruner", "SparseGPTPruner"])
def test_at_its_epoch_every_level_is_met_and_training_keeps_the_zeros(kind: str) -> None:
    model, data = decoder(), tokens(4)
    levels = {"blocks.0.mlp.*.weight": 0.75, MATRICES: 0.5}
    scheduler = built(model, {"p": {"class": kind, "levels": levels}}, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert sum(zeros(model).values()) == 0
    scheduler.on_epoch_begin(0)
    for name, count in zeros(model).items():
        assert count == model.get_parameter(name).numel() * (0.75 if name.startswith("blocks.0.mlp") else 0.5)
    before = {name: model.get_parameter(name) == 0 for name in zeros(model)}
    for index in range(3):
        scheduler.on_minibatch_begin(0, index, 3)
        loss = nn.functional.cross_entropy(model(data[0][0]).flatten(0, 1), data[0][0].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.on_minibatch_end(0, index, 3)
    assert all(bool((model.get_parameter(name)[gone] == 0).all()) for name, gone in before.items())
    assert planned_sparsity_of(levels, kind)["blocks.0.mlp.up.weight"] == 0.75


def planned_sparsity_of(levels: dict[str, float], kind: str) -> dict[str, float]:
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    spec = parse_schedule({"pruners": {"p": {"class": kind, "levels": levels}}, "policies": policies}, "s.yaml")
    return planned_sparsity(spec, decoder())[1]


@pytest.mark.slow
def test_policies_of_one_epoch_decide_in_the_order_of_the_pass() -> None:
    """The last layer stands first in the schedule, in a pruner of its own, as a search over layers writes it."""
    names = [name for name, weight in decoder().named_parameters() if weight.dim() > 1 and name.startswith("blocks")]
    one, apart = decoder(), decoder()
    built(one, {"p": {"class": "SparseGPTPruner", "levels": {MATRICES: 0.5}}}, tokens(3)).on_epoch_begin(0)
    each = {f"p/{name}": {"class": "SparseGPTPruner", "levels": {name: 0.5}} for name in reversed(names)}
    built(apart, each, tokens(3)).on_epoch_begin(0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), apart.parameters(), strict=True))


@pytest.mark.slow
def test_each_layer_is_pruned_by_what_it_reads_of_those_pruned_before() -> None:
    model, by_hand, data = decoder(), decoder(), tokens(3)
    built(model, {"p": {"class": "SparseGPTPruner", "levels": {MATRICES: 0.5}}}, data).on_epoch_begin(0)
    order = [f"blocks.{i}.{part}" for i in (0, 1) for part in
             ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.up", "mlp.down")]  # fmt: skip
    for layer in order:
        weight = by_hand.get_parameter(f"{layer}.weight")
        count = weight.numel() // 2
        _, values = sparse_gpt(weight, read_by(by_hand, layer, data), count)
        with torch.no_grad():
            weight.copy_(values)
        torch.testing.assert_close(model.get_parameter(f"{layer}.weight"), weight, atol=1e-4, rtol=1e-3)


def test_only_so_many_batches_are_looked_at() -> None:
    asked: list[int] = []

    def data() -> Any:
        for index, batch in enumerate(tokens(9)):
            asked.append(index)
            yield batch

    model = decoder(1)
    pruner = {"class": "WandaPruner", "levels": {MATRICES: 0.5}}
    mapping = {
        "pruners": {"p": pruner},
        "policies": [{"pruner": {"instance_name": "p", "args": {"evidence_minibatches": 3}}, "epochs": [0]}],
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    build(parse_schedule(mapping, "s.yaml"), model, optimizer, calibration=data).on_epoch_begin(0)
    assert max(asked) == 2


def test_without_data_it_says_so_and_what_other_controls_are_for() -> None:
    pruner = {"class": "WandaPruner", "levels": {MATRICES: 0.5}}
    with pytest.raises(ConfigError, match=r"p: WandaPruner needs calibration data; give them: build\("):
        built(decoder(), {"p": pruner}).on_epoch_begin(0)
    with pytest.raises(ConfigError) as raised:
        built(decoder(), {"p": pruner}, tokens(1), args={"mask_on_forward_only": True})
    assert "policies[0].pruner.args.mask_on_forward_only: is not for WandaPruner" in str(raised.value)


@pytest.mark.slow
def test_weights_that_nobody_multiplies_by_are_said_at_the_check_unless_their_level_is_zero() -> None:
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
    pruner: dict[str, Any] = {"class": "WandaPruner", "levels": {"*": 0.5}}
    with pytest.raises(ConfigError) as raised:
        check(parse_schedule({"pruners": {"p": pruner}, "policies": policies}, "s.yaml"), decoder())
    assert "encoder.weight: is of Embedding, of which is not known what it is multiplied by" in str(raised.value)
    pruner["levels"] = {"encoder.weight": 0, "positions.weight": 0, "*": 0.5}
    model = decoder()
    built(model, {"p": pruner}, tokens(2)).on_epoch_begin(0)
    assert int((model.get_parameter("decoder.weight") == 0).sum()) == 44
    assert int((model.get_parameter("encoder.weight") == 0).sum()) == 0


def test_what_was_pruned_before_stays_and_the_rest_is_put_on_top() -> None:
    model, data = decoder(1), tokens(3)
    masks = MaskSet(model)
    mask = torch.ones(32, 8)
    mask[:16] = 0.0
    masks.set("blocks.0.mlp.up.weight", mask)
    masks.apply()
    found = prune(model, masks, {"blocks.0.mlp.up.weight": SparseGPTPruner("p", {"x": 0.0}).with_levels(
        {"blocks.0.mlp.up.weight": 0.75})}, lambda: data)  # fmt: skip
    assert bool((found["blocks.0.mlp.up.weight"][:16] == 0).all())
    assert int((found["blocks.0.mlp.up.weight"] == 0).sum()) == 192
    assert int((model.get_parameter("blocks.0.mlp.up.weight") == 0).sum()) == 192


@pytest.mark.slow
def test_owl_spreads_levels_over_blocks_by_their_outliers() -> None:
    model, dense, data = decoder(3), decoder(3), tokens(4)
    for net in (model, dense):
        with torch.no_grad():
            net.blocks[1].mlp.up.weight[:, 0] *= 30.0  # type: ignore[index,union-attr]
    pruner = {"class": "WandaPruner", "levels": {MATRICES: 0.5}, "allocation": "owl", "spread": 0.1}
    scheduler = built(model, {"p": pruner}, data)
    scheduler.on_epoch_begin(0)
    names = list(zeros(dense))
    ratios = []
    for block in range(3):
        scores = []
        for name in (name for name in names if name.startswith(f"blocks.{block}.")):
            squares = read_by(dense, name.removesuffix(".weight"), data).diagonal().unsqueeze(0)
            scores.append(wanda_scores(dense.get_parameter(name), squares))
        ratios.append(outlier_ratio(scores, 5.0))
    levels = shifted([0.5] * 3, ratios, [1, 1, 1], 0.1)
    found = zeros(model)
    for name, count in found.items():
        level = levels[int(name.split(".")[1])]
        assert count == pytest.approx(level * model.get_parameter(name).numel(), abs=1)
    total = sum(model.get_parameter(name).numel() for name in names)
    assert sum(found.values()) == pytest.approx(0.5 * total, abs=len(names))
    assert max(levels) - min(levels) == pytest.approx(0.2)
    again = built(decoder(3), {"p": pruner}, data)
    again.load_state_dict(scheduler.state_dict())
    assert again.scheduled[0].policy.fractions(dict(model.named_parameters()), again.scheduled[0].when(0)) == {
        name: count / model.get_parameter(name).numel() for name, count in found.items()
    }


def test_what_a_schedule_comes_to_is_foreseen_without_data() -> None:
    pruner = {"class": "SparseGPTPruner", "weights": [MATRICES], "n": 2, "m": 4}
    mapping = {"pruners": {"p": pruner}, "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}]}
    found = pruned_at_once(parse_schedule(mapping, "s.yaml"), decoder())
    assert all(2 * count == found.get_parameter(name).numel() for name, count in zeros(found).items())


class Convolutions(nn.Module):
    """Grouped, depthwise and plain ones, a residual sum and a shared head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.grouped(torch.relu(self.depthwise(x)))
        return self.fc(x.mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WandaPruner, SparseGPTPruner])
def test_convolutions_are_pruned_and_sparse_gpt_keeps_more_of_the_output(kind: Any) -> None:
    torch.manual_seed(0)
    model = Convolutions().eval()
    data = [(nn.functional.avg_pool2d(torch.randn(8, 3, 10, 10), 3, 1),) for _ in range(4)]
    with torch.no_grad():
        expected = model(data[0][0])
    names = ["stem.weight", "depthwise.weight", "grouped.weight", "fc.weight"]
    magnitude = pruned_at_once(
        parse_schedule({"pruners": {"p": {"class": "WandaPruner", "levels": dict.fromkeys(names, 0.5)}},
                        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}]}, "s.yaml"), model)  # fmt: skip
    masks = prune(model, MaskSet(model), dict.fromkeys(names, kind("p", dict.fromkeys(names, 0.5))), lambda: data)
    for name in names:
        assert int((masks[name] == 0).sum()) == model.get_parameter(name).numel() // 2
    with torch.no_grad():
        errors = [float((net(data[0][0]) - expected).square().mean()) for net in (model, magnitude)]
    assert errors[0] < errors[1]


@pytest.mark.slow
def test_a_network_that_rounds_is_pruned_too_and_goes_on_rounding() -> None:
    torch.manual_seed(0)
    model = Convolutions()
    data = [(torch.randn(8, 3, 10, 10),) for _ in range(3)]
    mapping = {
        "pruners": {"p": {"class": "SparseGPTPruner", "levels": {"*.weight": 0.5}}},
        "quantizers": {"q": {"class": "QuantAwareTrainRangeLinearQuantizer", "bits_activations": 2, "bits_weights": 2}},
        "policies": [
            {"quantizer": {"instance_name": "q"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
            {"pruner": {"instance_name": "p"}, "epochs": [1]},
        ],
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, optimizer, data[0], calibration=lambda: data)
    scheduler.on_epoch_begin(0)
    model(*data[0])  # ranges are learned
    scheduler.on_epoch_begin(1)
    assert int((model.stem.weight == 0).sum()) == model.stem.weight.numel() // 2
    assert len(torch.overrides._get_current_function_mode_stack()) == 0, "passes that ended early left nothing behind"
    assert model.get_submodule("quantization").enabled
    assert len(model(*data[0]).unique()) < 32, "of 32 outputs some are on the same number"
