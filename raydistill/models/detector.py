"""torchvision's detectors: ``arch: raydistill.models.detector:detector``, ``args: {name: maskrcnn_resnet50_fpn}``."""

from __future__ import annotations

import inspect

from torch import nn

from raydistill.errors import ConfigError, Fault, close_match


def detector(num_classes: int, name: str = "fasterrcnn_mobilenet_v3_large_fpn", **args: object) -> nn.Module:
    """With fresh weights, the backbone's too: nothing is downloaded. num_classes: the background is one of them. args:
    torchvision's, such as ``min_size`` and ``max_size``, the sides in pixels that images are resized to.

    Raises:
        ConfigError: there is no such detector, or it does not take the arguments.
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models.detection)
    if name not in known:
        raise ConfigError(Fault("name", "torchvision has no such detector", name, close_match(name, known)))
    for key in ("weights", "weights_backbone", "progress"):
        if key in args:
            way_out = "leave it out; trained weights go in as a checkpoint"
            raise ConfigError(Fault(key, "is not for the model", args[key], way_out))
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, **args
    )
    taken = {
        *inspect.signature(torchvision.models.get_model_builder(name)).parameters,
        *inspect.signature(type(network)).parameters,
    }
    unknown = sorted(set(args) - taken)  # torchvision lets them pass
    if unknown:
        raise ConfigError(Fault(unknown[0], f"'{name}' takes no such argument", way_out=close_match(unknown[0], taken)))
    return network
