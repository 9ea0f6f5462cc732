"""What goes with the rows and columns that are cut: moments, gradients, masks, tensors remembered by parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.structure import StructureChange, Thinned
from raydistill.compression.structure.cut import cut


def stepped(model: nn.Module, image: Tensor, make: Any = torch.optim.Adam) -> torch.optim.Optimizer:
    """An optimizer that holds moments of the model, whose gradients are still there."""
    optimizer = make(model.parameters(), lr=0.1)
    model(image).square().sum().backward()
    optimizer.step()
    return optimizer


def named(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def moments(optimizer: torch.optim.Optimizer, tensor: Tensor) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in optimizer.state[tensor].items()}


def test_everything_of_a_tensors_shape_is_cut_with_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    optimizer = stepped(model, torch.randn(2, 3, 5, 5))
    before, gradients = named(model), {name: p.grad.clone() for name, p in model.named_parameters()}
    held = {name: moments(optimizer, p) for name, p in model.named_parameters()}
    masks = {"0.weight": torch.rand(4, 3, 3, 3), "2.weight": torch.rand(2, 4, 1, 1)}
    follower = {"0.weight": torch.rand(4, 3, 3, 3), "1.running_mean": torch.rand(4), "other": torch.rand(7)}
    masks_before, followed = dict(masks), dict(follower)
    parameters = dict(model.named_parameters())

    stays = torch.tensor([0, 3])
    done = cut(model, {"0": (stays, None), "1": (stays, None), "2": (None, stays)}, optimizer)
    happened = StructureChange(Thinned({}, {}), done)
    happened.follow(masks)
    happened.follow(follower)
    for name, tensor in before.items():
        if name == "1.num_batches_tracked" or name == "2.bias":
            expected = tensor
        else:
            expected = tensor[:, stays] if name == "2.weight" else tensor[stays]
        assert torch.equal(named(model)[name], expected), name
        if name in parameters:
            after = dict(model.named_parameters())[name]
            assert after is parameters[name]  # the optimizer goes on with it
            dim = 1 if name == "2.weight" else 0
            pick = torch.arange(2) if name == "2.bias" else stays
            assert torch.equal(after.grad, gradients[name].index_select(dim, pick)), name
            for key, value in moments(optimizer, after).items():
                wanted = held[name][key]
                assert torch.equal(value, wanted if wanted.dim() == 0 else wanted.index_select(dim, pick)), (name, key)
    assert torch.equal(masks["0.weight"], masks_before["0.weight"][stays])
    assert torch.equal(masks["2.weight"], masks_before["2.weight"][:, stays])
    assert torch.equal(follower["0.weight"], followed["0.weight"][stays])
    assert torch.equal(follower["1.running_mean"], followed["1.running_mean"][stays])
    assert torch.equal(follower["other"], followed["other"])
    widths = model[0].out_channels, model[1].num_features, model[2].in_channels, model[2].out_channels
    assert widths == (2, 2, 2, 2)
    optimizer.zero_grad()
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()


def test_a_moment_of_another_shape_begins_anew() -> None:
    """As in a checkpoint of Distiller's whose momentum was not thinned; the other tensors keep theirs."""
    model = nn.Sequential(nn.Linear(3, 4))
    optimizer = stepped(model, torch.randn(2, 3))
    weight, bias = model[0].weight, model[0].bias
    optimizer.state[weight]["exp_avg"] = torch.zeros(9, 3)
    kept = moments(optimizer, bias)
    cut(model, {"0": (torch.tensor([1, 2, 3]), None)}, optimizer)
    assert optimizer.state[weight] == {}
    assert torch.equal(optimizer.state[bias]["exp_avg"], kept["exp_avg"][1:])
    assert weight.shape == weight.grad.shape == (3, 3)


def test_without_moments_gradients_or_an_optimizer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cut(model, {"0": (torch.tensor([1, 2, 3]), None), "1": (None, torch.tensor([1, 2, 3]))}, optimizer)
    assert not optimizer.state  # none is made either
    assert model[0].weight.grad is None
    cut(model, {"0": (torch.tensor([0, 2]), None), "1": (None, torch.tensor([0, 2]))})
    assert [tuple(p.shape) for p in model.parameters()] == [(2, 3), (2,), (2, 2), (2,)]


def test_a_model_that_is_one_layer() -> None:
    """Its own name is empty, and its weight's is not ``.weight``."""
    model, masks = nn.Linear(3, 4), {"weight": torch.arange(12.0).reshape(4, 3)}
    StructureChange(Thinned({}, {}), cut(model, {"": (None, torch.tensor([0, 2]))})).follow(masks)
    assert torch.equal(masks["weight"], torch.tensor([[0.0, 2.0], [3.0, 5.0], [6.0, 8.0], [9.0, 11.0]]))
    assert (model.in_features, model.out_features, model.weight.shape) == (2, 4, (4, 2))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_a_norm_without_any_tensor_knows_its_new_width(norm: type[nn.Module]) -> None:
    model = nn.Sequential(norm(4, affine=False, track_running_stats=False))
    cut(model, {"0": (torch.tensor([0, 1, 2]), None)})
    assert model[0].num_features == 3
    model(torch.randn(2, 3, 4, 4))
