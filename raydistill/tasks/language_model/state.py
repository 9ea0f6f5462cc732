"""A network's state from one stretch of text to the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.errors import ABSENT, ConfigError, Fault


def told_apart(output: object) -> tuple[Tensor, object]:
    """The logits, and the state to go on with; None where a network keeps none.

    Raises:
        ConfigError: the output is neither logits, nor (logits, state), nor an object with ``logits``.
    """
    if isinstance(output, Tensor):
        return output, None
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits, None
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0], output[1] if len(output) == 2 else None
    rule = f"gives {type(output).__name__}, whose logits cannot be told"
    way_out = "return logits, (logits, hidden state), or an object with 'logits'"
    raise ConfigError(Fault("model", rule, ABSENT, way_out))


def detached(state: object) -> object:
    """The same, nothing to be differentiated through: a tensor, or tuples, lists and mappings of them."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple) and hasattr(state, "_make"):
        return state._make(detached(part) for part in state)
    if isinstance(state, (tuple, list)):
        return type(state)(detached(part) for part in state)
    if isinstance(state, dict):
        return {key: detached(part) for key, part in state.items()}
    return state


class Remembering(nn.Module):
    """A network beside another one, with that one's inputs: it goes on from its own state where the other is given
    one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._state: object = None

    def forward(self, tokens: Tensor, state: object = None) -> Tensor:
        known = self._state if state is not None else None
        logits, after = told_apart(self.network(tokens) if known is None else self.network(tokens, known))
        self._state = detached(after)
        return logits


class OfLength(nn.Module):
    """A network that reads so many tokens at a time, as an exported one does: what is shorter, the last stretch of a
    text, is filled up behind its end, which a network that reads from the left does not see."""

    def __init__(self, network: nn.Module, length: int, axis: int) -> None:
        super().__init__()
        self.network, self.length, self.axis = network, length, axis

    def forward(self, tokens: Tensor) -> Tensor:
        own = tokens.shape[self.axis]
        missing = list(tokens.shape)
        missing[self.axis] = self.length - own
        whole = torch.cat([tokens, tokens.new_zeros(missing)], dim=self.axis) if own < self.length else tokens
        logits, _ = told_apart(self.network(whole))
        return logits.narrow(self.axis, 0, own)
