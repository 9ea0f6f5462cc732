"""MT5's attention is T5's, of another class."""

from __future__ import annotations

import pytest

from tests.compression.layer_kinds.test_t5 import made, tables, without

pytestmark = pytest.mark.slow


def test_an_attention_that_loses_heads_is_still_one_of_mt5() -> None:
    from transformers.models.mt5.modeling_mt5 import MT5Attention

    from raydistill.compression.layer_kinds.mt5 import OwnBiasAttention

    model = made("MT5")
    before = {name for name, module in model.named_modules() if type(module) is MT5Attention}
    without(model, [0, 1, 2, 3])
    assert tables(model) == [4, 4]
    assert {name for name, module in model.named_modules() if type(module) is OwnBiasAttention} == before
    assert issubclass(OwnBiasAttention, MT5Attention)
