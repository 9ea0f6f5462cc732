"""What a model takes and gives: an example of its inputs, and the logits among its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.early_exit import exits
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.models.menu import MENU, Domain, domain
from raydistill.resolve import resolve

SEQUENCE_LENGTH = 35
"""Tokens in an example for a language model, as its training script cuts them."""


def default_num_classes(arch: str, where: str = "model.arch") -> int | None:
    """The classes a model was made for: 10 (CIFAR-10), 1000 (ImageNet), a language model's vocabulary of 33,278; None
    where it classifies nothing.

    For a user's own, the default of its `num_classes`.

    Raises:
        ConfigError: unknown arch, or a user's own that has no such default.
    """
    factory = resolve(arch, MENU, where, "model")
    if ":" not in arch:
        return domain(arch, {}).num_classes
    default = _default(factory, "num_classes")
    if not isinstance(default, int):
        way_out = "give num_classes a default in its signature, or name a dataset"
        raise ConfigError(Fault(where, f"'{arch}' does not say how many classes it is for", ABSENT, way_out))
    return default


def example_input(
    arch: str,
    model_args: Mapping[str, Any] | None = None,
    batch: int = 1,
    dataset_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    where: str = "model.arch",
) -> tuple[Tensor, ...]:
    """The positional inputs of a model, always the same and drawn without torch's global random state.

    Images are standard normal, (batch, C, H, W): `dataset_shape` where given, else what the architecture was made for.
    So are a table's features, (batch, inputs). A recommender gets pairs of user 0 and item 0, (batch, 2). A language
    model gets int64 tokens below `num_classes` (its vocabulary): (batch, 35), or (35, batch) where it wants time first;
    no more of them than its context.

    Raises:
        ConfigError: unknown arch, or a user's own without `dataset_shape`.
    """
    factory = resolve(arch, MENU, where, "model")
    made_for = domain(arch, model_args or {}) if ":" not in arch else Domain(tuple(dataset_shape or (0, 0, 0)), 0)  # type: ignore[arg-type]
    if made_for.reads == "features":
        inputs = (model_args or {}).get("inputs") or _default(factory, "inputs")
        return (torch.randn(batch, inputs, generator=torch.Generator().manual_seed(0)),)
    if made_for.reads == "pairs":
        return (torch.zeros(batch, 2, dtype=torch.int64),)
    if made_for.reads == "tokens":
        length = min(SEQUENCE_LENGTH, (model_args or {}).get("context", SEQUENCE_LENGTH))
        tokens = torch.arange(length * batch) % (num_classes or made_for.num_classes or 1)
        return (tokens.reshape((batch, length) if made_for.batch_first else (length, batch)),)
    if ":" in arch and dataset_shape is None:
        raise ConfigError(
            Fault(where, f"the shape of the images '{arch}' takes is not known", ABSENT, "name a dataset")
        )
    shape = tuple(dataset_shape) if dataset_shape is not None else made_for.image_shape or ()
    return (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)),)


def check_input(model: nn.Module, inputs: Sequence[Tensor], arch: str, where: str = "model.arch") -> None:
    """Run the model once, in eval mode and without gradients, to see that it takes such inputs.

    Raises:
        ConfigError: it does not; too small an image, or not the size a transformer was built for.
    """
    flags = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        way_out = "choose another architecture"
        if any(tensor.dim() == 4 for tensor in inputs):
            way_out += ", or images of another size (transformers: image_size in its arguments)"
        raise ConfigError(
            Fault(where, f"'{arch}' does not take inputs of shape {shapes} ({error})", ABSENT, way_out)
        ) from error
    finally:
        for module, training in flags.items():
            module.training = training


def logits_of(output: object) -> Tensor:
    """The logits that count: those of the network's end, see `compression.early_exit.exits`."""
    return exits(output)[-1]


def _default(factory: Callable[..., object], parameter: str) -> Any:
    try:
        found = inspect.signature(factory).parameters.get(parameter)
    except (TypeError, ValueError):  # not callable, or written in C
        return None
    return None if found is None else found.default
