"""Each attention of a T5 or MT5 may lose heads of its own, though one table of position biases serves all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import ThinningReport, thin
from tests.compression.thinning.conftest import relative

IDS = torch.arange(18).view(2, 9) + 3
EXAMPLE = {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}
pytestmark = pytest.mark.slow
FAMILIES = pytest.mark.parametrize("family", ["T5", "MT5"])


def made(family: str) -> nn.Module:
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    config = getattr(t, f"{family}Config")(**sizes, decoder_start_token_id=0)
    model: nn.Module = getattr(t, f"{family}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model


@torch.no_grad()
def without(model: nn.Module, heads: Sequence[int]) -> tuple[Tensor, ThinningReport]:
    """Thinned where each attention has lost one of these heads, in turn; what the masked one gives."""
    mixers = [module for name, module in model.named_modules() if name.endswith(".o")]
    for index, mixer in enumerate(mixers):
        head = heads[index % len(heads)]
        mixer.weight[:, 8 * head : 8 * head + 8] = 0
    expected = model(**EXAMPLE).logits
    report = thin(model, None, EXAMPLE)
    assert len(report.inside) == len(mixers) == 6
    assert relative(expected, model(**EXAMPLE).logits) < 1e-5
    return expected, report


def tables(model: nn.Module) -> list[int]:
    return [p.shape[1] for name, p in model.named_parameters() if "relative_attention_bias" in name]


@FAMILIES
def test_the_same_head_everywhere_takes_its_column_of_the_table_along(family: str) -> None:
    model = made(family)
    without(model, [1])
    assert tables(model) == [3, 3]


@FAMILIES
def test_heads_of_its_own_leave_the_table_whole_and_can_be_built_anew(family: str) -> None:
    model = made(family)
    expected, report = without(model, [0, 1, 2, 3])
    assert tables(model) == [4, 4]
    assert {module.n_heads for module in model.modules() if hasattr(module, "n_heads")} == {3}
    again = made(family)
    replay(again, structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert relative(expected, again(**EXAMPLE).logits) < 1e-5
    assert torch.equal(again.generate(IDS, max_new_tokens=5), model.generate(IDS, max_new_tokens=5))
    expected, _ = without(model, [0, 1, 2])  # of those that are left
    kept = [module.kept.tolist() for name, module in model.named_modules() if name.endswith("SelfAttention")]
    assert kept == [[2, 3], [0, 3], [0, 1], [1, 3]]


@FAMILIES
def test_cross_attention_alone_and_narrower_heads(family: str) -> None:
    model = made(family)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("EncDecAttention"):
                module.o.weight[:, :8] = 0
            elif name.endswith("SelfAttention"):
                for layer in (module.q, module.k, module.v):
                    layer.weight.view(4, 8, 32)[:, :2] = 0
        expected = model(**EXAMPLE).logits
        thin(model, None, EXAMPLE)
        assert relative(expected, model(**EXAMPLE).logits) < 1e-5
    decoder = model.decoder.block[1]
    assert (decoder.layer[0].SelfAttention.q.out_features, decoder.layer[1].EncDecAttention.n_heads) == (24, 3)
