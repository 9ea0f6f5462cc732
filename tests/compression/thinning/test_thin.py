from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.masks import MaskSet
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.thin import rules_of
from raydistill.errors import ConfigError, Fault
from tests.compression.thinning.conftest import relative, unsettled, zeroed

IMAGE = torch.zeros(1, 3, 12, 12)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def images(size: int = 12) -> Tensor:
    return torch.randn(4, 3, size, size)


def chain(padding: int = 0, norm: bool = True, bias: bool = False) -> nn.Sequential:
    """0: conv (3 to 6), 1: norm, 2: relu, 3: conv (6 to 5), 4: norm, 5: relu, 6, 7: pool, 8: linear (5 to 4)."""
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(5)] if norm else [nn.Identity(), nn.Identity()]
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=padding, bias=bias),
        norms[0],
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=padding, bias=bias),
        norms[1],
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


def test_constants_worked_out_by_hand_go_into_the_next_bias() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]))
        model[0].bias.copy_(torch.tensor([0.5, 3.0, -7.0]))  # relu(3) = 3 and relu(-7) = 0 reach the second layer
        model[2].weight.copy_(torch.tensor([[2.0, 5.0, 9.0]]))
        model[2].bias.fill_(0.25)
    report = thin(model, None, torch.ones(1, 2))
    assert model[0].weight.tolist() == [[1.0, 2.0]]
    assert model[0].bias.tolist() == [0.5]
    assert model[2].weight.tolist() == [[2.0]]
    assert model[2].bias.tolist() == [0.25 + 5.0 * 3.0]
    assert (model[0].out_features, model[2].in_features) == (1, 1)
    assert (report.parameters_before, report.parameters_after) == (13, 5)
    assert dict(report.removed) == {"0": 2}
    assert report.kept == ()


def test_a_constant_behind_a_batch_norm_moves_the_next_ones_running_mean() -> None:
    model = unsettled(chain())
    zeroed(model, {"0": [1, 4]})
    scale = model[1].weight[[1, 4]] / torch.sqrt(model[1].running_var[[1, 4]] + model[1].eps)
    constant = torch.relu(model[1].bias[[1, 4]] - model[1].running_mean[[1, 4]] * scale)
    mean = model[4].running_mean - torch.einsum("oiyx,i->o", model[3].weight[:, [1, 4]], constant)
    x = images()
    expected = model(x)
    thin(model, None, IMAGE)
    assert torch.allclose(model[4].running_mean, mean, atol=1e-6)
    assert model[3].weight.shape == (5, 4, 3, 3)
    assert model[1].num_features == len(model[1].running_var) == 4
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
def test_one_channel_stays_to_carry_constants_into_zero_padding() -> None:
    model = unsettled(chain(padding=1))
    model[1].bias.data.fill_(1.0)  # all four constants are positive, so none vanishes in the relu
    model[1].running_mean.fill_(0.0)
    masks = zeroed(model, {"0": [0, 2, 3, 5]})
    masks["3.weight"] = (torch.rand(5, 6, 3, 3) > 0.3).float()
    model[3].weight.data.mul_(masks["3.weight"])
    x = images()
    expected = model(x)
    report = thin(model, masks, IMAGE)
    assert model[0].out_channels == 3
    assert relative(expected, model(x)) < 1e-5
    assert [(kept.weight, kept.structure, kept.count) for kept in report.kept] == [("0.weight", "filters", 1)]
    assert masks["0.weight"].shape == model[0].weight.shape
    assert masks["3.weight"].shape == model[3].weight.shape
    assert torch.equal(model[3].weight * masks["3.weight"], model[3].weight)  # what it carries is not masked away


def test_inexact_thinning_removes_them_all_and_is_wrong_at_the_borders_only() -> None:
    model = unsettled(chain(padding=1))[:5]
    zeroed(model, {"0": [0, 2, 3, 5]})
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE, exact=False)
    assert model[0].out_channels == 2
    assert report.kept == ()
    found = model(x)
    assert relative(expected[..., 1:-1, 1:-1], found[..., 1:-1, 1:-1]) < 1e-5
    assert relative(expected, found) > 1e-3
    assert report.drift > 1e-3


@pytest.mark.slow
def test_a_channel_that_nobody_reads_goes_with_a_filter_that_is_not_zero() -> None:
    model = unsettled(chain(padding=1))
    zeroed(model, channels={"3": [1, 2]})
    x = images()
    expected = model(x)
    assert thin(copy.deepcopy(model), None, IMAGE, structures=["filters"]).removed == {}
    thin(model, None, IMAGE, structures=["channels"])
    assert (model[0].out_channels, model[1].num_features, model[3].in_channels) == (4, 4, 4)
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
def test_a_channel_that_a_batch_norm_scales_by_zero_goes() -> None:
    model = unsettled(chain())
    model[1].weight.data[[0, 3]] = 0  # network slimming
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE)
    assert report.removed == {"0": 2}
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
def test_what_goes_frees_what_is_behind_and_before_it() -> None:
    model = unsettled(chain(norm=False, bias=True))
    # Filter 0 of the second conv reads channel 1 only, and only output 2 of the linear layer, pruned too, reads it.
    masks = zeroed(model, {"0": [1]})
    model[3].weight.data[0, [0, 2, 3, 4, 5]] = 0
    x = images()
    expected = model(x)
    report = thin(model, masks, IMAGE)
    assert report.removed == {"0": 1, "3": 1}
    assert relative(expected, model(x)) < 1e-5
    assert thin(model, masks, IMAGE).removed == {}


@pytest.mark.slow
def test_inputs_and_outputs_of_the_network_keep_their_widths() -> None:
    model = unsettled(chain())
    zeroed(model, {"8": [0, 1]}, {"0": [2]})
    report = thin(model, None, IMAGE)
    assert (model[0].in_channels, model[8].out_features) == (3, 4)
    assert report.removed == {}
    assert {(kept.weight, kept.structure, kept.count) for kept in report.kept} == {
        ("0.weight", "channels", 1),
        ("8.weight", "filters", 2),
    }
    assert "8.weight: 2 zero filters kept (an output of the network)" in str(report)


class Block(nn.Module):
    """A residual block of 6 channels on a stem, with an input added where `early`."""

    def __init__(self, early: bool = False) -> None:
        super().__init__()
        self.early = early
        self.stem = nn.Conv2d(3, 3 if early else 6, 1)
        self.widen = nn.Conv2d(3, 6, 1) if early else nn.Identity()
        self.conv1 = nn.Conv2d(6, 8, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x + self.stem(x)) if self.early else self.stem(x)
        x = torch.relu(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def test_a_sum_loses_only_what_all_its_terms_have_lost() -> None:
    model = unsettled(Block())
    zeroed(model, {"stem": [0, 1, 2], "conv2": [1, 2, 5], "conv1": [7]})
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE)
    assert (model.stem.out_channels, model.conv2.out_channels, model.fc.in_features) == (4, 4, 4)
    assert model.conv1.weight.shape == (7, 4, 1, 1)
    assert relative(expected, model(x)) < 1e-5
    assert sorted((kept.weight, kept.count, kept.reason) for kept in report.kept) == [
        ("conv2.weight", 1, "stem writes to the same channel"),
        ("stem.weight", 1, "conv2 writes to the same channel"),
    ]


def test_what_is_added_to_an_input_stays() -> None:
    model = unsettled(Block(early=True))
    zeroed(model, {"stem": [0]})
    report = thin(model, None, IMAGE)
    assert model.stem.out_channels == 3
    assert report.kept[0].reason == "coupled with an input of the network"


class Concat(nn.Module):
    """Two branches joined, then a conv of two groups or a depthwise one, and everything flattened."""

    def __init__(self, groups: int, depthwise: bool = False) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, groups=8) if depthwise else nn.Identity()
        self.conv = nn.Conv2d(8, 6, 3, groups=groups)
        self.fc = nn.Linear(6 * (12 - 2 - 2 * depthwise) ** 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.bn(torch.cat([self.left(x), self.right(x)], 1)))
        return self.fc(torch.relu(self.conv(self.deep(x))).flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("depthwise", [False, True])
def test_concatenated_depthwise_and_flattened_channels_go(depthwise: bool) -> None:
    model = unsettled(Concat(1, depthwise))
    zeroed(model, {"left": [0, 3], "right": [1], "conv": [2, 5]})
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE)
    assert (model.left.out_channels, model.right.out_channels, model.bn.num_features) == (2, 3, 5)
    assert model.conv.weight.shape == (4, 5, 3, 3)
    assert model.fc.in_features == 4 * (64 if depthwise else 100)
    if depthwise:
        assert model.deep.weight.shape == (5, 1, 3, 3)
        assert model.deep.groups == model.deep.in_channels == model.deep.out_channels == 5
    assert report.kept == ()
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
def test_a_padded_depthwise_conv_spreads_a_constant_unevenly_and_keeps_it() -> None:
    model = unsettled(Concat(1, depthwise=True))
    model.deep.padding = (1, 1)
    model.fc = nn.Linear(6 * 100, 4)
    zeroed(model, {"left": [0, 3], "right": [1]})
    x = images()
    expected = model(x)
    strict = copy.deepcopy(model)
    report = thin(strict, None, IMAGE)
    assert report.removed == {}
    assert report.kept[0].reason == "no bias of conv can stand for its constant"
    assert relative(expected, strict(x)) < 1e-5
    report = thin(model, None, IMAGE, exact=False)
    assert model.conv.in_channels == 5
    assert 0 < report.drift < 0.5


@pytest.mark.slow
def test_grouped_convs_lose_as_many_channels_in_each_group() -> None:
    model = unsettled(Concat(2))
    zeroed(model, {"left": [0, 2, 3], "right": [1], "conv": [0, 1, 5]})
    x = images()
    expected = model(x)
    thin(model, None, IMAGE)
    # One of left (the first group of four) and one of right; one of the first three outputs and one of the others.
    assert (model.left.out_channels, model.right.out_channels) == (3, 3)
    assert model.conv.weight.shape == (4, 3, 3, 3)
    assert (model.conv.groups, model.conv.in_channels, model.conv.out_channels) == (2, 6, 4)
    assert relative(expected, model(x)) < 1e-5


class Mixed(nn.Module):
    """Channels that meet in an operation that no layer shows: softmax over channels, or a slice of a fixed width."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(4 if how == "slice" else 8, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x[:, :4] * x[:, 4:] if self.how == "slice" else x.softmax(1) if self.how == "softmax" else x
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["softmax", "slice"])
def test_channels_coupled_out_of_sight_stay_and_the_others_go(how: str) -> None:
    model = unsettled(Mixed(how))
    model.conv1.bias.data.zero_()
    zeroed(model, {"conv1": [0, 1, 5], "conv2": [3]}, {"conv2": [1]})
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE)
    assert relative(expected, model(x)) < 1e-5
    assert report.removed == {"conv2": 1}
    assert model.conv1.out_channels == 8


def test_nothing_goes_through_a_normalization_over_channels() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 3))
    unsettled(model)
    zeroed(model, {"0": [1], "2": [0, 5]}, {"2": [4]})
    x = torch.randn(7, 6)
    expected = model(x)
    report = thin(model, None, x)
    assert report.removed == {"2": 2}
    assert model[0].out_features == 8
    assert "reaches 1, which normalizes over channels" in {kept.reason for kept in report.kept}
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_loses_whole_groups_of_channels(affine: bool) -> None:
    def fresh() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12, affine=affine), nn.ReLU(), nn.Conv2d(12, 8, 3),
            nn.GroupNorm(2, 8, affine=affine), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ).eval()  # fmt: skip

    model = fresh()
    if affine:
        with torch.no_grad():
            model[1].weight.uniform_(0.5, 1.5)
            model[1].bias.normal_()
    zeroed(model, {"0": [3, 4, 5, 9, 10]})  # one group whole, of another two of three
    x = images()
    expected = model(x)
    report = thin(model, None, x)
    assert report.removed == {"0": 3}
    assert (model[1].num_groups, model[1].num_channels, model[3].in_channels) == (3, 9, 9)
    assert relative(expected, model(x)) < 1e-5
    assert {kept.reason for kept in report.kept} == {"the channel depends on the input"}
    again = replay(fresh(), structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    assert relative(expected, again(x)) < 1e-5


def test_channels_that_nobody_reads_stay_with_one_that_they_are_normalized_with() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 8, 3)).eval()
    zeroed(model, {}, {"3": [0, 1, 6, 7, 8]})  # the third group is read by nobody, of the first one channel is
    x = images()
    expected = model(x)
    report = thin(model, None, x)
    assert (model[0].out_channels, model[1].num_groups) == (9, 3)
    assert relative(expected, model(x)) < 1e-5
    assert {kept.reason for kept in report.kept} == {"1 normalizes it together with one that stays"}


class Heads(nn.Module):
    """Two outputs, one of them from the middle; an auxiliary head that only training calls; a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 1)
        self.middle = nn.Conv2d(6, 5, 1)
        self.last = nn.Conv2d(5, 5, 1)
        self.fc = nn.Linear(5, 4)
        self.helper = nn.Sequential(nn.Conv2d(5, 3, 1), nn.Flatten(), nn.Linear(3 * 144, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.twice(torch.relu(self.twice(self.stem(x)))))
        middle = self.middle(x)
        x = torch.relu(self.last(middle))
        result = {"class": self.fc(x.mean((2, 3))), "middle": middle}
        return {**result, "helper": self.helper(x)} if self.training else result


@pytest.mark.slow
@pytest.mark.parametrize("differ", [False, True])
def test_outputs_from_the_middle_stay_and_paths_of_training_are_cut_too(differ: bool) -> None:
    model = unsettled(Heads())
    zeroed(model, {"stem": [0, 4], "twice": [0, 4], "middle": [1], "last": [2, 3]})
    with torch.no_grad():  # what the layer called twice reads of channels 0 and 4: nothing, or two different constants
        model.stem.bias[[0, 4]] = 0.0
        model.twice.bias[[0, 4]] = 0.7 if differ else -0.7
    x = images()
    expected = {**model(x), "helper": model.train()(x)["helper"]}
    report = thin(model, None, IMAGE)
    assert model.training
    found = model(x)
    for name, value in expected.items():
        assert relative(value, found[name]) < 1e-5
    width = 6 if differ else 4
    assert (model.twice.in_channels, model.twice.out_channels, model.stem.out_channels) == (width, width, width)
    assert (model.middle.out_channels, model.last.out_channels) == (5, 3)
    assert model.helper[0].in_channels == 3
    assert {kept.weight for kept in report.kept} == {"middle.weight", *(("stem.weight", "twice.weight") * differ)}


def test_a_layer_keeps_its_last_channel() -> None:
    model = unsettled(chain())
    zeroed(model, {"0": range(6)})
    x = images()
    expected = model(x)
    report = thin(model, None, IMAGE)
    assert model[0].out_channels == 1
    assert "keeps at least one" in report.kept[0].reason
    assert relative(expected, model(x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_goes_on_as_that_of_the_masked_model(kind: str) -> None:
    full = chain(padding=1, norm=False)  # without biases the dead channels of the masked model stay silent
    filters = {"0": [1, 4], "3": [0]}
    data = [(images(), torch.randint(0, 4, (4,))) for _ in range(6)]

    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, masks: MaskSet, batches: list) -> list[float]:
        losses = []
        for x, labels in batches:
            loss = functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            masks.apply()
            losses.append(float(loss.detach()))
        return losses

    optimizer, masks = optimizer_of(full), MaskSet(full)
    for name, mask in zeroed(full, filters).items():
        masks.set(name, mask)
    train(full, optimizer, masks, data[:3])
    model, state = copy.deepcopy(full), copy.deepcopy(optimizer.state_dict())
    parameters = list(model.parameters())
    thin_optimizer, thin_masks = optimizer_of(model), MaskSet(model)
    thin_optimizer.load_state_dict(state)
    for name in masks.names():
        thin_masks.set(name, masks[name])
    thin(model, thin_masks, IMAGE, thin_optimizer)
    assert model[0].out_channels == 4
    assert all(one is other for one, other in zip(parameters, thin_optimizer.param_groups[0]["params"], strict=True))
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    key = "momentum_buffer" if kind == "sgd" else "exp_avg_sq"
    cut = optimizer.state[full[3].weight][key][1:][:, [0, 2, 3, 5]]
    assert torch.equal(thin_optimizer.state[model[3].weight][key], cut)
    assert thin_masks["3.weight"].shape == (4, 4, 3, 3)
    assert train(model, thin_optimizer, thin_masks, data[3:]) == pytest.approx(
        train(full, optimizer, masks, data[3:]), rel=1e-4
    )


@pytest.mark.slow
def test_a_loss_that_is_still_alive_does_not_break_the_next_step() -> None:
    model = chain()
    zeroed(model, {"0": [1]})
    loss = model(images()).sum()
    loss.backward()
    gradient = model[0].weight.grad.clone()
    thin(model, None, IMAGE)
    assert torch.equal(model[0].weight.grad, gradient[[0, 2, 3, 4, 5]])
    model(images()).sum().backward()
    assert loss.requires_grad


@pytest.mark.slow
def test_only_the_model_changes_not_what_is_around_it() -> None:
    model = chain().to(memory_format=torch.channels_last)
    model[8].bias.requires_grad_(False)
    model.train()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    zeroed(model, {"0": [1]})
    state = torch.get_rng_state()
    mean = model[1].running_mean.clone()
    thin(model, None, IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert calls == []
    assert model.training
    assert torch.equal(model[1].running_mean, mean[[0, 2, 3, 4, 5]])
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[3].weight.is_contiguous()
    assert [p.requires_grad for p in model.parameters()] == [*[True] * 7, False]


@pytest.mark.slow
def test_masks_that_act_on_the_forward_pass_only_decide_too_and_leave_the_other_weights() -> None:
    model = chain()
    masks = MaskSet(model)
    keep = torch.ones(6, 3, 3, 3)
    keep[1] = 0
    keep[2, 0] = 0
    masks.set("0.weight", keep, forward_only=True)
    before = model[0].weight.detach().clone()
    thin(model, masks, IMAGE)
    assert torch.equal(model[0].weight, before[[0, 2, 3, 4, 5]])
    assert torch.equal(masks["0.weight"], keep[[0, 2, 3, 4, 5]])
    masks.apply()
    assert torch.equal(model[0].weight, before[[0, 2, 3, 4, 5]])


def test_half_precision_and_named_inputs() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 6)
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, words: Tensor, scale: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(self.words(words) * scale)))

    model = Named().to(torch.bfloat16)
    zeroed(model, {"up": [0, 7]})
    words = torch.arange(10).view(2, 5)
    report = thin(model, None, {"words": words, "scale": torch.ones(1)})
    assert report.removed == {"up": 2}
    assert model.up.weight.dtype == torch.bfloat16
    assert model(words, torch.ones(1, dtype=torch.bfloat16)).shape == (2, 5, 2)


def test_what_a_user_can_mend_is_said_in_one_line() -> None:
    model = chain()
    with pytest.raises(ConfigError, match=r"structures: is not known, got 'filter'; did you mean 'filters'\?"):
        thin(model, None, IMAGE, structures=["filter"])
    with pytest.raises(ConfigError, match=r"masks: the model has no such weight, got '0.wight'; did you mean"):
        thin(model, {"0.wight": torch.ones(1)}, IMAGE)
    with pytest.raises(ConfigError, match=r"masks.0.weight: must have the shape \(6, 3, 3, 3\)"):
        thin(model, {"0.weight": torch.ones(1)}, IMAGE)
    with pytest.raises(ConfigError, match="the model cannot be traced") as caught:
        thin(model, None, torch.zeros(1, 5, 12, 12))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="example_input: cannot be fed to a model"):
        thin(model, None, 3)


@pytest.mark.slow
def test_only_what_the_named_weights_write_goes() -> None:
    model, example = chain(), images()
    with torch.no_grad():
        model[0].weight[[1, 4]] = 0
        model[3].weight[[0]] = 0
    report = thin(model, None, example, weights=["3.weight"])
    assert [len(model[0].weight), len(model[3].weight), model[8].weight.shape[1]] == [6, 4, 4]
    assert {kept.reason for kept in report.kept} == {"is written by a layer that is not to be thinned"}
    assert {kept.weight: kept.count for kept in report.kept if kept.structure == "filters"} == {"0.weight": 2}
    assert [len(model[0].weight), len(model[3].weight)] == [6, 4]
    thin(model, None, example)
    assert len(model[0].weight) == 4
    with pytest.raises(ConfigError, match=r"no such weight, got '3\.wieght'; did you mean '3\.weight'"):
        thin(model, None, example, weights=["3.wieght"])


def test_what_is_wrong_is_said_without_where_and_what_to_do() -> None:
    error = ConfigError(Fault("model", "cannot be followed", 3, "leave it"), "whole lines stay")
    assert rules_of(error) == "cannot be followed; whole lines stay"
