"""What the tests of thinning share: unsettling a fresh model, zeroing parts of it, and comparing outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime


def unsettled(model: nn.Module) -> nn.Module:
    """The model in eval mode, its batch norms and biases as training could have left them: none zero, none one."""

    def normal(tensor: Tensor, mean: float, deviation: float) -> None:
        tensor.data.copy_(mean + deviation * torch.randn(tensor.shape))

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None:
                normal(module.running_mean, 0.0, 0.3)
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape))
            if module.weight is not None:
                normal(module.weight, 1.0, 0.3)
        if isinstance(getattr(module, "bias", None), Tensor):
            normal(module.bias, 0.1, 0.5)
    return model.eval()


def zeroed(
    model: nn.Module,
    filters: Mapping[str, Sequence[int]] | None = None,
    channels: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Masks that prune these rows and columns of these layers' weights, applied to the model."""
    masks: dict[str, Tensor] = {}
    for which, dim in ((filters or {}, 0), (channels or {}, 1)):
        for layer, positions in which.items():
            weight = model.get_submodule(layer).weight
            mask = masks.setdefault(f"{layer}.weight", torch.ones_like(weight.data))
            mask.index_fill_(dim, torch.tensor(list(positions)), 0)
            weight.data.mul_(mask)
    return masks


@torch.no_grad()
def relative(expected: Tensor, found: Tensor) -> float:
    """The largest difference, relative to the largest value expected."""
    assert expected.shape == found.shape
    return float((expected - found).abs().max() / expected.abs().max())


def masked_at_its_end(model: nn.Module, pruner: CoupledPruner, example: Tensor) -> MaskSet:
    """The masks of the last of its epochs, applied to the model."""
    pruner.bind(model, (example,))
    masks = MaskSet(model)
    weights = {name: model.get_parameter(name).data for name in pruner.weights}
    for name, mask in pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1))).items():
        masks.set(name, mask)
    masks.apply()
    return masks
