"""An extension of a user's that ends the process it is in, for one value of its argument."""

from __future__ import annotations

import os

from raydistill.compression.policies.extension import Extension
from raydistill.compression.rates import PolicyTime

DEADLY = 0.9


class Fragile(Extension):
    def __init__(self, name: str, load: float = 0.0) -> None:
        self.load = load

    def on_epoch_begin(self, when: PolicyTime) -> None:
        if self.load >= DEADLY:
            os._exit(3)


class Broken(Extension):
    """It has a defect."""

    def __init__(self, name: str) -> None: ...

    def on_epoch_begin(self, when: PolicyTime) -> None:
        raise ValueError("a defect of the user's")
