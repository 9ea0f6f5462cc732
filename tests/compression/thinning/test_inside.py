"""Blocks of one class are cut together; where that fails those of one name, then each by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.inside import thin_inside
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.attentions import Apart, Fixed
from tests.compression.thinning.conftest import relative

pytestmark = pytest.mark.slow


class Two(nn.Module):
    """One class, two blocks; the second may be told to need all of its heads."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.last = first, second, nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return self.last(x + self.second(x))


class Whole(Apart):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if not self.whole or self.heads == 4 else x


def test_one_of_two_blocks_goes_where_the_other_cannot() -> None:
    torch.manual_seed(0)
    model = Two(Whole(False), Whole(True)).eval()
    with torch.no_grad():
        for block in (model.first, model.second):
            block.out.weight[:, :4] = 0
    taken = thin_inside(model, torch.randn(2, 5, 16), ("channels", "filters"))
    assert [part.block for part in taken.parts] == ["first"]
    assert set(taken.reasons) == {f"second.{layer}" for layer in ("q", "k", "v", "out")}


def test_blocks_may_lose_different_numbers_of_heads() -> None:
    torch.manual_seed(0)
    model = Two(Apart(), Apart()).eval()
    with torch.no_grad():
        model.first.out.weight[:, :4] = 0
        model.second.out.weight[:, 4:12] = 0
    x = torch.randn(2, 5, 16)
    expected = model(x).detach()
    thin(model, None, x)
    assert (model.first.heads, model.second.heads) == (3, 2)
    assert relative(expected, model(x).detach()) < 1e-5


def test_nothing_is_tried_where_nothing_is_dead() -> None:
    taken = thin_inside(Two(Apart(), Fixed()).eval(), torch.randn(2, 5, 16), ("channels", "filters"))
    assert not taken.leaving
    assert not taken.reasons
    assert set(taken.read) == {"first.out", "second.out"}


def test_a_decoder_of_the_menu() -> None:
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 2, 4, 0.0, 16).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight[:, 8:24] = 0
            block.mlp.down.weight[:, :100] = 0
    tokens = torch.randint(0, 50, (2, 9))
    expected = model(tokens).detach()
    report = thin(model, None, tokens)
    assert model.blocks[1].attention.q.weight.shape == (16, 32)
    assert model.blocks[1].mlp.up.weight.shape == (28, 32)
    assert relative(expected, model(tokens).detach()) < 1e-5
    assert "2 of 4 heads removed" in str(report)


IDS = torch.arange(18).view(2, 9) + 3


def hugging_face() -> dict[str, Callable[[Any], tuple[nn.Module, Any, int]]]:
    """By kind of network: the network, an example, and how many attentions it has."""
    small = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99,
        "max_position_embeddings": 64,
    }  # fmt: skip
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    image = torch.randn(2, 3, 32, 32)

    def vit(t: Any) -> tuple[nn.Module, Any, int]:
        config = t.ViTConfig(**{**small, "image_size": 32, "patch_size": 8})
        return t.ViTForImageClassification(config), image, 2

    def gpt2(t: Any) -> tuple[nn.Module, Any, int]:
        config = t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=64, **ends)
        return t.GPT2LMHeadModel(config), {"input_ids": IDS}, 2

    def t5(t: Any) -> tuple[nn.Module, Any, int]:
        config = t.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=99)
        return t.T5ForConditionalGeneration(config), {"input_ids": IDS, "decoder_input_ids": IDS}, 6

    def whisper(t: Any) -> tuple[nn.Module, Any, int]:
        config = t.WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=99, num_mel_bins=8, max_source_positions=16,
            max_target_positions=32, decoder_start_token_id=1, **ends,
        )  # fmt: skip
        example = {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": IDS}
        return t.WhisperForConditionalGeneration(config), example, 6

    def swin(t: Any) -> tuple[nn.Module, Any, int]:
        config = t.SwinConfig(image_size=32, patch_size=2, embed_dim=32, depths=[2, 2], num_heads=[4, 4], window_size=4)
        return t.SwinForImageClassification(config), image, 4

    return {
        "bert": lambda t: (t.BertForSequenceClassification(t.BertConfig(**small)), {"input_ids": IDS}, 2),
        "gpt2": gpt2,
        "llama": lambda t: (
            t.LlamaForCausalLM(t.LlamaConfig(**small, num_key_value_heads=2)), {"input_ids": IDS}, 2
        ),
        "phi3": lambda t: (
            t.Phi3ForCausalLM(t.Phi3Config(**small, **ends, num_key_value_heads=2)), {"input_ids": IDS}, 2
        ),
        "vit": vit,
        "swin": swin,
        "t5": t5,
        "whisper": whisper,
    }  # fmt: skip


@pytest.mark.parametrize("kind", hugging_face())
def test_networks_of_transformers(kind: str) -> None:
    """Half of each attention's heads and of each hidden layer that is coupled with nothing else."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model, example, attentions = hugging_face()[kind](transformers)
    model.eval()
    mixers = [
        module
        for name, module in model.named_modules()
        if name.endswith(("attention.output.dense", "attn.c_proj", "o_proj", ".o", "out_proj"))
    ]
    assert len(mixers) == attentions
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        for mixer in mixers:
            columns = mixer.weight.T if "Conv1D" not in type(mixer).__name__ else mixer.weight
            columns[: len(columns) // 2] = 0
        expected = _first(model, example)
    report = thin(model, None, example)
    with torch.no_grad():
        assert relative(expected, _first(model, example)) < 1e-5
    assert sum("2 of 4 heads removed" in line for line in report.inside) == attentions, str(report)
    again, _, _ = hugging_face()[kind](transformers)
    replay(again, structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert relative(expected, _first(again.eval(), example)) < 1e-5


@pytest.mark.parametrize("shared", [4, 2, 1])
def test_what_lies_in_one_layer_goes_from_all_of_its_parts(shared: int) -> None:
    """Phi-3: queries, keys and values of different sizes; a gate and what it gates."""
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = t.Phi3Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=shared, intermediate_size=20,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    model, example = t.Phi3ForCausalLM(config).eval(), {"input_ids": IDS}
    each = 8 // shared  # heads that go together
    with torch.no_grad():
        for block in model.model.layers:
            if shared > 1:
                block.self_attn.o_proj.weight[:, 4 * each : 8 * each] = 0  # the second group
            block.mlp.gate_up_proj.weight[[3, 23]] = 0
        expected = _first(model, example)
        report = thin(model, None, example)
        assert relative(expected, _first(model, example)) < 1e-5
    for block in model.model.layers:
        heads, groups = (8 - each, shared - 1) if shared > 1 else (8, 1)
        assert block.self_attn.qkv_proj.weight.shape == (4 * (heads + 2 * groups), 32)
        assert block.self_attn.o_proj.weight.shape == (32, 4 * heads)
        assert block.mlp.gate_up_proj.weight.shape == (38, 32)
        assert block.mlp.down_proj.weight.shape == (32, 19)
        assert (block.self_attn.config is model.config) == (shared == 1)
    assert model.config.num_attention_heads == 8
    again = replay(t.Phi3ForCausalLM(config).eval(), structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(_first(again, example), _first(model, example))


def _first(model: nn.Module, example: Any) -> Tensor:
    return (model(**example) if isinstance(example, dict) else model(example)).logits


def test_heads_go_only_where_all_that_writes_them_is_named() -> None:
    torch.manual_seed(0)
    model = Two(Apart(), Apart()).eval()
    with torch.no_grad():
        for block in (model.first, model.second):
            block.out.weight[:, :4] = 0
    x = torch.randn(2, 5, 16)
    named = [f"first.{layer}.weight" for layer in ("q", "k", "v")]
    thin(model, None, x, weights=[*named, "second.q.weight"])
    assert (model.first.heads, model.second.heads) == (3, 4)
