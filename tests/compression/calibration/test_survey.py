"""What one pass shows: the order of layers, which of them read the same, and chains of modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.calibration.readers import readers
from raydistill.compression.calibration.survey import Looking, Survey
from raydistill.models import create


def seen(model: nn.Module, *inputs: Any, of: str = "") -> Survey:
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1 and name.startswith(of)]
    looking = Looking(model)
    with torch.no_grad(), looking.on():
        model(*inputs)
    return looking.survey(readers(model, names))


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, 3), nn.Linear(3, width)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x + self.up(self.down(x)) * (1.0 if scale is None else scale)


class Blocks(nn.Module):
    """The last block is defined first; each gets the same scale, unless it is worked out anew."""

    def __init__(self, anew: bool = False, keeps: bool = False) -> None:
        super().__init__()
        self.last = Block()
        self.stem, self.blocks, self.head = nn.Linear(2, 4), nn.ModuleList([Block(), Block()]), nn.Linear(4, 2)
        self.anew, self.keeps = anew, keeps

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scale = torch.full((4,), 0.5)
        kept = []
        for block in (*self.blocks, self.last):
            x = block(x, scale + 0.0 if self.anew else scale)
            kept.append(x)
        return self.head(sum(kept) if self.keeps else x)


def test_layers_come_in_the_order_of_the_pass_not_of_the_definition() -> None:
    found = seen(Blocks(), torch.randn(3, 2))
    assert [step.weights[0] for step in found.steps] == [
        "stem.weight", "blocks.0.down.weight", "blocks.0.up.weight", "blocks.1.down.weight", "blocks.1.up.weight",
        "last.down.weight", "last.up.weight", "head.weight",
    ]  # fmt: skip
    assert found.chain == ("blocks.0", "blocks.1", "last")
    assert [found.link_of(step) for step in found.steps] == [
        None, "blocks.0", "blocks.0", "blocks.1", "blocks.1", "last", "last", None,
    ]  # fmt: skip


def test_where_arguments_differ_there_is_no_chain() -> None:
    assert seen(Blocks(anew=True), torch.randn(3, 2)).chain == ()


def test_layers_that_read_the_same_are_one_step() -> None:
    model = create("decoder_lm", 11, {"width": 8, "depth": 2, "heads": 2, "context": 6})
    names = [step.weights for step in seen(model, torch.zeros(2, 6, dtype=torch.int64), of="blocks").steps]
    own = [name.removeprefix("blocks.0.") for step in names[:4] for name in step]
    assert own == [f"attention.{part}.weight" for part in ("q", "k", "v", "out")] + ["mlp.up.weight", "mlp.down.weight"]
    assert [len(step) for step in names] == [3, 1, 1, 1] * 2


def test_sequences_are_looked_into_and_a_layer_that_runs_twice_is_no_link() -> None:
    twice = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 4), twice, twice)
    found = seen(model, torch.randn(2, 4))
    assert found.chain == ("0", "1.0", "1.1", "2")
    assert found.steps[-1].weights == ("3.weight",)
    assert found.steps[-1].calls == {"3": 2}


class Writes(nn.Module):
    """The second layer reads the same tensor, with other values in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1.0
        y = self.first(x)
        x.mul_(2.0)
        return y + self.second(x)


def test_what_was_written_to_in_between_is_not_the_same() -> None:
    assert [step.weights for step in seen(Writes(), torch.randn(2, 4)).steps] == [("first.weight",), ("second.weight",)]


@pytest.mark.slow
def test_nothing_that_ran_is_kept_alive() -> None:
    import gc
    import weakref

    gone: list[weakref.ref[Tensor]] = []
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[0].register_forward_hook(lambda module, inputs, output: gone.append(weakref.ref(output)))
    looking = Looking(model)
    with torch.no_grad(), looking.on():
        model(torch.randn(2, 4))
    gc.collect()
    assert gone[0]() is None
