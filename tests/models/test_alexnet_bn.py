"""AlexNet with batch norm, by hand."""

from __future__ import annotations

import torch
from torch import nn

from tests.models.conftest import Meta


def test_alexnet_with_batch_norm_by_hand(meta: Meta) -> None:
    by_hand = {
        "features.0.weight": 96 * 3 * 12 * 12,
        "features.2.weight": 256 * 48 * 25,
        "features.6.weight": 384 * 256 * 9,
        "features.10.weight": 384 * 192 * 9,
        "features.13.weight": 256 * 192 * 9,
        "classifier.0.weight": 4096 * 9216,
        "classifier.3.weight": 4096 * 4096,
        "classifier.6.weight": 1000 * 4096,
    }
    model = meta("alexnet_bn")
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 1}
    assert sizes == by_hand
    biases = [name for name, m in model.named_modules() if getattr(m, "bias", None) is not None]
    assert [b for b in biases if not isinstance(model.get_submodule(b), (nn.BatchNorm1d, nn.BatchNorm2d))] == [
        "features.0",
        "classifier.6",
    ]
    sides = {}
    for i, layer in enumerate(model.features):
        layer.register_forward_hook(lambda m, x, y, i=i: sides.update({i: y.shape[2]}))
    assert model(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert [sides[i] for i in (0, 4, 8, 16)] == [54, 27, 14, 6]
