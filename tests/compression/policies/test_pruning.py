"""What the controls of a pruning policy do to one weight, minibatch by minibatch, against hand-worked numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression import CompressionScheduler, build
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Step
from raydistill.compression.policies.pruning import PruningControls, PruningPolicy
from raydistill.compression.pruners import LotteryTicketPruner, Pruner, RankedPruner, SparsityLevelParameterPruner
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import Dropped, StructureChange
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule

LEVEL = {"class": "SparsityLevelParameterPruner", "levels": {"weight": 0.5}}


class Line(nn.Module):
    """loss = weight . (1, 1, 1, 1): the gradient of each weight is 1, so SGD at lr 1 takes 1 off each."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[4.0, 3.0, 20.0, 10.0]]))

    def forward(self) -> Tensor:
        return self.weight.sum()


def scheduled(args: dict[str, Any], pruner: dict | None = None, epochs: tuple[int, int] = (0, 2)):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    policy = {"pruner": {"instance_name": "p", "args": args}, "starting_epoch": epochs[0], "ending_epoch": epochs[1]}
    mapping = {"pruners": {"p": pruner or LEVEL}, "policies": [{**policy, "frequency": 1}]}
    return model, optimizer, build(parse_schedule(mapping, "s.yaml"), model, optimizer)


def run(model: Line, optimizer: torch.optim.Optimizer, scheduler: CompressionScheduler, epochs: range, count: int = 2):
    """For every minibatch: the weight in the forward pass, the weight after the step."""
    seen = []
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch)
        for index in range(count):
            scheduler.on_minibatch_begin(epoch, index, count)
            forward = model.weight.tolist()[0]
            loss = scheduler.before_backward(epoch, index, count, model())
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, count)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, count)
            seen.append((forward, model.weight.tolist()[0]))
        scheduler.on_epoch_end(epoch, loss=0.0, top1=0.0)
    return seen


def test_by_default_pruned_weights_are_zero_at_every_moment() -> None:
    seen = run(*scheduled({}), range(3))
    assert seen[0] == ([0, 0, 20, 10], [0, 0, 19, 9])
    assert seen[5] == ([0, 0, 15, 5], [0, 0, 14, 4]), "the mask stays after the policy's last epoch"


def test_mask_on_forward_only_lets_the_step_move_pruned_weights() -> None:
    seen = run(*scheduled({"mask_on_forward_only": True}), range(3))
    assert seen[0] == ([0, 0, 20, 10], [-1, -1, 19, 9])
    assert seen[1] == ([0, 0, 19, 9], [-1, -1, 18, 8]), "masked again before the next forward pass"
    assert seen[4] == ([-1, -1, 16, 6], [-2, -2, 15, 5]), "and free once the policy is over"


def test_keep_mask_puts_the_mask_in_force_at_the_policys_end() -> None:
    model, optimizer, scheduler = scheduled({"mask_on_forward_only": True, "keep_mask": True})
    run(model, optimizer, scheduler, range(2))
    assert model.weight.tolist() == [[0, 0, 16, 6]]
    assert run(model, optimizer, scheduler, range(2, 3))[1] == ([0, 0, 15, 5], [0, 0, 14, 4])


def test_mask_gradients_leaves_pruned_weights_where_they_are() -> None:
    seen = run(*scheduled({"mask_on_forward_only": True, "mask_gradients": True}), range(1))
    assert seen[0] == ([0, 0, 20, 10], [0, 0, 19, 9])


def test_double_copies_train_the_unmasked_weights() -> None:
    seen = run(*scheduled({"use_double_copies": True}), range(1))
    assert seen[0] == ([0, 0, 20, 10], [3, 2, 19, 9])
    assert seen[1] == ([0, 0, 19, 9], [2, 1, 18, 8])


def test_double_copies_with_masked_gradients_leave_the_pruned_ones_alone() -> None:
    args = {"use_double_copies": True, "mask_on_forward_only": True, "mask_gradients": True}
    assert run(*scheduled(args), range(1))[0] == ([0, 0, 20, 10], [4, 3, 19, 9])


def test_discarded_masks_live_for_one_minibatch() -> None:
    args = {"use_double_copies": True, "discard_masks_at_minibatch_end": True}
    seen = run(*scheduled(args), range(1))
    assert seen[0] == ([0, 0, 20, 10], [3, 2, 19, 9])
    assert seen[1] == ([3, 2, 19, 9], [2, 1, 18, 8])


def test_minibatch_frequency_counts_over_epochs_and_decides_anew() -> None:
    args = {"mini_batch_pruning_frequency": 2, "use_double_copies": True, "discard_masks_at_minibatch_end": True}
    seen = run(*scheduled(args), range(2), count=3)  # minibatches 0 1 2 | 3 4 5
    masked = [forward[0] == 0 for forward, _ in seen]
    assert masked == [True, False, True, True, True, False], "0 and 3 begin epochs, 2 and 4 are every second"


def test_skip_first_minibatch_waits_for_the_second() -> None:
    seen = run(*scheduled({"skip_first_minibatch": True}), range(2))
    assert [forward[0] for forward, _ in seen] == [4, 0, 0, 0]


def test_levels_take_the_place_of_the_pruners() -> None:
    seen = run(*scheduled({"levels": {"module.weight": 0.75}}), range(1))
    assert seen[0][0] == [0, 0, 20, 0]


def test_a_gentler_pruner_that_takes_over_brings_nothing_back() -> None:
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    fine = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.25, "final_sparsity": 0.75, "weights": ["weight"]}
    mapping = {
        "pruners": {"hard": LEVEL, "fine": fine},
        "policies": [
            {"pruner": {"instance_name": "hard"}, "epochs": [0]},
            {"pruner": {"instance_name": "fine"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 1},
        ],
    }
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, optimizer)
    zeros = [[value == 0 for value in after] for _, after in run(model, optimizer, scheduler, range(4), count=1)]
    half, most = [True, True, False, False], [True, True, False, True]
    assert zeros == [half, half, half, most]  # 25 %, 68.75 % (floors to 2 of 4), 75 %


def test_splicing_brings_a_weight_back() -> None:
    pruner = {"class": "SplicingPruner", "sensitivities": {"weight": 0.0}, "low_thresh_mult": 0.4, "hi_thresh_mult": 2}
    model, optimizer, scheduler = scheduled({"use_double_copies": True}, pruner)
    run(model, optimizer, scheduler, range(1))  # mean 9.25: below 3.7 pruned, from 18.5 up spliced
    assert scheduler.masks["weight"].tolist() == [[1, 0, 1, 1]]
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 30.0, 18.0, 5.0]]))
    run(model, optimizer, scheduler, range(1, 2), count=1)
    assert scheduler.masks.names() == (), "the policy is over and did not ask to keep it"
    model, optimizer, scheduler = scheduled({"use_double_copies": True, "keep_mask": True}, pruner)
    run(model, optimizer, scheduler, range(1))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 30.0, 18.0, 5.0]]))
    run(model, optimizer, scheduler, range(1, 2), count=1)
    assert scheduler.masks["weight"].tolist() == [[0, 1, 1, 1]]


@pytest.mark.slow
def test_dropfilter_scales_what_stays_by_filters_over_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 10, 1, bias=False))
    nn.init.ones_(model[0].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = {
        "class": "BernoulliFilterPruner",
        "desired_sparsity": 0.4,
        "group_type": "Filters",
        "weights": ["0.weight"],
    }
    args = {"use_double_copies": True, "discard_masks_at_minibatch_end": True, "mini_batch_pruning_frequency": 1}
    policy = {"pruner": {"instance_name": "p", "args": args}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
    scheduler = build(parse_schedule({"pruners": {"p": pruner}, "policies": [policy]}, "s"), model, optimizer)
    scheduler.on_epoch_begin(0)
    sums, patterns = [], set()
    for index in range(300):
        scheduler.on_minibatch_begin(0, index, 300)
        weight = model[0].weight.detach().flatten()
        kept = int((weight != 0).sum())
        assert weight[weight != 0].tolist() == pytest.approx([10 / kept] * kept)
        sums.append(kept)
        patterns.add(tuple((weight != 0).tolist()))
        scheduler.before_parameter_optimization(0, index, 300)
        scheduler.on_minibatch_end(0, index, 300)
        assert model[0].weight.detach().flatten().tolist() == [1.0] * 10
    assert len(patterns) > 50
    assert sum(sums) / 300 == pytest.approx(6.0, abs=0.35)  # 10 filters, each kept with 0.6; 4 deviations of the mean


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(functional.relu(self.bn(self.conv(images))).mean((2, 3)))


IMAGES, LABELS = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])


def step(model: nn.Module, optimizer: Any, scheduler: CompressionScheduler, epoch: int, index: int, count: int) -> None:
    scheduler.on_minibatch_begin(epoch, index, count)
    loss = scheduler.before_backward(epoch, index, count, functional.cross_entropy(model(IMAGES), LABELS))
    optimizer.zero_grad()
    loss.backward()
    scheduler.before_parameter_optimization(epoch, index, count)
    optimizer.step()
    scheduler.on_minibatch_end(epoch, index, count)


def net(pruner: dict, args: dict | None = None, seed: int = 0, epochs: tuple[int, int] = (0, 1), **spec: Any):
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = {"pruner": {"instance_name": "p", "args": args or {}}, "starting_epoch": epochs[0], "frequency": 1}
    mapping = {"pruners": {"p": pruner}, "policies": [{**policy, "ending_epoch": epochs[1], **spec}]}
    return model, optimizer, build(parse_schedule(mapping, "s"), model, optimizer, (IMAGES,))


def test_folding_ranks_filters_by_weight_times_gamma_over_sigma() -> None:
    pruner = {
        "class": "L1RankedStructureParameterPruner",
        "group_type": "Filters",
        "desired_sparsity": 0.25,
        "weights": ["conv.weight"],
    }
    masks = {}
    for fold in (False, True):
        model, _, scheduler = net(pruner, {"fold_batchnorm": fold})
        with torch.no_grad():
            model.conv.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(4, 2, 3, 3))
            model.bn.weight.copy_(torch.tensor([5.0, 5.0, 5.0, -0.5]))
            model.bn.running_var.copy_(torch.tensor([1.0, 100.0, 1.0, 1.0]))
        scheduler.on_epoch_begin(0)
        masks[fold] = scheduler.masks["conv.weight"][:, 0, 0, 0].tolist()
    assert masks == {False: [0, 1, 1, 1], True: [1, 0, 1, 1]}  # folded: 5, 1, 15, 2


def test_folding_without_an_example_input_is_one_line() -> None:
    pruner = {"class": "SparsityLevelParameterPruner", "levels": {"conv.weight": 0.5}}
    policy = {"pruner": {"instance_name": "p", "args": {"fold_batchnorm": True}}, "epochs": [0]}
    model = Net()
    spec = parse_schedule({"pruners": {"p": pruner}, "policies": [policy]}, "s")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"s: policies\[0\].pruner.fold_batchnorm: needs an example input"):
        build(spec, model, optimizer)


def test_gradient_ranking_looks_at_so_many_minibatches_and_then_decides() -> None:
    pruner = {
        "class": "GradientRankedFilterPruner",
        "group_type": "Filters",
        "desired_sparsity": 0.5,
        "weights": ["conv.weight"],
    }
    model, optimizer, scheduler = net(pruner, {"evidence_minibatches": 2})
    scheduler.on_epoch_begin(0)
    gradients, weights = [], []
    for index in range(4):
        if index == 2:
            weights.append(model.conv.weight.detach().clone())
        step(model, optimizer, scheduler, 0, index, 4)
        gradients.append(model.conv.weight.grad.clone())
        assert ("conv.weight" in scheduler.masks) == (index >= 2)
    mean = (gradients[0] + gradients[1]) / 2
    scores = (mean * weights[0]).sum((1, 2, 3)).abs()
    kept = scheduler.masks["conv.weight"][:, 0, 0, 0]
    assert sorted(scores.argsort()[:2].tolist()) == (kept == 0).nonzero().flatten().tolist()


def test_an_epoch_shorter_than_the_evidence_decides_at_its_end() -> None:
    pruner = {"class": "RankedPruner", "final_sparsity": 0.5, "weights": ["fc.weight"], "ranking": "snip"}
    model, optimizer, scheduler = net(pruner)
    scheduler.on_epoch_begin(0)
    step(model, optimizer, scheduler, 0, 0, 1)
    assert float((model.fc.weight == 0).double().mean()) == 0.5


def test_movement_adds_up_over_epochs_and_survives_a_checkpoint() -> None:
    pruner = {"class": "RankedPruner", "final_sparsity": 0.5, "weights": ["fc.weight"], "ranking": "movement"}
    model, optimizer, scheduler = net(pruner, epochs=(0, 3))
    total = torch.zeros(3, 4)
    scheduler.on_epoch_begin(0)
    assert scheduler.masks.names() == (), "nothing has moved yet"
    for index in range(2):
        before = model.fc.weight.detach().clone()
        step(model, optimizer, scheduler, 0, index, 2)
        total -= before * model.fc.weight.grad
    scheduler.on_epoch_end(0)
    state = copy.deepcopy(scheduler.state_dict())
    other = net(pruner, epochs=(0, 3))
    other[0].load_state_dict(model.state_dict())
    other[2].load_state_dict(state)
    for _, _, resumed in ((model, optimizer, scheduler), other):
        resumed.on_epoch_begin(2)
        pruned = (resumed.masks["fc.weight"].flatten() == 0).nonzero().flatten().tolist()
        assert pruned == sorted(total.flatten().argsort()[:6].tolist())


def test_bn_scale_prunes_the_filters_whose_batch_norm_has_nearly_left() -> None:
    pruner = {
        "class": "RankedPruner",
        "final_sparsity": 0.5,
        "weights": ["conv.weight"],
        "ranking": "bn_scale",
        "granularity": "Filters",
    }
    model, _, scheduler = net(pruner)
    with torch.no_grad():
        model.bn.weight.copy_(torch.tensor([0.9, -0.01, 0.5, 0.002]))
    scheduler.on_epoch_begin(0)
    assert scheduler.masks["conv.weight"][:, 0, 0, 0].tolist() == [1, 0, 1, 0]


def test_apoz_pruning_takes_the_filter_that_is_always_off() -> None:
    pruner = {
        "class": "ActivationAPoZRankedFilterPruner",
        "group_type": "Filters",
        "desired_sparsity": 0.25,
        "weights": ["conv.weight"],
    }
    model, optimizer, scheduler = net(pruner)
    with torch.no_grad():
        model.bn.bias.copy_(torch.tensor([1.0, 2.0, -9.0, 1.0]))
    forward_hooks = sum(len(module._forward_hooks) for module in model.modules())
    scheduler.on_epoch_begin(0)
    step(model, optimizer, scheduler, 0, 0, 1)
    assert scheduler.masks["conv.weight"][:, 0, 0, 0].tolist() == [1, 1, 0, 1]
    assert sum(len(module._forward_hooks) for module in model.modules()) == forward_hooks


def test_reconstruction_fits_what_is_left_to_the_outputs() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 3, 3, padding=1)
    model = nn.Sequential(conv)
    with torch.no_grad():
        conv.weight[:, 1] *= 0.01  # the channel that goes: its input is channel 0's, doubled
    images = torch.randn(32, 4, 6, 6)
    images[:, 1] = 2 * images[:, 0]
    expected = model(images).detach()
    pruner = {
        "class": "FMReconstructionChannelPruner",
        "group_type": "Channels",
        "desired_sparsity": 0.25,
        "weights": ["0.weight"],
    }
    policy = {"pruner": {"instance_name": "p"}, "epochs": [0]}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scheduler = build(parse_schedule({"pruners": {"p": pruner}, "policies": [policy]}, "s"), model, optimizer)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    model(images).sum().backward()
    scheduler.before_parameter_optimization(0, 0, 1)
    scheduler.on_minibatch_end(0, 0, 1)
    assert bool((conv.weight[:, 1] == 0).all())
    assert torch.allclose(model(images), expected, atol=1e-4), "channel 0 has taken over what channel 1 gave"


def test_lottery_tickets_go_back_to_the_early_weights() -> None:
    pruner = {"class": "LotteryTicketPruner", "weights": ["conv.weight", "fc.weight"], "fraction": 0.5}
    spec = {"starting_epoch": 1, "ending_epoch": 6, "frequency": 2}
    model, optimizer, scheduler = net(pruner, **spec)
    states = {}
    for epoch in range(6):
        scheduler.on_epoch_begin(epoch)
        states[epoch] = copy.deepcopy(model.state_dict())
        if epoch in (3, 5):
            assert not optimizer.state, "momenta are cleared"
        for index in range(2):
            step(model, optimizer, scheduler, epoch, index, 2)
        scheduler.on_epoch_end(epoch, loss=1.0, top1=0.0)
    for epoch, kept in ((3, 0.5), (5, 0.25)):
        for name in ("conv.weight", "fc.weight"):
            mask = states[epoch][name] != 0
            assert float(mask.double().mean()) == pytest.approx(kept)
            assert torch.equal(states[epoch][name][mask], states[1][name][mask])
        assert torch.equal(states[epoch]["bn.running_mean"], states[1]["bn.running_mean"])
        assert torch.equal(states[epoch]["fc.bias"], states[1]["fc.bias"])
    assert not torch.equal(states[3]["fc.bias"], states[2]["fc.bias"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"mask_gradients": True}, "policies[0].pruner.args.mask_gradients: needs mask_on_forward_only"),
        ({"keep_mask": "yes"}, "policies[0].pruner.args.keep_mask: must be true or false, got 'yes'"),
        ({"mini_batch_pruning_frequency": -1}, "must be a whole number from 0 up, got -1"),
        ({"fold_batch_norm": True}, "args.fold_batch_norm: unknown argument; did you mean 'fold_batchnorm'?"),
        ({"levels": {"wait": 0.5}}, "the model has no such weight, got 'wait'"),
    ],
)
def test_wrong_controls_are_one_line(args: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scheduled(args)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("control", ["mask_on_forward_only", "use_double_copies"])
def test_masks_of_the_forward_pass_stay_so_when_a_state_is_taken_up(control: str) -> None:
    def made() -> tuple[Line, CompressionScheduler]:
        model = Line()
        mapping = {
            "pruners": {"p": LEVEL},
            "policies": [{"pruner": {"instance_name": "p", "args": {control: True}}, "starting_epoch": 0,
                          "ending_epoch": 9, "frequency": 3}],
        }  # fmt: skip
        return model, build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=1.0))

    (model, scheduler), (other, again) = made(), made()
    scheduler.on_epoch_begin(0)
    state = scheduler.state_dict()
    before = model.weight.detach().clone()
    assert (before != 0).all()
    other.load_state_dict(model.state_dict())
    again.load_state_dict(state)
    again.on_minibatch_end(1, 0, 1)
    assert torch.equal(other.weight, before)
    assert again.masks.forward_only() == ["weight"]


def test_of_two_pruners_that_prune_as_many_the_later_one_chooses() -> None:
    """It takes over where it prunes as much; only where it prunes less do the first one's zeros stay."""
    model = Line()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 1.0, 2.0, 3.0]]).view_as(model.weight))
    first = {"class": "SparsityLevelParameterPruner", "levels": {"weight": 0.5}}
    second = {"class": "RankedPruner", "ranking": "l1", "granularity": "Element", "final_sparsity": 0.5,
              "weights": ["weight"]}  # fmt: skip
    mapping = {
        "pruners": {"first": first, "second": second},
        "policies": [
            {"pruner": {"instance_name": "first"}, "epochs": [0]},
            {"pruner": {"instance_name": "second"}, "epochs": [1]},
        ],
    }
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=1.0))
    scheduler.on_epoch_begin(0)
    assert model.weight.flatten().tolist() == [4.0, 0.0, 0.0, 3.0]
    with torch.no_grad():  # forward only would move them; here the mask is set aside by hand
        model.weight.copy_(torch.tensor([[1.0, 4.0, 3.0, 2.0]]).view_as(model.weight))
    scheduler.on_epoch_begin(1)
    assert model.weight.flatten().tolist() == [0.0, 4.0, 3.0, 0.0]


class Told(Pruner):
    """Masks that it is told, one a decision."""

    def __init__(self, *masks: list[float], releases: bool = True, evidence: str = "none") -> None:
        super().__init__("told", ("weight",))
        self.decided, self.releases, self.evidence = [torch.tensor([mask]) for mask in masks], releases, evidence

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return self.decided.pop(0)


def policy_of(pruner: Pruner, **controls: Any) -> tuple[Line, MaskSet, PruningPolicy]:
    model = Line()
    masks = MaskSet(model)
    return model, masks, PruningPolicy(pruner, model, masks, ["weight"], 3, PruningControls(**controls))


NOW = PolicyTime(0, 0, 4, 1)


def test_what_a_policy_says_of_its_levels() -> None:
    def level(*fractions: float) -> str:
        model = Net()
        names = ["conv.weight", "fc.weight"][: len(fractions)]
        pruner = SparsityLevelParameterPruner("p", dict(zip(names, fractions, strict=True)))
        return PruningPolicy(pruner, model, MaskSet(model), names, 3).says(NOW)

    assert level(0.5).endswith(" to 50.0%")
    assert level(0.5, 0.5).endswith(" to 50.0%")
    assert level(0.75, 0.25).endswith(" to 25.0% ... 75.0%")
    assert policy_of(Told())[2].says(NOW).endswith(" by Told")


def test_at_once_masks_are_in_force_on_the_weights_as_they_are() -> None:
    model, masks, policy = policy_of(Told([1, 0, 0, 1], [2, 1, 1, 0], releases=True))
    policy.at_once(NOW)
    assert model.weight.tolist() == [[4, 0, 0, 10]]
    policy.at_once(NOW)  # it may bring back; a scaled mask is one of ones and zeros
    assert masks["weight"].tolist() == [[1, 1, 1, 0]]
    model, masks, policy = policy_of(Told([1, 0, 0, 1], [1, 1, 1, 0], releases=False))
    policy.at_once(NOW)
    policy.at_once(NOW)
    assert masks["weight"].tolist() == [[1, 0, 0, 0]]
    model, masks, policy = policy_of(Told([0, 0, 0, 1], evidence="gradients"))
    policy.at_once(NOW)  # nothing is seen yet, and it does not rank by magnitude
    assert masks.names() == ()
    assert model.weight.tolist() == [[4, 3, 20, 10]]


def test_at_once_what_is_ranked_by_gradients_goes_by_magnitude() -> None:
    pruner = RankedPruner("p", 0.5, ["weight"], ranking="snip")
    model, _, policy = policy_of(pruner)
    assert policy.waits > 0
    assert policy.needs_gradients
    policy.at_once(PolicyTime(3, 0, 4, 1))
    assert model.weight.tolist() == [[0, 0, 20, 10]]


def test_scaled_masks_scale_copies_only() -> None:
    for copies, seen in ((False, [0.0, 3.0, 20.0, 10.0]), (True, [0.0, 6.0, 20.0, 5.0])):
        model, _, policy = policy_of(Told([0, 2, 1, 0.5]), use_double_copies=copies)
        policy.on_epoch_begin(NOW)
        policy.on_minibatch_begin(Step(0, 0, 2))
        assert model.weight.tolist() == [seen]


def test_what_is_remembered_of_early_weights_is_cut_and_goes_into_a_state() -> None:
    model, _, policy = policy_of(LotteryTicketPruner("p", ["weight"], 0.5))
    policy.on_epoch_begin(NOW)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    state = copy.deepcopy(policy.state_dict())
    other, _, again = policy_of(LotteryTicketPruner("p", ["weight"], 0.5))
    with torch.no_grad():
        other.weight.copy_(model.weight)
    again.load_state_dict(state)
    again.on_epoch_begin(PolicyTime(1, 0, 4, 1))
    assert other.weight.tolist() == [[0, 0, 20, 10]], "the smallest go, the others are what they were"
    policy.on_structure_change(StructureChange(Dropped(()), {"weight": lambda tensor: tensor[:, 1:]}))
    assert policy.state_dict()["early"]["weight"].tolist() == [[3, 20, 10]]  # type: ignore[index]


def test_a_policy_says_whether_it_may_still_draw() -> None:
    _, _, policy = policy_of(Told([1, 1, 1, 0], [1, 1, 1, 0]), skip_first_minibatch=True)
    assert policy.waits == 1
    policy.on_epoch_begin(NOW)
    assert policy.may_draw
    policy.on_minibatch_begin(Step(0, 1, 2))
    assert not policy.may_draw
    assert policy_of(Told(), mini_batch_pruning_frequency=1)[2].may_draw
    assert policy_of(Told())[2].waits == 0
