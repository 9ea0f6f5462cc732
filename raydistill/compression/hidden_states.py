"""A student's hidden states held against its teacher's (Romero et al. 2015, FitNets, arXiv 1412.6550; Sun et al. 2019,
arXiv 1908.09355): module by module, beside the logits.

Where a pair's widths differ, the student's states go through a matrix that learns along (no bias), which nothing of the
student depends on: it is part of a checkpoint, not of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.evidence import channel_axis, first_states
from raydistill.errors import ConfigError, Fault, close_match
from raydistill.schedule.targets import bare

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

LOSSES = ("mse", "cosine")
_WHERE = "distillation.hidden"
_LR = 1e-3


def check_hidden(pairs: Mapping[str, str], hidden_wt: float, hidden_loss: str) -> list[Fault]:
    """What cannot be, before any network is there."""
    faults = []
    if not isinstance(pairs, Mapping) or not all(isinstance(n, str) and n for pair in pairs.items() for n in pair):
        faults.append(
            Fault(_WHERE, "must map the student's modules to the teacher's", pairs, "as in {blocks.1: blocks.3}")
        )
    if hidden_loss not in LOSSES:
        rule = f"must be one of {', '.join(LOSSES)}"
        faults.append(Fault(f"{_WHERE}_loss", rule, hidden_loss, close_match(str(hidden_loss), LOSSES)))
    number = isinstance(hidden_wt, (int, float)) and not isinstance(hidden_wt, bool)
    if not number or not 0 <= hidden_wt < float("inf"):
        faults.append(Fault(f"{_WHERE}_wt", "must be a number from 0 up", hidden_wt))
    return faults


def unknown_modules(names: Iterable[str], model: nn.Module, who: str) -> list[Fault]:
    """One fault for each name that no module of the network has."""
    known = _modules(model)
    return [
        Fault(_WHERE, f"the {who} has no such module", name, close_match(name, known))
        for name in names
        if _found(name, known) is None
    ]


class HiddenStates:
    """Listens to pairs of modules and says how far they are from each other.

    pairs: names of the student's modules to the teacher's; what counts is the first tensor that a module gives. kind:
    ``mse``: the mean of squared differences; ``cosine``: 1 - the mean cosine over the channels.

    Raises:
        ConfigError: a network has no such module.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, pairs: Mapping[str, str], kind: str) -> None:
        self.kind = kind
        students, teachers = _modules(student), _modules(teacher)
        faults = [*unknown_modules(pairs, student, "student"), *unknown_modules(pairs.values(), teacher, "teacher")]
        if faults:
            raise ConfigError(*faults)
        self._pairs = {
            mine: (students[str(_found(mine, students))], teachers[str(_found(theirs, teachers))])
            for mine, theirs in pairs.items()
        }
        self._seen: dict[tuple[str, bool], Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._projections: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    def listen(self) -> None:
        self.release()
        self._seen = {}
        for name, modules in self._pairs.items():
            for of_teacher, module in enumerate(modules):
                hear = partial(self._hear, name, bool(of_teacher))
                self._handles.append(module.register_forward_hook(hear))

    def _hear(self, name: str, of_teacher: bool, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        states = first_states((output,))
        if states is not None and (of_teacher or torch.is_grad_enabled()):
            self._seen[name, of_teacher] = states

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def loss(self) -> Tensor:
        """The mean over the pairs of what was heard last, in float32.

        Raises:
            ConfigError: a module was not called, or the two give states of different shapes.
        """
        terms = []
        for name, (module, _) in self._pairs.items():
            for of_teacher, who in enumerate(("student", "teacher")):
                if (name, bool(of_teacher)) not in self._seen:
                    rule = f"the {who}'s module gives no hidden states in this minibatch"
                    raise ConfigError(Fault(_WHERE, rule, name, "name a module that is called and gives a tensor"))
            mine, theirs = self._seen[name, False].float(), self._seen[name, True].detach().float()
            axis = channel_axis(module, mine)
            mine, theirs = mine.movedim(axis, -1), theirs.movedim(axis, -1)
            if mine.shape[:-1] != theirs.shape[:-1]:
                rule = f"gives {tuple(mine.shape[:-1])} states, the teacher's module {tuple(theirs.shape[:-1])}"
                raise ConfigError(Fault(_WHERE, rule, name, "name modules of the same resolution"))
            if mine.shape[-1] != theirs.shape[-1]:
                mine = mine @ self._projection(name, mine.shape[-1], theirs)
            if self.kind == "mse":
                terms.append(functional.mse_loss(mine, theirs))
            else:
                terms.append(1.0 - functional.cosine_similarity(mine, theirs, dim=-1).mean())
        self._seen = {}
        return torch.stack(terms).mean()

    def _projection(self, name: str, width: int, theirs: Tensor) -> Tensor:
        """(student's width, teacher's width); made anew where the student was thinned."""
        shape = (width, theirs.shape[-1])
        if name not in self._projections or self._projections[name].shape != shape:
            generator = torch.Generator().manual_seed(0)  # the run's own draws stay what they are
            matrix = nn.init.orthogonal_(torch.empty(shape), generator=generator)
            self._projections[name] = matrix.to(theirs.device).requires_grad_()
            self._optimizer = torch.optim.Adam(list(self._projections.values()), lr=_LR)
        return self._projections[name]

    def step(self) -> None:
        """Let the matrices learn from the last backward pass."""
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, object]:
        if self._optimizer is None:
            return {}
        matrices = {name: matrix.detach().clone() for name, matrix in self._projections.items()}
        return {"matrices": matrices, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        teachers = next(iter(self._pairs.values()))[1]
        place = next((parameter.device for parameter in teachers.parameters()), torch.device("cpu"))
        kept = state["matrices"].items()
        self._projections = {name: value.detach().clone().to(place).requires_grad_() for name, value in kept}
        self._optimizer = torch.optim.Adam(list(self._projections.values()), lr=_LR)
        self._optimizer.load_state_dict(state["optimizer"])


def _found(name: str, known: Mapping[str, nn.Module]) -> str | None:
    """What a module is called; a task may have put a network into another one, whose name need not be said."""
    if bare(name) in known:
        return bare(name)
    inside = [other for other in known if other.endswith(f".{bare(name)}")]
    return inside[0] if len(inside) == 1 else None


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """By name without a wrapper's part."""
    return {bare(name): module for name, module in model.named_modules() if name}
