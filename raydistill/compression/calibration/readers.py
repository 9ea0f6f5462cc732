"""Whose calls show what a weight is multiplied by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.errors import ABSENT, ConfigError, Fault


@dataclass(frozen=True)
class Reader:
    """module: its name in the network. weight: of the weight, in the module."""

    module: str
    weight: str


def readers(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[Reader, ...]]:
    """Of each of these weights all modules that multiply by it, in the network's order; several where it is shared.

    Raises:
        ConfigError: a weight is none of a layer whose kind tells what it reads, is something else's too, or lies in
            another's memory; all of them.
    """
    parameters = dict(model.named_parameters())
    wanted = {id(parameters[name]): name for name in names}
    found: dict[str, list[Reader]] = {name: [] for name in wanted.values()}
    known: set[tuple[int, str]] = set()
    for path, module in model.named_modules():
        for weight in kind_of(module).multiplies(module):
            owner_path, _, attribute = weight.rpartition(".")
            owner = module.get_submodule(owner_path)
            if (id(owner), attribute) in known:  # a projection of attention is a layer too
                continue
            known.add((id(owner), attribute))
            name = wanted.get(id(getattr(owner, attribute)))
            if name is not None:
                found[name].append(Reader(path, weight))
    faults = _faults(model, wanted, known)
    if faults:
        raise ConfigError(*faults)
    return {name: tuple(each) for name, each in found.items()}


def _faults(model: nn.Module, wanted: dict[int, str], known: set[tuple[int, str]]) -> list[Fault]:
    places: dict[int, list[str]] = {}
    faults: dict[str, Fault] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module.named_parameters(path, recurse=False):
            if id(parameter) not in wanted:
                places.setdefault(parameter.untyped_storage().data_ptr(), []).append(attribute)
                continue
            name = wanted[id(parameter)]
            if (id(module), attribute.rpartition(".")[2]) not in known:
                also = "" if attribute == name else f", shared as {attribute},"
                rule = f"{also} is of {type(module).__name__}, of which is not known what it is multiplied by"
                faults.setdefault(name, Fault(name, rule.lstrip(", "), ABSENT, "leave it out, or set its level to 0"))
    by_id = {id(parameter): parameter for parameter in model.parameters()}
    for key, name in wanted.items():
        others = places.get(by_id[key].untyped_storage().data_ptr(), [])
        twins = [twin for other, twin in wanted.items() if other != key and _same_memory(by_id[other], by_id[key])]
        if others or twins:
            rule = f"shares its memory with {(others or twins)[0]}, which would change with it"
            faults.setdefault(name, Fault(name, rule, ABSENT, "leave it out, or set its level to 0"))
    return list(faults.values())


def _same_memory(one: nn.Parameter, other: nn.Parameter) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() != 0
