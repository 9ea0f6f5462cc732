"""The inner width of a block whose own code mixes time channel by channel (Mamba's, Gu and Dao 2023, arXiv 2312.00752).

Such a block holds parameters of its own with an entry a channel, beside layers that write these channels (once, or
several times one after another: states and gates) and layers that read them. Whether its channels really stand by
themselves no names say: it is tried, with one that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.inputs import Example
from raydistill.compression.thinning.parts import Part, Taken, Trial

_MOST_TIMES = 4


@dataclass(frozen=True)
class Mixer:
    """writers: layers with rows of its channels, and how many times they have them; readers: with columns of them.
    tables: its own parameters, with their dimension."""

    block: str
    width: int
    writers: dict[str, int]
    readers: tuple[str, ...]
    tables: dict[str, int]

    def rows(self, layer: str, channels: Tensor) -> Tensor:
        """Where a writer has these channels, (channels, times)."""
        return channels.view(-1, 1) + self.width * torch.arange(self.writers[layer])

    def cut(self, channels: Tensor) -> InnerCut:
        leaving = {(name, False): self.rows(name, channels).T.flatten() for name in self.writers}
        leaving |= {(name, True): channels for name in self.readers}
        tables = {name: (dim, channels) for name, dim in self.tables.items()}
        return InnerCut(mixer=self, width=(self.width, self.width - len(channels)), leaving=leaving, tables=tables)


@dataclass(frozen=True, kw_only=True)
class InnerCut(Part):
    """width: of the block, before and after."""

    mixer: Mixer
    width: tuple[int, int]

    @property
    def block(self) -> str:
        return self.mixer.block

    @property
    def layers(self) -> tuple[str, ...]:
        return (*self.mixer.writers, *self.mixer.readers)

    def counts(self) -> dict[int, int]:
        return dict([self.width])

    def __str__(self) -> str:
        return f"{self.width[0] - self.width[1]} of {self.width[0]} inner channels"


def unread(mixer: Mixer, model: nn.Module) -> Tensor:
    """Channels that none of its readers look at, (width,)."""
    readers = (model.get_submodule(name) for name in mixer.readers)
    return torch.stack([kind_of(module).zero_columns(module).cpu() for module in readers]).all(0)


def mixers_of(model: nn.Module, example: Example) -> list[Mixer]:
    """Those of a model, which is in eval mode, without hooks, and left as it is."""
    by_class: dict[type, list[Mixer]] = {}
    for mixer in _candidates(model):
        by_class.setdefault(type(model.get_submodule(mixer.block)), []).append(mixer)
    return [mixer for alike in by_class.values() if _stands_alone(alike[0], model, example) for mixer in alike]


def _candidates(model: nn.Module) -> Iterator[Mixer]:
    for block, module in model.named_modules():
        own = dict(module.named_parameters(block, recurse=False))
        children = [(f"{block}.{name}" if block else name, child) for name, child in module.named_children()]
        layers = [(name, child) for name, child in children if weighted(child)]
        if not kind_of(module).block or not own or not layers:
            continue
        for width in sorted({size for tensor in own.values() for size in tensor.shape if size > 1}):
            tables = {name: tensor.shape.index(width) for name, tensor in own.items() if width in tensor.shape}
            writers, readers = {}, []
            for name, child in layers:
                kind = kind_of(child)
                times, rest = divmod(kind.rows(child), width)
                if not rest and 1 <= times <= _MOST_TIMES:
                    writers[name] = times
                if kind.columns(child) == width and not kind.is_depthwise(child):
                    readers.append(name)
            if writers and readers and not set(writers) & set(readers):
                yield Mixer(block, width, writers, tuple(readers), tables)


@torch.no_grad()
def _stands_alone(mixer: Mixer, model: nn.Module, example: Example) -> bool:
    """Whether one of its channels can go where nobody reads it."""
    work = copy_of(model)
    for name in mixer.readers:
        module = work.get_submodule(name)
        kind = kind_of(module)
        if not kind.can_lose(module, True):
            return False
        work.get_parameter(f"{name}.{kind.weight}").data.select(kind.in_dim, 1).zero_()
    if not all(kind_of(m).can_lose(m, False) for m in map(work.get_submodule, mixer.writers)):
        return False
    try:
        return Trial(work, example).take(Taken(), [[mixer.cut(torch.tensor([1]))]]) is not None
    except Exception:  # whatever the model's own code raises
        return False
