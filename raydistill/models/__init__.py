"""The menu of models. A user's own comes in as ``pkg.mod:factory``, called as ``factory(num_classes=..., **args)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.models.resnet_cifar import resnet20_cifar, resnet32_cifar, resnet44_cifar, resnet56_cifar
from raydistill.models.simplenet import simplenet_cifar
from raydistill.resolve import resolve

MENU: dict[str, Callable[..., nn.Module]] = {
    "simplenet_cifar": simplenet_cifar,
    "resnet20_cifar": resnet20_cifar,
    "resnet32_cifar": resnet32_cifar,
    "resnet44_cifar": resnet44_cifar,
    "resnet56_cifar": resnet56_cifar,
}


def names() -> list[str]:
    """The built-in architectures, sorted."""
    return sorted(MENU)


def create(
    arch: str, num_classes: int, model_args: Mapping[str, Any] | None = None, where: str = "model.arch"
) -> nn.Module:
    """Build `arch` for `num_classes` outputs, with fresh random weights (seed torch before the call).

    where: file and key path for the error.

    Raises:
        ConfigError: unknown arch, arguments it does not take, or a factory that gives no `torch.nn.Module`.
    """
    factory = resolve(arch, MENU, where, "model")
    if not callable(factory):
        raise ConfigError(Fault(where, "a model must be a callable factory", arch, "name a function or a class"))
    arguments = {**(model_args or {})}
    if "num_classes" in arguments:
        raise ConfigError(
            Fault(where, f"'{arch}' gets num_classes from the dataset", arguments["num_classes"], "leave it out")
        )
    arguments["num_classes"] = num_classes
    _check_arguments(factory, arguments, arch, where)
    try:
        model = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            Fault(where, f"'{arch}' refuses its arguments ({error})", dict(model_args or {}), "see its signature")
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(Fault(where, f"'{arch}' must return a torch.nn.Module", type(model).__name__))
    return model


def _check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], arch: str, where: str) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a callable of C code shows no signature; calling it will tell
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        accepted = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        unknown = [name for name in arguments if name not in accepted]
        hint = close_match(unknown[0], accepted) if unknown else ""
        raise ConfigError(
            Fault(where, f"'{arch}' takes ({', '.join(accepted)}); {error}", way_out=hint or "give the missing ones")
        ) from error
