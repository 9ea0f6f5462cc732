"""Lottery tickets: iterative magnitude pruning with the early weights restored."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raydistill.compression.pruners.arguments import checked_level, checked_weights
from raydistill.compression.pruners.base import ComposedPruner, Moment, Network
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError, Fault


class LotteryTicketPruner(ComposedPruner):
    """Prunes a fraction of what is left at each round, then rewinds the network (Frankle and Carbin 2019, arXiv
    1803.03635; to an early epoch: Frankle et al. 2020, arXiv 1912.05671).

    The policy's first epoch only remembers the network's parameters and buffers; each later scheduled epoch is a round:
    the smallest of the remaining weights are pruned, all else returns to what was remembered, and the optimizer's
    momenta are cleared. With ``frequency: 20`` a round trains 20 epochs. Rewind the learning rate with an LR policy.

    fraction: pruned in each round, of what is left: 0.2 leaves 0.8, 0.64, 0.512 ...
    """

    def __init__(self, name: str, weights: list[str], fraction: float = 0.2) -> None:
        self._fraction = checked_level("fraction", fraction)
        if self._fraction == 0.0:
            raise ConfigError(Fault("fraction", "must be above 0", fraction))
        super().__init__(name, dict.fromkeys(checked_weights("weights", weights), self._level))

    def round(self, when: PolicyTime) -> int:
        """0 at the epoch that is remembered, then 1, 2, ..."""
        return (when.epoch - when.starting_epoch) // when.frequency

    def before_masks(self, network: Network, when: PolicyTime) -> bool:
        if self.round(when) > 0:
            return True
        network.remember(network.model.state_dict())
        return False

    def after_masks(self, network: Network, masks: Mapping[str, Tensor], moment: Moment) -> None:
        if not network.memory:
            return
        network.model.load_state_dict(network.memory)
        if network.optimizer is not None:
            network.optimizer.state.clear()

    def _level(self, when: PolicyTime) -> float:
        return 1.0 - (1.0 - self._fraction) ** self.round(when)
