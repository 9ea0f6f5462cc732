"""DoReFa, WRPN, PACT: what they round (their figures are tested in `test_aware`)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers import MENU, DorefaQuantizer, PACTQuantizer, WRPNQuantizer
from raydistill.errors import ConfigError

EXAMPLE = (torch.ones(1, 3),)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU6(), nn.Tanh(), nn.Hardtanh())


@pytest.mark.parametrize(
    ("kind", "weights", "activations"),
    [
        (DorefaQuantizer, "dorefa", "clipped"),
        (WRPNQuantizer, "wrpn", "clipped"),
        (PACTQuantizer, "dorefa", "learned_clip"),
    ],
)
def test_weights_and_what_relus_give(kind: type, weights: str, activations: str) -> None:
    plan = kind("q", 4, 3).plan(network(), EXAMPLE)
    assert {name: said.kind for name, said in plan.weights.items()} == {"0.weight": weights, "2.weight": weights}
    assert [(point.name, said.kind) for point, said in plan.activations] == [("1", activations), ("3", activations)]


def test_pacts_clips_have_a_weight_decay_of_their_own() -> None:
    assert PACTQuantizer("q", 4, 4, act_clip_decay=0.01).optimizer_settings() == {"weight_decay": 0.01}
    assert PACTQuantizer("q", 4, 4).optimizer_settings() == {}
    plan = PACTQuantizer("q", 4, 4, act_clip_init_val=3.0).plan(network(), EXAMPLE)
    held = plan.carry_out(network())
    assert [parameter.item() for parameter in held.learned()] == [3.0, 3.0]


def test_bits_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="from 2 to 32"):
        WRPNQuantizer("q", bits_weights=1)
    with pytest.raises(ConfigError, match="act_clip_init_val"):
        PACTQuantizer("q", act_clip_init_val=0.0)
    with pytest.raises(ConfigError, match="act_clip_decay"):
        PACTQuantizer("q", act_clip_decay=-1.0)
    assert set(MENU) >= {"DorefaQuantizer", "WRPNQuantizer", "PACTQuantizer"}
