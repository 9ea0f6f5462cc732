"""torchvision's detectors with half of all filters zero, thinned: what goes, and whether the boxes stay.

    python benchmarks/detectors.py [--networks retinanet_resnet50_fpn ...] [--side 128]

Weights are random, so nothing is said of accuracy. Of every convolution and linear layer but those that give scores and
boxes a random half of the filters is zero; the network is deployed (batch norms folded, zeros removed, pieces that can
be followed each by themselves), then held against the masked one: how far the backbone's maps moved (`apart`), and how
many boxes of one image are the same. Latency of both side by side, one thread.
"""

from __future__ import annotations

import argparse
import time

import torch
from structures import milliseconds
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.deployment import deploy
from raydistill.compression.summaries import total_macs
from raydistill.models.detector import detector

NETWORKS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
)  # fmt: skip
_LAST = ("cls", "bbox", "mask_fcn_logits", "kps_score", "centerness", "predictor", "module_list")


def built(name: str, side: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {} if name.startswith("ssd") else {"min_size": side, "max_size": side}
    model = detector(5, name, **sizes).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    if hasattr(model, "score_thresh"):
        model.score_thresh = 0.0  # of a network that has learned nothing every score is low
    return model


@torch.no_grad()
def zero_half(model: nn.Module) -> None:
    drawn = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not any(last in name for last in _LAST):
            gone = torch.randperm(module.weight.shape[0], generator=drawn)[: module.weight.shape[0] // 2]
            module.weight[gone] = 0
            if module.bias is not None:
                module.bias[gone] = 0


def in_both(expected: Tensor, found: Tensor) -> int:
    """How many of the one's boxes the other has to a tenth of a pixel. Where scores are equal up to rounding, as random
    weights give them, which of two overlapping boxes is kept is up to rounding too."""
    return int((torch.cdist(expected, found, p=float("inf")) < 0.1).any(1).sum()) if len(expected) and len(found) else 0


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value, or of 1 if that is less; infinite for other shapes."""
    if one.shape != other.shape:
        return float("inf")
    return (
        float((one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1)) if one.numel() else 0.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--side", type=int, default=128, help="pixels that images are resized to")
    said = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':37}  million par. % MACs % time %   moved same boxes seconds")
    for name in said.networks:
        model = built(name, said.side)
        image = torch.rand(1, 3, said.side, said.side, generator=torch.Generator().manual_seed(2))
        zero_half(model)
        masked = copy_of(model)
        before = sum(p.numel() for p in model.parameters())
        begun = time.perf_counter()
        deploy(model, (image,))
        seconds = time.perf_counter() - begun
        left = sum(p.numel() for p in model.parameters()) / before
        macs = total_macs(model, (image,)) / total_macs(masked, (image,))
        with torch.no_grad():
            (expected,), (found,) = masked(image), model(image)
            resized = model.transform(list(image))[0].tensors  # type: ignore[operator]
            maps = [list(network.backbone(resized).values()) for network in (masked, model)]  # type: ignore[operator]
        moved = [apart(one, other) for one, other in zip(*maps, strict=True)]
        same = in_both(expected["boxes"], found["boxes"])
        slow, quick = milliseconds((masked, model), (image,))
        print(
            f"{name:37} {before / 1e6:>8.2f} {100 * left:>6.1f} {100 * macs:>6.1f} {100 * quick / slow:>6.1f} "
            f"{max(moved):>7.0e} {same:>3} of {len(expected['boxes']):>3} {seconds:>7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
