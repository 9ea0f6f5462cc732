"""Whole blocks go by their influence, and the deployed network is the one without them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.deployment import deploy
from raydistill.compression.pruners import BlockPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError
from raydistill.models.decoder_lm import DecoderLM
from raydistill.schedule import parse_schedule
from tests.compression.thinning.conftest import relative
from tests.compression.thinning.test_depth import Block, Net

LAST = PolicyTime(0, 0, 1, 1)
TOKENS = torch.arange(36).view(4, 9)


def scheduled(model: nn.Module, example: Tensor, **arguments: Any) -> Any:
    spec = parse_schedule(
        {
            "pruners": {"depth": {"class": "BlockPruner", **arguments}},
            "policies": [{"pruner": {"instance_name": "depth", "args": {"evidence_minibatches": 2}}, "epochs": [0]}],
        },
        "s.yaml",
    )
    return build(spec, model, torch.optim.SGD(model.parameters(), lr=0.0), (example,))


def epoch(scheduler: Any, model: nn.Module, batches: list[Tensor]) -> None:
    """An epoch in which nothing is learned."""
    scheduler.on_epoch_begin(0)
    for index, batch in enumerate(batches):
        scheduler.on_minibatch_begin(0, index, len(batches))
        model(batch).square().mean().backward()
        scheduler.before_parameter_optimization(0, index, len(batches))
        scheduler.on_minibatch_end(0, index, len(batches))
    scheduler.on_epoch_end(0)


def decoder() -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 4, 4, 0.0, 16)
    with torch.no_grad():  # blocks that do more and less
        for block, much in zip(model.blocks, (4.0, 0.5, 2.0, 0.1), strict=True):
            for name, parameter in block.named_parameters():
                if parameter.dim() > 1 and ("out" in name or "down" in name):
                    parameter.mul_(much)
    return model


@pytest.mark.slow
def test_those_of_least_influence_go_and_the_others_stay_as_they_are() -> None:
    model = decoder()
    states: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def hear(own: str, _: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        states.setdefault(own, []).append((given[0], found))

    handles = [block.register_forward_hook(partial(hear, own)) for own, block in model.blocks.named_children()]
    with torch.no_grad():
        for batch in (TOKENS, TOKENS + 7):
            model(batch)
    for handle in handles:
        handle.remove()
    influence = {}
    for own, seen in states.items():
        given, found = (torch.cat([pair[place].flatten(0, 1) for pair in seen]).double() for place in (0, 1))
        influence[own] = 1.0 - float(((given * found).sum(1) / (given.norm(dim=1) * found.norm(dim=1))).mean())
    scheduler = scheduled(model, TOKENS, final_sparsity=0.5)
    policy = scheduler.scheduled[0].policy
    scheduler.on_epoch_begin(0)
    for index, batch in enumerate((TOKENS, TOKENS + 7)):
        scheduler.on_minibatch_begin(0, index, 3)
        model(batch)
        scheduler.before_parameter_optimization(0, index, 3)
        scheduler.on_minibatch_end(0, index, 3)
    found = {name.rpartition(".")[2]: float(value) for name, value in policy._evidence.result().items()}
    assert found == pytest.approx(influence, rel=1e-6)
    scheduler.on_minibatch_begin(0, 2, 3)
    gone = {own for own, block in model.blocks.named_children() if not any(bool(p.any()) for p in block.parameters())}
    assert gone == set(sorted(influence, key=influence.__getitem__)[:2]) == {"1", "3"}
    assert all(bool(p.all()) for name, p in model.named_parameters() if name.startswith("blocks.0") and p.dim() > 1)


@pytest.mark.slow
def test_deployed_they_are_gone_and_the_outputs_stay() -> None:
    model = decoder()
    before = sum(p.numel() for p in model.parameters())
    own = sum(p.numel() for p in model.blocks[1].parameters())
    epoch(scheduled(model, TOKENS, final_sparsity=0.5), model, [TOKENS, TOKENS + 7, TOKENS + 1])
    expected = model.eval()(TOKENS).detach()
    done = deploy(model, (TOKENS,))
    assert relative(expected, model(TOKENS).detach()) < 1e-5
    assert before - sum(p.numel() for p in model.parameters()) == 2 * own
    assert any("2 blocks gone that did nothing: blocks.1, blocks.3" in line for line in done.lines)


@pytest.mark.slow
def test_by_magnitude_and_of_named_blocks_only() -> None:
    model = Net(Block(), Block(), Block(), Block()).eval()
    with torch.no_grad():
        for index, much in enumerate((0.1, 3.0, 0.2, 2.0)):
            for linear in (model.blocks[index].mlp[0], model.blocks[index].mlp[2]):
                linear.weight.fill_(much)
    x = torch.randn(2, 5, 6)
    for blocks, expected in ((None, [0, 2]), (["blocks.[123]"], [2]), ([r"re:blocks\.[13]"], [3])):
        pruner = BlockPruner("p", 0.5, blocks=blocks, ranking="magnitude")
        pruner.bind(model, (x,))
        weights = {name: model.get_parameter(name).detach() for name in pruner.weights}
        masks = pruner.masks(weights, Moment(LAST))
        gone = sorted({int(name.split(".")[1]) for name, mask in masks.items() if not mask.any()})
        assert gone == expected
    assert scheduled(model, x, final_sparsity=0.9, ranking="random").scheduled[0].policy.weights


def test_what_is_gone_goes_first_and_one_block_always_stays() -> None:
    model = Net(Block(), Block(), Block()).eval()
    with torch.no_grad():
        for parameter in model.blocks[2].parameters():
            parameter.zero_()
    pruner = BlockPruner("p", 0.4)
    pruner.bind(model, (torch.randn(2, 5, 6),))
    weights = {name: model.get_parameter(name).detach() for name in pruner.weights}
    evidence = {"blocks.0": torch.tensor(0.1), "blocks.1": torch.tensor(0.2), "blocks.2": torch.tensor(0.9)}
    masks = pruner.masks(weights, Moment(LAST, {}, evidence))
    assert {name.split(".")[1] for name, mask in masks.items() if not mask.any()} == {"2"}
    pruner = BlockPruner("p", 0.99, blocks=["blocks.0", "blocks.1"])
    pruner.bind(model, (torch.randn(2, 5, 6),))
    masks = pruner.masks({name: weights[name] for name in pruner.weights}, Moment(LAST, {}, evidence))
    assert {name.split(".")[1] for name, mask in masks.items() if not mask.any()} == {"0"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"final_sparsity": 1.5}, r"final_sparsity: must be a fraction in \[0, 1\)"),
        (
            {"final_sparsity": 0.5, "ranking": "block_influenc"},
            "ranking: must be one of .* did you mean 'block_influence'",
        ),
        ({"final_sparsity": 0.5, "blocks": ["block.*"]}, "blocks.weights: no weight|no .* matches, got 'block.\\*'"),
        ({"final_sparsity": 0.5, "blocks": ["head", "blocks.0"]}, "blocks: is no residual block .*, got 'head'"),
        ({"final_sparsity": 0.5, "blocks": ["blocks.0"]}, "needs two or more blocks that can go"),
        ({"final_sparsity": 0.5, "blocks": ["blocks.1", "blocks.1.0"]}, "lies in blocks.1, which is named too"),
        ({"final_sparsity": 0.5, "rate": "square"}, "rate: .*cubic"),
    ],
)
def test_faults(arguments: dict[str, Any], says: str) -> None:
    model = Net(Block(), nn.Sequential(Block(), Block()))
    with pytest.raises(ConfigError, match=says):
        scheduled(model, torch.randn(2, 5, 6), **arguments)


def test_a_network_without_blocks_says_so() -> None:
    with pytest.raises(ConfigError, match="gives something else than its input"):
        scheduled(Net(Block("after"), Block("after")), torch.randn(2, 5, 6), final_sparsity=0.5)
    with pytest.raises(ConfigError, match="are found out on an example input"):
        BlockPruner("p", 0.5).bind(Net(Block()), None)
