"""Networks of timm, small and random: their widths and heads go, and nothing that they give changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.pruners import CoupledPruner
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from tests.compression.thinning.conftest import masked_at_its_end, relative

timm = pytest.importorskip("timm", reason="timm is not installed")
pytestmark = pytest.mark.slow

TRANSFORMER = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
ROTATED = {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "swiglu_mlp": True, "head_init_scale": 1.0}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "convnextv2": ("convnextv2_atto", {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20), "num_classes": 5}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20), "num_classes": 5}),
    "deit3": ("deit3_small_patch16_224", TRANSFORMER),
    "eva02": ("eva02_tiny_patch14_336", TRANSFORMER | ROTATED),
    "eva, layers apart": ("eva02_base_patch14_448", TRANSFORMER | ROTATED | {"qkv_fused": False, "scale_mlp": True}),
}


def made(kind: str) -> nn.Module:
    name, arguments = MADE[kind]
    return timm.create_model(name, pretrained=False, **arguments).eval()


@pytest.mark.parametrize(
    ("kind", "structures"),
    [*((kind, "Embedding") for kind in MADE), *((kind, "Heads") for kind in MADE if "conv" not in kind)],
)
def test_what_is_pruned_goes(kind: str, structures: str) -> None:
    torch.manual_seed(0)
    model, images = made(kind), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    masks = masked_at_its_end(model, CoupledPruner("half", 0.5, names, structures=structures), images)
    expected = model(images).detach()
    report = thin(model, masks, images)
    assert relative(expected, model(images).detach()) < 1e-5
    if structures == "Heads":
        assert sum("2 of 4 heads removed" in line for line in report.inside) == 2
    else:
        assert str(report).count("channels of a residual stream") == (4 if "conv" in kind else 1)
    fresh = replay(made(kind), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))
    fresh.train()(images).sum().backward()
