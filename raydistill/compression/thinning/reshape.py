"""Giving a fresh model the narrower shapes of a thinned one, from nothing but its saved tensors: for checkpoints that
are older than the record of changes (`raydistill.compression.structure`), and for Distiller's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.structure import Selection, Thinned
from raydistill.compression.structure.cut import put
from raydistill.compression.thinning.parts import numbers_of
from raydistill.errors import CheckpointError, Fault


@torch.no_grad()
def reshape_like(model: nn.Module, state: Mapping[str, Tensor], where: str = "state") -> Thinned:
    """Cut a model to the shapes of a thinned one's ``state_dict()``; returns the change: its widths are right, which
    positions stayed nobody knows, and the first ones stand for them.

    The model must be of the architecture that was thinned, built as it was before. Its parameters stay the same objects
    (also those an optimizer holds); the values of changed ones are undefined until ``model.load_state_dict(state)``.
    Names that only one side has are not looked at. Nothing changes where something does not fit.

    Numbers that follow from widths (of a norm that divides by a mean over its channels) are set. Those that may have
    changed and do not follow (how many heads there are) stay as built, with a warning.

    Widths may only shrink, where thinning shrinks them, and what some layer no longer writes another must no longer
    read: so another number of classes or another image size is refused.

    where: the file, for errors.

    Raises:
        CheckpointError: the shapes are not those of this model thinned.
    """
    changed: dict[str, list[tuple[str, Tensor, torch.Size]]] = {}
    for owner, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            full = f"{owner}.{name}" if owner else name
            if full in state and state[full].shape != tensor.shape:
                if not _may_shrink(module, name, tensor.shape, state[full].shape):
                    raise _unfit(where, full, tensor.shape, state[full].shape)
                changed.setdefault(owner, []).append((name, tensor, state[full].shape))
    _check_widths(model, {owner: {name: shape for name, _, shape in found} for owner, found in changed.items()}, where)
    before = _widths(model)
    for owner, found in changed.items():
        for _, tensor, shape in found:
            put(tensor, tensor.new_zeros(shape))
        kind_of(model.get_submodule(owner)).fit(model.get_submodule(owner))
    sides: tuple[dict[str, Selection], dict[str, Selection]] = ({}, {})
    for (name, is_column), width in before.items():
        module = model.get_submodule(name)
        kind = kind_of(module)
        now = kind.columns(module) if is_column else kind.rows(module)
        if now != width:  # a depthwise conv has no columns of its own, and its groups are its rows
            sides[is_column][name] = _first(width, now, kind.groups(module) if (name, True) in before else 1)
    change = Thinned.with_numbers(model, *sides)
    change.set_numbers(model)
    untold = tuple(dict.fromkeys(_untold(model, change)))
    if untold:
        rule = "shapes do not tell whether these are lower now"
        way_out = "load it with its record of changes, or set them"
        warnings.warn(str(Fault(where, rule, ", ".join(untold), way_out)), stacklevel=3)  # past no_grad
    return change


def _untold(model: nn.Module, change: Thinned) -> Iterator[str]:
    """Numbers with which a network runs whether or not they went down with channels: groups of norms that have no
    tensor, and parts that a block cuts its layers' rows into (heads)."""
    narrower = {(stays.width, len(stays.kept)) for stays in change.outputs.values()}
    for owner, module in model.named_modules():
        kind = kind_of(module)
        named = f"{owner}." if owner else ""
        if kind.norm and kind.together(module) > 1 and not list(module.parameters()):
            groups = kind.rows(module) // kind.together(module)
            if any(before == kind.rows(module) and now % groups == 0 for before, now in narrower):
                yield f"{named}num_groups = {groups}"
        for before, now in _mixed(module, named, change) if kind.block else ():
            for name, value in numbers_of(module):
                if 1 < value < before and before % value == now % value == 0:
                    yield f"{named}{name} = {value}"


def _mixed(module: nn.Module, named: str, change: Thinned) -> list[tuple[int, int]]:
    """Widths, before and after, of what a block's own layers read, where its others write more than that (queries, keys
    and values)."""
    found = [(f"{named}{name}", layer, weighted(layer)) for name, layer in module.named_children()]
    narrower = [
        (name, layer, kind)
        for name, layer, kind in found
        if kind is not None and (name in change.outputs or name in change.inputs)
    ]
    if any(kind.blocks(layer).shape[-1] > 1 for _, layer, kind in narrower):
        return []  # a block of convolutions
    rows, columns = (
        [(side[name].width, len(side[name].kept)) for name, _, _ in narrower if name in side]
        for side in (change.outputs, change.inputs)
    )
    return columns if columns and sum(before for before, _ in rows) > min(columns)[0] else []


def _widths(model: nn.Module) -> dict[tuple[str, bool], int]:
    """Of each layer that can lose channels, by its name and whether they are columns (else rows)."""
    found = {}
    for name, module in model.named_modules():
        kind = kind_of(module)
        if weighted(module) is not None or kind.keeps_apart(module):
            found[name, False] = kind.rows(module)
            if weighted(module) is not None and not kind.is_depthwise(module):
                found[name, True] = kind.columns(module)
    return found


def _first(width: int, count: int, groups: int) -> Selection:
    """The first `count` of `width` channels, as many in each group."""
    positions = torch.arange(width).reshape(groups, -1)[:, : count // groups] if count % groups == 0 else None
    return Selection(width, tuple(range(count) if positions is None else positions.flatten().tolist()))


def _may_shrink(module: nn.Module, name: str, old: torch.Size, new: torch.Size) -> bool:
    if len(old) != len(new) or any(after > before or after < 1 for before, after in zip(old, new, strict=True)):
        return False
    kind = weighted(module)
    if kind is None:
        return kind_of(module).keeps_apart(module)
    fits = old[2:] == new[2:]
    if kind.is_depthwise(module):
        fits = fits and old[1:] == new[1:]
    elif kind.groups(module) > 1:
        fits = fits and new[0] % kind.groups(module) == 0
    return fits and name in (kind.weight, kind.bias)


def _check_widths(model: nn.Module, changed: Mapping[str, Mapping[str, torch.Size]], where: str) -> None:
    """Each layer's tensors agree; what is no longer written is no longer read, and the last layer's outputs stay."""
    narrower_rows: dict[str, tuple[int, int]] = {}
    narrower_columns: dict[str, tuple[int, int]] = {}
    last, last_type = "", nn.Module
    for name, module in model.named_modules():
        kind = weighted(module)
        if kind is not None:
            last, last_type = name, type(module)
        shapes = changed.get(name)
        if not shapes:
            continue
        now = {
            key: shapes.get(key, tensor.shape)
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            if tensor.dim() > 0
        }
        row = 0 if kind is None else kind.out_dim
        if len({shape[row if len(shape) > 1 else 0] for shape in now.values()}) > 1:
            key = next(iter(shapes))
            raise _unfit(where, f"{name}.{key}", getattr(module, key).shape, shapes[key])
        if kind is not None and kind.weight in shapes:
            old, new, share = kind.content(module).shape, shapes[kind.weight], kind.groups(module)
            if old[row] != new[row]:
                narrower_rows[name] = (old[row], new[row])
            if old[1 - row] != new[1 - row] or kind.is_depthwise(module):
                narrower_columns[name] = (share * old[1 - row], share * new[1 - row])
    odd = None
    if bool(narrower_rows) != bool(narrower_columns):
        odd = next(iter(narrower_rows or narrower_columns))
    elif last in narrower_rows and not any(
        widths == narrower_rows[last] and type(model.get_submodule(name)) is last_type
        for name, widths in narrower_columns.items()
    ):
        # the outputs of the network, unless the model lists its layers in another order than it calls them
        odd = last
    if odd is not None:
        kind = weighted(model.get_submodule(odd))
        assert kind is not None
        old = kind.content(model.get_submodule(odd)).shape
        raise _unfit(where, f"{odd}.{kind.weight}" if odd else kind.weight, old, changed[odd][kind.weight])


def _unfit(where: str, name: str, old: torch.Size, new: torch.Size) -> CheckpointError:
    rule = f"'{name}' must have shape {tuple(old)}"
    way_out = "choose its architecture or dataset, or a checkpoint with the record of what was thinned"
    return CheckpointError(Fault(where, rule, tuple(new), way_out))
