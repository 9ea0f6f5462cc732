"""Networks that answer more than once: early exits (BranchyNet) and auxiliary classifiers (Inception).

BranchyNet: Teerapittayanon et al. 2016 (arXiv 1709.01686). The network has classifiers along its way; it is trained on
the weighted sum of their losses, and at inference an image leaves at the first exit that is sure enough of it: whose
entropy is below that exit's threshold.

Shapes: logits are (B, classes), labels int64 (B,). Exits count from 0 in the order of the network; the last one is its
end. Entropies and thresholds are in nats: 0 is certain, log(classes) is a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raydistill.errors import ConfigError, Fault


def exits(output: object) -> tuple[Tensor, ...]:
    """The logits in a model's output, one for each exit: (B, classes) each, the last is the network's end.

    A tensor is a single exit; so is an output with `logits` (Inception's), and the first of a tuple of tensors and
    other things (a language model's logits and hidden state). A list or tuple of logits of one shape is one exit each.

    Raises:
        ConfigError: the output is none of these.
    """
    if isinstance(output, Tensor):
        return (output,)
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return (logits,)
    if isinstance(output, (list, tuple)) and output and isinstance(output[0], Tensor):
        if all(isinstance(entry, Tensor) and entry.shape == output[0].shape for entry in output):
            return tuple(output)
        if isinstance(output, tuple):
            return (output[0],)
    way_out = "return logits, a list of logits (one an exit), or a named tuple with 'logits'"
    raise ConfigError(Fault("model", "gives an output whose logits cannot be told", type(output).__name__, way_out))


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax of each row, in nats: (..., classes) to (...)."""
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def exits_taken(outputs: Sequence[Tensor], thresholds: Sequence[float]) -> Tensor:
    """Which exit each image leaves by, int64 (B,): the first whose entropy is below its threshold, else the last."""
    taken = torch.full((len(outputs[-1]),), len(outputs) - 1, dtype=torch.int64, device=outputs[-1].device)
    for index in reversed(range(len(thresholds))):
        taken[entropy(outputs[index]) < thresholds[index]] = index
    return taken


def answers(outputs: Sequence[Tensor], taken: Tensor) -> Tensor:
    """The logits (B, classes) of the exit that each image left by."""
    return torch.stack(list(outputs))[taken, torch.arange(len(taken), device=taken.device)]
