"""The menu of models. A user's own comes in as ``pkg.mod:factory``, called as ``factory(num_classes=..., **args)``.

Parameter names are those of Distiller's schedules. Every torchvision classifier is there under torchvision's name;
``pretrained: true`` in its arguments loads the published weights (see `load_pretrained`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from raydistill.errors import ConfigError, Fault, close_match, users_code
from raydistill.models import from_torchvision
from raydistill.models.inputs import check_input, default_num_classes, example_input, logits_of
from raydistill.models.menu import MENU, domain
from raydistill.models.pretrained import load_pretrained, published
from raydistill.resolve import in_folder, resolve

__all__ = [
    "MENU",
    "check_input",
    "create",
    "default_num_classes",
    "domain",
    "example_input",
    "load_pretrained",
    "logits_of",
    "names",
    "takes_num_classes",
]


def names() -> list[str]:
    """The architectures, sorted: own ones and torchvision's."""
    return list(MENU)


def takes_num_classes(arch: str, where: str = "model.arch") -> bool:
    """Whether the factory wants to know how many classes there are; what is not to classify does not."""
    try:
        parameters = inspect.signature(resolve(arch, MENU, where, "model")).parameters
    except (TypeError, ValueError):  # of C code
        return True
    return "num_classes" in parameters or any(found.kind is found.VAR_KEYWORD for found in parameters.values())


def create(
    arch: str,
    num_classes: int | None,
    model_args: Mapping[str, Any] | None = None,
    where: str = "model.arch",
    fetch: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> nn.Module:
    """Build `arch` for `num_classes` outputs, with fresh random weights (seed torch before the call). num_classes: None
    for a factory that takes none: what is not to classify.

    model_args: what the factory takes; of a torchvision model also `pretrained`: true or the name of published
    weights. sizes: what the data say, by the names that factories have for it (``inputs``, ``users``): it gets those
    that its signature has. where: file and key path for the error. fetch: False leaves those weights out, because
    others follow.

    Raises:
        ConfigError: unknown arch, arguments it does not take, or a factory that gives no `torch.nn.Module`.
        CheckpointError: published weights that cannot be had.
    """
    factory = resolve(arch, MENU, where, "model")
    if not callable(factory):
        raise ConfigError(Fault(where, "a model must be a callable factory", arch, "name a function or a class"))
    arguments = {**(model_args or {})}
    if "num_classes" in arguments and num_classes is not None:
        raise ConfigError(
            Fault(where, f"'{arch}' gets num_classes from the dataset", arguments["num_classes"], "leave it out")
        )
    pretrained = arguments.pop("pretrained", None) if ":" not in arch else None  # a user's own may have its own
    if pretrained:
        published(arch, pretrained, f"{where} pretrained")
        arguments = from_torchvision.as_pretrained(arch, arguments)
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    for name, size in (sizes or {}).items():
        if name in _parameters(factory) and arguments.setdefault(name, size) != size:
            rule = f"'{arch}' gets {name} from the data, {size}"
            raise ConfigError(Fault(where, rule, arguments[name], "leave it out"))
    _check_arguments(factory, arguments, arch, where)
    with users_code(where, f"'{arch}'", "see what builds it"):
        try:
            with in_folder():
                model = factory(**arguments)
        except ConfigError as error:
            raise ConfigError(*(_inside(fault, f"{where} {arch}") for fault in error.faults)) from error
        except (TypeError, ValueError, AssertionError) as error:
            rule = f"'{arch}' refuses its arguments ({error})"
            raise ConfigError(Fault(where, rule, dict(model_args or {}), "see its signature")) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(Fault(where, f"'{arch}' must return a torch.nn.Module", type(model).__name__))
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        rule = f"'{arch}' has lazy layers, whose shapes are not known before it runs"
        raise ConfigError(Fault(where, rule, lazy[0], "give the layers their sizes, or run it once in its factory"))
    if pretrained and fetch:
        load_pretrained(model, arch, pretrained, f"{where} pretrained")
    return model


def _parameters(factory: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # a callable of C code shows no signature
        return {}


def _inside(fault: Fault | str, call: str) -> Fault:
    if isinstance(fault, str):
        return Fault(call, fault)
    return Fault(f"{call}({fault.where})", fault.rule, fault.value, fault.way_out)


def _check_arguments(factory: Callable[..., object], arguments: Mapping[str, object], arch: str, where: str) -> None:
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
