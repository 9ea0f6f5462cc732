"""SimpleNet against the same network written with functions, and against the article's count of weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from raydistill.models import create


def by_functions(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    x = F.max_pool2d(F.conv2d(images, weights["conv1.weight"], weights["conv1.bias"]).clamp(min=0), 2)
    x = F.max_pool2d(F.conv2d(x, weights["conv2.weight"], weights["conv2.bias"]).clamp(min=0), 2).reshape(-1, 400)
    x = (x @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp(min=0)
    x = (x @ weights["fc2.weight"].T + weights["fc2.bias"]).clamp(min=0)
    return x @ weights["fc3.weight"].T + weights["fc3.bias"]


def test_shapes_and_the_61770_weights_of_the_article() -> None:
    model = create("simplenet_cifar", 10)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() > 1}
    assert shapes == {
        "conv1.weight": (6, 3, 5, 5),
        "conv2.weight": (16, 6, 5, 5),
        "fc1.weight": (120, 400),
        "fc2.weight": (84, 120),
        "fc3.weight": (10, 84),
    }
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == 61_770


def test_it_computes_what_the_functions_compute_in_both_memory_formats() -> None:
    torch.manual_seed(1)
    model = create("simplenet_cifar", 10)
    images = torch.randn(4, 3, 32, 32)
    expected = by_functions(dict(model.named_parameters()), images)
    assert torch.allclose(model(images), expected, atol=1e-5)
    last = model.to(memory_format=torch.channels_last)
    assert torch.allclose(last(images.to(memory_format=torch.channels_last)), expected, atol=1e-5)


@pytest.mark.slow
def test_export_traces_it_for_any_batch() -> None:
    model = create("simplenet_cifar", 10).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes={"images": {0: batch}})
    images = torch.randn(5, 3, 32, 32)
    assert torch.allclose(program.module()(images), model(images), atol=1e-5)
