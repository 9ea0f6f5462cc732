"""What quantizers have in common: which weights and calls they round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.quantizers import MENU, PostTrainLinearQuantizer
from raydistill.compression.quantizers.clipped import DorefaQuantizer
from raydistill.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc, self.out = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5)
        self.out.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(torch.relu(self.fc(self.words(words))))


EXAMPLE = (torch.tensor([1, 2]),)


def test_every_layer_by_its_kind_and_a_shared_weight_once() -> None:
    plan = DorefaQuantizer("q", 4, 3, 8).plan(Net(), EXAMPLE)
    assert {name: said.args["bits"] for name, said in plan.weights.items()} == {
        "words.weight": 3, "fc.weight": 3, "fc.bias": 8, "out.bias": 8,
    }  # fmt: skip
    assert [point.name for point, _ in plan.activations] == ["relu_0"]
    assert plan.inputs == ()


def test_overrides_name_modules_and_calls_and_those_that_match_nothing_are_said() -> None:
    said = {"fc": {"bits_weights": 2}, "relu_0": {"bits_activations": None}, "fcc": {"bits_weights": 2}}
    quantizer = DorefaQuantizer("q", 4, 3, overrides=said)
    plan = quantizer.plan(Net(), EXAMPLE)
    assert plan.weights["fc.weight"].args["bits"] == 2
    assert not plan.activations
    assert [str(fault) for fault in quantizer.idle_overrides(Net(), EXAMPLE)] == [
        "overrides.fcc: matches no layer and no call; did you mean 'fc'?"
    ]


@pytest.mark.parametrize("kind", list(MENU.values()))
def test_nothing_to_do_and_no_example_are_said(kind: type) -> None:
    with pytest.raises(ConfigError, match="needs an example of the network's input"):
        kind("q").plan(Net(), None)
    extra = {"quantize_inputs": False} if "Range" in kind.__name__ else {}
    weights = "bits_parameters" if kind is PostTrainLinearQuantizer else "bits_weights"
    with pytest.raises(ConfigError, match="nothing would be quantized"):
        kind("q", bits_activations=None, **{weights: None}, **extra).plan(Net(), EXAMPLE)
