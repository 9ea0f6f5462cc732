"""The decoder against its equations written out, and what it must not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.models import create
from tests.models.conftest import Meta

SMALL = {"width": 8, "depth": 2, "heads": 2, "dropout": 0.1, "context": 6}


def norm(states: Tensor, name: str, weights: dict[str, Tensor]) -> Tensor:
    off = states - states.mean(-1, keepdim=True)
    scaled = off / (off.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(states: Tensor, name: str, weights: dict[str, Tensor]) -> Tensor:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attended(states: Tensor, block: str, weights: dict[str, Tensor], heads: int) -> Tensor:
    """One token after the other, one head after the other."""
    q, k, v = (linear(states, f"{block}.attention.{part}", weights) for part in "qkv")
    size = states.shape[-1] // heads
    rows = []
    for place in range(len(states)):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = (k[: place + 1, own] @ q[place, own]) / math.sqrt(size)
            parts.append(scores.softmax(0) @ v[: place + 1, own])
        rows.append(torch.cat(parts))
    return linear(torch.stack(rows), f"{block}.attention.out", weights)


def test_it_is_attention_and_two_layers_added_to_a_stream() -> None:
    torch.manual_seed(1)
    model = create("decoder_lm", 11, SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    tokens = torch.randint(11, (5,))
    x = weights["encoder.weight"][tokens] + weights["positions.weight"][:5]
    for block in ("blocks.0", "blocks.1"):
        x = x + attended(norm(x, f"{block}.norm1", weights), block, weights, 2)
        up = linear(norm(x, f"{block}.norm2", weights), f"{block}.mlp.up", weights)
        x = x + linear(up * 0.5 * (1 + torch.erf(up / math.sqrt(2))), f"{block}.mlp.down", weights)
    expected = norm(x, "norm", weights) @ weights["decoder.weight"].T
    assert torch.allclose(model(tokens[None])[0], expected, atol=1e-4)


def test_nothing_behind_a_token_changes_what_is_said_of_it() -> None:
    torch.manual_seed(2)
    model = create("decoder_lm", 11, SMALL).eval()
    tokens = torch.randint(11, (3, 6))
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_its_names_and_counts(meta: Meta) -> None:
    shapes = meta.weights("decoder_lm")
    block = {f"blocks.3.{name}.weight": (128, 128) for name in ("attention.q", "attention.k", "attention.v")}
    assert block.items() <= shapes.items()
    assert shapes["blocks.3.mlp.up.weight"] == (512, 128)
    assert meta.count("decoder_lm") == 2 * 33_278 * 128 + 128 * 128 + 4 * 12 * 128 * 128


def test_what_writes_into_the_stream_begins_smaller_with_depth() -> None:
    torch.manual_seed(3)
    model = create("decoder_lm", 11, {"width": 64, "depth": 8})
    assert float(model.blocks[0].mlp.up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.blocks[0].mlp.down.weight.detach().std()) == pytest.approx(0.005, rel=0.05)
    assert float(model.blocks[0].attention.out.weight.detach().std()) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"heads": 3}, r"decoder_lm\(width\): must be a multiple of heads 3, got 128; such as 96"),
        ({"depth": 0}, r"decoder_lm\(depth\): must be a whole number from 1 up, got 0"),
        ({"context": 2.5}, r"decoder_lm\(context\): must be a whole number from 1 up, got 2.5"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(args: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create("decoder_lm", 11, args)
