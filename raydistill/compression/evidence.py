"""What rankings need beside the weights, gathered while the network trains (the kinds are listed in `rankings`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from raydistill.compression.adjacency import Adjacency
from raydistill.compression.layer_kinds import weighted
from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners.reconstruction import sample_points
from raydistill.compression.ranks import Ranks
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault, close_match

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from raydistill.compression.statistics import ChannelActivations

KINDS = ("none", "gradients", "fisher", "movement", "apoz", "mean", "bn_scale", "feature_maps", "block_influence")


class Evidence:
    """Gathers one kind of evidence for some weights. This one needs nothing: it is always ready.

    start() begins anew, before_forward() and after_backward() stand around each minibatch, stop() leaves no trace in
    the model. ready: what there is now will do. waits: it has to see minibatches of the present epoch first;
    needs_gradients: with their backward passes. trains: it sees what training does. Where several ranks train, result()
    is of the rows that all of them have seen, on every rank.
    """

    waits = False
    needs_gradients = False
    trains = False

    def start(self) -> None:
        """Begin to gather."""

    def before_forward(self) -> None:
        """Before the forward pass."""

    def after_backward(self) -> None:
        """Between the backward pass and the optimizer's step."""

    def stop(self) -> None:
        """Take all hooks out of the model."""

    def on_structure_change(self, happened: StructureChange) -> None:
        """The model lost filters or channels."""

    @property
    def ready(self) -> bool:
        return True

    def result(self) -> dict[str, Tensor]:
        """By weight name; shapes as `rankings` has them, or the weight's own."""
        return {}

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        del state


class Gradients(Evidence):
    """The mean gradient over the minibatches since `start`. squared: of its square (the empirical Fisher information of
    minibatches)."""

    waits = True
    needs_gradients = True

    def __init__(self, names: Sequence[str], masks: MaskSet, squared: bool = False) -> None:
        self._names, self._masks, self._squared = names, masks, squared
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._running = False

    def start(self) -> None:
        self._sums, self._count, self._running = {}, 0, True

    @torch.no_grad()
    def after_backward(self) -> None:
        if not self._running:
            return
        self._count += 1
        for name in self._names:
            gradient = self._masks.parameter(name).grad
            if gradient is not None and self._squared:
                gradient = gradient.square()
            if gradient is not None:
                self._sums[name] = gradient.clone() if name not in self._sums else self._sums[name].add_(gradient)

    def stop(self) -> None:
        self._running = False

    def on_structure_change(self, happened: StructureChange) -> None:
        happened.follow(self._sums)

    @property
    def ready(self) -> bool:
        return len(self._sums) == len(self._names)

    def result(self) -> dict[str, Tensor]:
        return {name: total / self._count for name, total in self._sums.items()}


class Movement(Evidence):
    """The sum of -weight * gradient over every minibatch of the policy's epochs; part of a checkpoint."""

    trains = True

    def __init__(self, names: Sequence[str], masks: MaskSet) -> None:
        self._names, self._masks = names, masks
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_backward(self) -> None:
        for name in self._names:
            weight = self._masks.parameter(name)
            if weight.grad is None:
                continue
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(weight)
            self._sums[name].addcmul_(weight, weight.grad, value=-1.0)

    def on_structure_change(self, happened: StructureChange) -> None:
        happened.follow(self._sums)

    @property
    def ready(self) -> bool:
        return len(self._sums) == len(self._names)

    def result(self) -> dict[str, Tensor]:
        return dict(self._sums)

    def state_dict(self) -> dict[str, object]:
        return {"sums": {name: total.clone() for name, total in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._sums = {
            name: torch.empty_like(self._masks.parameter(name), requires_grad=False).copy_(total)
            for name, total in cast(Mapping[str, Tensor], state["sums"]).items()
        }


class Activations(Evidence):
    """One statistic a filter (``apoz`` or ``mean``) of the activations that follow it."""

    waits = True

    def __init__(self, kind: str, names: Sequence[str], model: nn.Module, ranks: Ranks) -> None:
        self._kind, self._names, self._model, self._ranks = kind, names, model, ranks
        self._collector: ChannelActivations | None = None

    def start(self) -> None:
        from raydistill.compression.statistics import ChannelActivations

        self.stop()
        modules = [_module_name(name) for name in self._names]
        self._collector = ChannelActivations(self._model, modules, (self._kind,))
        self._collector.attach()

    def before_forward(self) -> None:
        if self._collector is not None:
            self._collector.paused = self._ranks.idle

    def stop(self) -> None:
        if self._collector is not None:
            self._collector.detach()

    @property
    def ready(self) -> bool:
        return self._collector is not None

    def result(self) -> dict[str, Tensor]:
        assert self._collector is not None, "asked before it is ready"
        if self._ranks.several:
            self._collector.add_up(self._ranks)
        statistic = self._collector.apoz if self._kind == "apoz" else self._collector.mean
        return {name: statistic(_module_name(name)) for name in self._names}


class BatchNormScale(Evidence):
    """The absolute scale of the batch norm that reads each weight's output."""

    def __init__(self, names: Sequence[str], model: nn.Module, pairs: Mapping[str, str]) -> None:
        self._model = model
        self._norms = {name: pairs[_module_name(name)] for name in names if _module_name(name) in pairs}
        lacking = [name for name in names if name not in self._norms]
        if lacking:
            raise ConfigError(Fault("ranking", "bn_scale needs a batch norm right after the weight", lacking[0]))

    def result(self) -> dict[str, Tensor]:
        return {
            name: self._model.get_submodule(norm).weight.detach().abs()  # type: ignore[union-attr,operator]
            for name, norm in self._norms.items()
        }


class _Hooked(Evidence):
    """What forward hooks see, until it is stopped."""

    waits = True

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def stop(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks = []


class FeatureMaps(_Hooked):
    """Samples of each layer's (input patch, output) pairs: {"name:x": (samples, in * kernel), "name:y": ...}."""

    def __init__(self, names: Sequence[str], model: nn.Module, points: int, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks
        self._model, self._names = model, tuple(names)
        self._points = points
        self._samples: dict[str, list[Tensor]] = {}

    def start(self) -> None:
        self.stop()
        self._samples = {}
        for name in self._names:
            module = self._model.get_submodule(_module_name(name))
            self._hooks.append(module.register_forward_hook(partial(self._see, name)))

    @torch.no_grad()
    def _see(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not module.training or self._ranks.idle:
            return
        x, y = sample_points(module, inputs[0], output, self._points)
        self._samples.setdefault(f"{name}:x", []).append(x)
        self._samples.setdefault(f"{name}:y", []).append(y)

    @property
    def ready(self) -> bool:
        return len(self._samples) == 2 * len(self._names)

    def result(self) -> dict[str, Tensor]:
        own = {key: torch.cat(parts) for key, parts in self._samples.items()}
        if not self._ranks.several:
            return own
        every = self._ranks.gather({key: value.cpu() for key, value in own.items()})
        return {key: torch.cat([part[key] for part in every if key in part]).to(own[key].device) for key in own}


class BlockInfluence(_Hooked):
    """1 - the mean cosine of the angle between the hidden states that a block reads and those that it gives (Men et al.
    2024, arXiv 2403.03853, equation 1), by the block's name, each a scalar."""

    def __init__(self, blocks: Sequence[str], model: nn.Module, ranks: Ranks) -> None:
        super().__init__()
        self._blocks, self._model, self._ranks = tuple(blocks), model, ranks
        self._sums: dict[str, Tensor] = {}

    def start(self) -> None:
        self.stop()
        self._sums = {}
        for name in self._blocks:
            block = self._model.get_submodule(name)
            self._hooks.append(block.register_forward_hook(partial(self._see, name), with_kwargs=True))

    @torch.no_grad()
    def _see(
        self, name: str, block: nn.Module, inputs: tuple[object, ...], named: dict[str, Any], output: object
    ) -> None:
        given, result = first_states((*inputs, *named.values())), first_states((output,))
        if self._ranks.idle or given is None or result is None:
            return
        cosines = torch.nn.functional.cosine_similarity(given.double(), result.double(), dim=channel_axis(block, given))
        found = torch.stack([cosines.sum(), torch.tensor(float(cosines.numel())).to(cosines)])
        self._sums[name] = self._sums[name] + found if name in self._sums else found

    @property
    def ready(self) -> bool:
        return len(self._sums) == len(self._blocks)

    def result(self) -> dict[str, Tensor]:
        every = self._ranks.gather({name: value.cpu() for name, value in self._sums.items()})
        sums = {name: torch.stack([part[name] for part in every if name in part]).sum(0) for name in self._blocks}
        return {name: 1.0 - total / count for name, (total, count) in sums.items()}


def first_states(values: tuple[object, ...]) -> Tensor | None:
    """The hidden states among what a block is given or gives: its first tensor of floats, of two or more dimensions."""
    for value in values:
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, Tensor) and first.is_floating_point() and first.dim() > 1:
            return first
    return None


def channel_axis(block: nn.Module, states: Tensor) -> int:
    """The dimension of the channels: the last one, but of feature maps the second where the block reads as many."""
    if states.dim() < 4:
        return -1
    widths = {kind.columns(module) for module in block.modules() if (kind := weighted(module)) is not None}
    return 1 if states.shape[1] in widths or states.shape[-1] not in widths else -1


def gatherer(
    kind: str,
    names: Sequence[str],
    model: nn.Module,
    masks: MaskSet,
    adjacency: Adjacency,
    points: int = 0,
    blocks: Sequence[str] = (),
) -> Evidence:
    """The gatherer of a kind of evidence. names: of the weights it is of; blocks: of modules, where it is of such.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        rule = "a pruner's ranking needs evidence of an unknown kind"
        raise ConfigError(Fault("evidence", rule, kind, close_match(kind, KINDS)))
    if kind == "gradients":
        return Gradients(names, masks)
    if kind == "fisher":
        return Gradients(names, masks, squared=True)
    if kind == "movement":
        return Movement(names, masks)
    if kind in ("apoz", "mean"):
        return Activations(kind, names, model, masks.ranks)
    if kind == "bn_scale":
        return BatchNormScale(names, model, adjacency.batch_norms("ranking bn_scale"))
    if kind == "feature_maps":
        return FeatureMaps(names, model, points, masks.ranks)
    if kind == "block_influence":
        return BlockInfluence(blocks, model, masks.ranks)
    return Evidence()


def _module_name(weight_name: str) -> str:
    return weight_name.rpartition(".")[0]
