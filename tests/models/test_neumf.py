"""Neural matrix factorisation against the paper's equation 12, written out."""

from __future__ import annotations

import math

import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.models import create, default_num_classes, example_input

SIZES = {"users": 5, "items": 7}
SMALL = {"mf_dim": 3, "mlp_layers": [8, 6, 2]}


def test_it_multiplies_factors_beside_layers_and_joins_both() -> None:
    torch.manual_seed(0)
    model = create("neumf", None, SMALL, sizes=SIZES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    w = {name: value.detach() for name, value in model.named_parameters()}
    pairs = torch.tensor([[4, 6], [0, 2], [1, 1]])
    for (user, item), found in zip(pairs.tolist(), model(pairs).tolist(), strict=True):
        factors = w["mf_user_embed.weight"][user] * w["mf_item_embed.weight"][item]
        x = torch.cat([w["mlp_user_embed.weight"][user], w["mlp_item_embed.weight"][item]])
        for layer in ("mlp.0", "mlp.1"):
            x = (w[f"{layer}.weight"] @ x + w[f"{layer}.bias"]).clamp(min=0)
        expected = w["final.weight"][0] @ torch.cat([factors, x]) + w["final.bias"][0]
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_it_begins_as_in_the_paper() -> None:
    torch.manual_seed(0)
    model = create("neumf", None)
    (pairs,) = example_input("neumf", batch=4)
    assert pairs.shape == (4, 2)
    assert model(pairs).shape == (4,)
    assert default_num_classes("neumf") is None
    assert (model.mf_user_embed.num_embeddings, model.mf_item_embed.num_embeddings) == (943, 1682)
    assert float(model.mlp_item_embed.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(model.mlp[0].weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / (64 + 32)), rel=0.02)


@pytest.mark.parametrize("layers", [[7, 4], [8, 0], [], 8])
def test_widths_that_do_not_fit_are_one_line(layers: object) -> None:
    with pytest.raises(ConfigError, match=r"neumf\(mlp_layers\): must be whole numbers from 1 up, the first one even"):
        create("neumf", None, {"mlp_layers": layers}, sizes=SIZES)
