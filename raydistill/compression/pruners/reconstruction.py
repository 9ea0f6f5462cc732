"""Channel pruning by feature-map reconstruction (He et al. 2017, arXiv 1707.06168; AMC, arXiv 1802.03494)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raydistill.compression import rankings
from raydistill.compression.granularity import CHANNELS
from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.pruners.arguments import checked_level, checked_weights
from raydistill.compression.pruners.base import ComposedPruner, Moment, Network
from raydistill.compression.rates import constant
from raydistill.errors import ConfigError, Fault


class FMReconstructionChannelPruner(ComposedPruner):
    """Prunes input channels by L1 norm; the weights that stay are fitted to give the layer's former outputs.

    The fit is least squares on (input patch, output) pairs sampled at random points of the feature maps in the first
    minibatches of the policy's epoch. group_type: Channels. points: sampled per image and minibatch.
    """

    def __init__(
        self, name: str, group_type: str, desired_sparsity: float, weights: list[str], points: int = 10
    ) -> None:
        if group_type != "Channels":
            raise ConfigError(Fault("group_type", "must be Channels", group_type))
        if isinstance(points, bool) or not isinstance(points, int) or points < 1:
            raise ConfigError(Fault("points", "must be a whole number from 1 up", points))
        rate = constant(checked_level("desired_sparsity", desired_sparsity))
        super().__init__(name, dict.fromkeys(checked_weights("weights", weights), rate), rankings.L1, CHANNELS)
        self.evidence = "feature_maps"
        self.points = points

    def after_masks(self, network: Network, masks: Mapping[str, Tensor], moment: Moment) -> None:
        fitted = {}
        for name, mask in masks.items():
            weight = network.masks.parameter(name).detach()
            keep = mask.transpose(0, 1).flatten(1).amax(dim=1)
            fitted[name] = reconstructed(weight, keep, moment.evidence[f"{name}:x"], moment.evidence[f"{name}:y"])
        for name, value in network.masks.ranks.tensors_of_first(fitted).items():
            network.masks.parameter(name).copy_(value)


def sample_points(module: nn.Module, inputs: Tensor, outputs: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Random (input patch, output) pairs of one forward pass: (samples, in * kernel), (samples, out); the layer's bias
    is taken off the outputs. Positions are uniform, from torch's global CPU generator."""
    kind = kind_of(module)
    found = kind.samples(module, inputs, outputs, points)
    if found is None:
        raise ConfigError(
            Fault("FMReconstructionChannelPruner", "needs Linear or ungrouped Conv2d", type(module).__name__)
        )
    x, y = found
    bias = kind.bias_of(module)
    y = y if bias is None else y - bias.detach()
    return x.detach().float(), y.detach().float()


def reconstructed(weight: Tensor, keep: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The weight, zero outside the kept channels, that best gives y from x (least squares).

    weight: (out, in, ...). keep: (in,), 1 keeps. x: (samples, in * kernel). y: (samples, out).
    """
    kernel = weight[0, 0].numel()
    columns = keep.bool().repeat_interleave(kernel)
    # gelsd minds neither fewer samples than unknowns nor channels that were always zero; CPU only
    fitted = torch.linalg.lstsq(x[:, columns].double().cpu(), y.double().cpu(), driver="gelsd").solution
    flat = torch.zeros(weight.shape[0], columns.numel(), dtype=weight.dtype, device=weight.device)
    flat[:, columns] = fitted.T.to(weight)
    return flat.reshape(weight.shape)
