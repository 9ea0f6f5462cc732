"""torchvision's image classifiers under their own names; torchvision is imported when the first one is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from torch import nn

# Auxiliary heads make training return a tuple, and torchvision means to change how these two are initialised: both
# are said here, so that a model is the same whatever the version.
_DEFAULTS: dict[str, dict[str, object]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_OWN_NORMALISATION = frozenset(_DEFAULTS)
"""Published weights of these were trained on images scaled to [-1, 1]; the model can do that (`transform_input`)."""
_DECIDED_ELSEWHERE = {"weights": "use 'pretrained'", "progress": "leave it out"}
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
# Weights published before modules could not have a dot in their names: denselayer1.norm.1.weight is now norm1.weight.
_DOTTED = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


def names() -> list[str]:
    """The classifiers, sorted; no detection, segmentation, video or quantized model."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def factory(name: str) -> Callable[..., nn.Module]:
    """What builds the model, called as ``factory(num_classes=..., **args)``; KeyError where torchvision has none."""
    if name not in names():
        raise KeyError(name)

    def build(num_classes: int = 1000, **args: object) -> nn.Module:
        import torchvision

        for key, way_out in _DECIDED_ELSEWHERE.items():
            if key in args:
                raise ValueError(f"'{key}' is not for the model; {way_out}")
        return torchvision.models.get_model(name, num_classes=num_classes, **{**_DEFAULTS.get(name, {}), **args})

    return build


def as_pretrained(name: str, args: Mapping[str, object]) -> dict[str, object]:
    """The arguments with which the published weights mean what they were trained to."""
    return {"transform_input": True, **args} if name in _OWN_NORMALISATION else dict(args)


def image_size(name: str, args: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width the model is made for; transformers are told theirs (`image_size`, `input_size`)."""
    if name == "inception_v3":
        return 299, 299
    given = args.get("input_size", args.get("image_size", 224))
    return (int(given), int(given)) if isinstance(given, int) else (int(given[0]), int(given[1]))


def with_present_names(state: MutableMapping[str, Any], wanted: Mapping[str, object]) -> None:
    """Give a published state dict the names of today, and drop auxiliary heads that the model does not have.

    wanted: the model's own state dict. The mapping is changed in place, because it carries its version as an attribute.
    """
    for key in list(state):
        if _DOTTED.search(key):
            state[_DOTTED.sub(r"\1\2", key)] = state.pop(key)
        elif key.startswith(_AUXILIARY) and key not in wanted:
            del state[key]
