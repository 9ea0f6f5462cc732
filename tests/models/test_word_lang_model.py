"""The language model against recurrences written out, and the tutorial's counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.models import create
from tests.models.conftest import Meta


def lstm(x: Tensor, weights: dict[str, Tensor], layer: int, size: int) -> Tensor:
    """One LSTM layer over (T, B, features), gate by gate."""
    state = cell = torch.zeros(x.shape[1], size)
    steps = []
    for step in x:
        gates = step @ weights[f"rnn.weight_ih_l{layer}"].T + weights[f"rnn.bias_ih_l{layer}"]
        gates = gates + state @ weights[f"rnn.weight_hh_l{layer}"].T + weights[f"rnn.bias_hh_l{layer}"]
        i, f, g, o = gates.split(size, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        steps.append(state)
    return torch.stack(steps)


def test_it_is_an_embedding_two_lstms_and_a_decoder() -> None:
    torch.manual_seed(1)
    model = create("word_lang_model", 11, {"emsize": 6, "nhid": 5}).eval()
    weights = dict(model.named_parameters())
    tokens = torch.randint(11, (4, 3))
    x = weights["encoder.weight"][tokens]
    x = lstm(lstm(x, weights, 0, 5), weights, 1, 5)
    logits, hidden = model(tokens)
    assert torch.allclose(logits, x @ weights["decoder.weight"].T + weights["decoder.bias"], atol=1e-6)
    assert torch.allclose(hidden[0][1], x[-1], atol=1e-6)


def test_the_hidden_state_carries_a_text_on() -> None:
    torch.manual_seed(2)
    model = create("word_lang_model", 11, {"emsize": 6, "nhid": 5, "rnn_type": "GRU"}).eval()
    tokens = torch.randint(11, (6, 2))
    first, hidden = model(tokens[:4])
    second, _ = model(tokens[4:], hidden)
    assert torch.allclose(torch.cat([first, second]), model(tokens)[0], atol=1e-6)
    assert not torch.allclose(second, model(tokens[4:])[0], atol=1e-3)


def test_medium_and_large_have_the_weights_of_the_tutorial(meta: Meta) -> None:
    """Biases are not counted there, tied embeddings once, WikiText-2 has 33,278 words."""
    assert meta.count("word_lang_model_medium") == 28_390_700
    assert meta.count("word_lang_model_large") == 85_917_000
    names = list(meta.weights("word_lang_model_large"))
    assert names == [
        "encoder.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "rnn.weight_ih_l1",
        "rnn.weight_hh_l1",
    ]
    assert "decoder.weight" in meta.weights("word_lang_model")


def test_tied_weights_are_one_parameter_that_starts_within_a_tenth() -> None:
    torch.manual_seed(4)
    model = create("word_lang_model", 11, {"emsize": 6, "nhid": 6, "tied": True})
    assert model.decoder.weight is model.encoder.weight
    assert 0.08 < float(model.encoder.weight.detach().abs().max()) <= 0.1
    assert not bool(model.decoder.bias.any())
    model(torch.randint(11, (4, 3)))[0].sum().backward()
    assert model.encoder.weight.grad is not None


@pytest.mark.parametrize(("kind", "function"), [("RNN_TANH", torch.tanh), ("RNN_RELU", lambda x: x.clamp(min=0))])
def test_plain_recurrences(kind: str, function) -> None:
    torch.manual_seed(3)
    model = create("word_lang_model", 7, {"emsize": 4, "nhid": 3, "nlayers": 1, "rnn_type": kind}).eval()
    weights = dict(model.named_parameters())
    tokens = torch.randint(7, (2, 1))
    state = torch.zeros(1, 3)
    for token in tokens:
        state = function(
            weights["encoder.weight"][token] @ weights["rnn.weight_ih_l0"].T
            + weights["rnn.bias_ih_l0"]
            + state @ weights["rnn.weight_hh_l0"].T
            + weights["rnn.bias_hh_l0"]
        )
    assert torch.allclose(model(tokens)[1][0], state, atol=1e-6)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"tied": True, "nhid": 7}, r"word_lang_model\(tied\): needs nhid equal to emsize 200, got 7; set nhid: 200"),
        ({"rnn_type": "LSTN"}, r"word_lang_model\(rnn_type\): unknown kind .* did you mean 'LSTM'\?"),
        ({"hidden": 7}, r"takes \(num_classes, emsize, nhid, nlayers, dropout, tied, rnn_type\)"),
    ],
)
def test_wrong_arguments_are_one_line(args: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        create("word_lang_model", 11, args)
    assert "\n" not in str(caught.value)
