"""Taking rows and columns out of a model in place, with the optimizer's state and the masks."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.layer_kinds import Cut, kind_of, weighted
from raydistill.compression.thinning.layers import put


@torch.no_grad()
def cut(
    model: nn.Module,
    leaving: Mapping[tuple[str, bool], Tensor],
    optimizer: Optimizer | None = None,
    masks: MutableMapping[str, Tensor] | None = None,
    followers: Sequence[MutableMapping[str, Tensor]] = (),
) -> None:
    """leaving: the sorted positions that go, by layer and whether they are columns (else rows). masks: by parameter.

    followers: tensors by parameter or buffer that keep its shape, such as weights remembered from earlier.
    """
    for name in {layer: None for layer, _ in leaving}:
        module = model.get_submodule(name)
        kind = kind_of(module)
        keep_rows = _others(kind.rows(module), leaving.get((name, False)))
        keep_columns = _others(kind.columns(module), leaving.get((name, True))) if weighted(module) else None
        for attribute, change in kind.cuts(module, keep_rows, keep_columns).items():
            _cut_tensor(getattr(module, attribute), change, optimizer)
            full = f"{name}.{attribute}" if name else attribute
            for named in (*followers, *([] if masks is None else [masks])):
                if full in named:
                    named[full] = change(named[full])
        kind.fit(module, None if keep_rows is None else len(keep_rows))


def _others(size: int, leaving: Tensor | None) -> Tensor | None:
    if leaving is None:
        return None
    keep = torch.ones(size, dtype=torch.bool)
    keep[leaving] = False
    return keep.nonzero().flatten()


def _cut_tensor(tensor: Tensor, change: Cut, optimizer: Optimizer | None) -> None:
    state = optimizer.state.get(tensor, {}) if optimizer is not None else {}
    moments = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.dim() > 0}
    if all(moment.shape == tensor.shape for moment in moments.values()):
        state.update({key: change(moment) for key, moment in moments.items()})
    else:
        state.clear()
    gradient = None if tensor.grad is None else change(tensor.grad)
    put(tensor, change(tensor.data))
    tensor.grad = gradient
