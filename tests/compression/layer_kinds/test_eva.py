"""EVA's attention that has taken over gives what timm's own gives, as long as nothing is gone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

timm = pytest.importorskip("timm", reason="timm is not installed")
pytestmark = pytest.mark.slow

FORMS: dict[str, dict[str, Any]] = {
    "packed, biases beside": {},
    "packed, without biases": {"qkv_bias": False},
    "layers apart": {"qkv_fused": False},
    "gated, with norms": {"gated": True, "qk_norm": True, "scale_norm": True, "norm_layer": nn.LayerNorm},
    "half rotated": {"rotate_half": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", ["nothing", "rotations", "a mask"])
@torch.no_grad()
def test_it_gives_what_timms_gives(form: str, given: str) -> None:
    from timm.models.eva import EvaAttention

    from raydistill.compression.layer_kinds.eva import OwnWidthAttention

    torch.manual_seed(0)
    own = EvaAttention(16, 4, **{"scale_norm": False, **FORMS[form]}).eval()
    for parameter in own.parameters():
        parameter.normal_()
    taken = copy.deepcopy(own)
    OwnWidthAttention.take_over(taken, {})
    x = torch.randn(2, 7, 16)
    more: dict[str, Any] = {
        "nothing": {},
        "rotations": {"rope": torch.randn(6, 8)},
        "a mask": {"attn_mask": torch.rand(1, 1, 7, 7) > 0.3},
    }[given]
    torch.testing.assert_close(taken(x, **more), own(x, **more), rtol=1e-5, atol=1e-5)
    assert list(taken.state_dict()) == list(own.state_dict())
