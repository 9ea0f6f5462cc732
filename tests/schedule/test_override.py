from __future__ import annotations

import copy

import pytest

from raydistill.errors import ABSENT, ConfigError
from raydistill.schedule import get_value, of_weight, read_value, scale_epochs, split_per_weight, with_values

MAPPING = {
    "pruners": {
        "conv": {"class": "A", "final_sparsity": 0.3, "weights": ["conv.weight"]},
        "fc": {"class": "A", "final_sparsity": 0.8, "weights": ["module.fc1.weight", "fc2.weight"]},
        "flat": {"class": "L", "levels": {"emb.weight": 0.2}},
    },
    "lr_schedulers": {"lr": {"class": "MultiStepLR", "milestones": [40, 80]}},
    "policies": [
        {"pruner": {"instance_name": "conv"}, "starting_epoch": 1, "ending_epoch": 100, "frequency": 2},
        {"pruner": {"instance_name": "fc"}, "starting_epoch": 1, "ending_epoch": 100, "frequency": 2},
        {"pruner": {"instance_name": "flat"}, "epochs": [0, 50]},
        {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 100, "frequency": 1},
    ],
}


def test_values_go_where_their_path_leads_and_the_input_stays() -> None:
    before = copy.deepcopy(MAPPING)
    result = with_values(
        MAPPING,
        {
            "pruners.fc.final_sparsity": 0.9,
            "pruners.flat.levels.emb.weight": 0.4,
            "policies[0].frequency": 3,
            "policies.fc.ending_epoch": 50,
            "policies.fc.keep_mask": True,
        },
        "s",
    )
    assert before == MAPPING
    assert result["pruners"]["fc"]["final_sparsity"] == 0.9
    assert result["pruners"]["flat"]["levels"] == {"emb.weight": 0.4}
    assert [policy.get("frequency") for policy in result["policies"]] == [3, 2, None, 1]
    assert result["policies"][1]["ending_epoch"] == 50
    assert result["policies"][1]["pruner"]["args"] == {"keep_mask": True}


def test_per_layer_values_split_the_pruner_and_keep_the_rest() -> None:
    result = with_values(
        MAPPING,
        {
            "per_layer.fc1.weight.final_sparsity": 0.95,
            "per_layer.fc2.weight.frequency": 7,
            "per_layer.emb.weight.level": 0.6,
            "pruners.fc.initial_sparsity": 0.1,
        },
        "s",
    )
    pruners = result["pruners"]
    assert pruners["fc/fc1.weight"]["final_sparsity"] == 0.95
    assert pruners["fc/fc2.weight"]["final_sparsity"] == 0.8
    assert {pruners[name]["initial_sparsity"] for name in ("fc/fc1.weight", "fc/fc2.weight")} == {0.1}
    assert pruners["flat/emb.weight"]["levels"] == {"emb.weight": 0.6}
    frequencies = {
        policy["pruner"]["instance_name"]: policy.get("frequency")
        for policy in result["policies"]
        if "pruner" in policy
    }
    assert frequencies == {"conv/conv.weight": 2, "fc/fc1.weight": 2, "fc/fc2.weight": 7, "flat/emb.weight": None}


def test_splitting_twice_changes_nothing() -> None:
    once = split_per_weight(MAPPING)
    assert split_per_weight(once) == once
    assert [next(iter(policy)) for policy in once["policies"]] == ["pruner"] * 4 + ["lr_scheduler"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("pruners.fcc.final_sparsity", "s: pruners.fcc.final_sparsity: no such entry in 'pruners'; did you mean 'fc'?"),
        ("policies.cov.frequency", "no policy of that instance; did you mean 'conv'?"),
        ("policies[4].frequency", "there is no such policy; the schedule has 4"),
        ("prunners.fc.x", "unknown section; did you mean 'pruners'?"),
        ("per_layer.fc3.weight.final_sparsity", "no pruner of the schedule holds this weight; did you mean 'fc"),
        ("pruners.fc", "no such entry"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(path: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_values(MAPPING, {path: 1}, "s")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_get_value_reads_what_is_there() -> None:
    assert get_value(MAPPING, "pruners.conv.final_sparsity", "s") == 0.3
    assert get_value(MAPPING, "per_layer.fc2.weight.final_sparsity", "s") == 0.8
    assert get_value(MAPPING, "pruners.conv.initial_sparsity", "s") is ABSENT


@pytest.mark.parametrize("epochs", [1, 2, 7, 10, 60, 250])
def test_a_scaled_schedule_stays_in_range_and_keeps_every_policy(epochs: int) -> None:
    result = scale_epochs(MAPPING, 100, epochs)
    assert len(result["policies"]) == len(MAPPING["policies"])
    for policy in result["policies"]:
        if "epochs" in policy:
            assert all(0 <= epoch < epochs for epoch in policy["epochs"])
        else:
            assert 0 <= policy["starting_epoch"] < policy["ending_epoch"] <= epochs
            assert 1 <= policy["frequency"] <= policy["ending_epoch"] - policy["starting_epoch"]
    assert scale_epochs(MAPPING, 100, 100) == MAPPING


def test_scaling_moves_lr_milestones_along() -> None:
    assert scale_epochs(MAPPING, 100, 50)["lr_schedulers"]["lr"]["milestones"] == [20, 40]


def test_what_acts_in_every_epoch_does_so_in_a_stretched_schedule_too() -> None:
    frequencies = [policy.get("frequency") for policy in scale_epochs(MAPPING, 100, 300)["policies"]]
    assert frequencies == [6, 6, None, 1]


BITS = {
    "pruners": {"p": {"class": "P", "weights": ["conv1.weight", "layer1.0.conv.weight"], "final_sparsity": 0.5}},
    "quantizers": {
        "q": {
            "class": "Q", "bits_weights": 8,
            "overrides": {"conv.*": {"bits_activations": None, "bits_weights": 6}, "fc": {"bits_weights": None}},
        }
    },
    "policies": [
        {"pruner": {"instance_name": "p"}, "epochs": [0]},
        {"quantizer": {"instance_name": "q"}, "epochs": [0]},
    ],
}  # fmt: skip


def test_bits_of_a_layer_go_first_into_the_quantizers_overrides() -> None:
    before = copy.deepcopy(BITS)
    values = {
        "per_layer.conv1.weight.bits_weights": 2,
        "per_layer.conv1.weight.final_sparsity": 0.9,
        "per_layer.module.layer1.0.conv.weight.bits_weights": 3,
        "quantizers.q.bits_weights": 5,
    }
    changed = with_values(BITS, values, "s.yaml")
    assert before == BITS
    overrides = changed["quantizers"]["q"]["overrides"]  # type: ignore[index]
    assert list(overrides.items()) == [
        (r"layer1\.0\.conv", {"bits_weights": 3}),
        ("conv1", {"bits_weights": 2, "bits_activations": None}),  # what matched before still holds
        ("conv.*", {"bits_activations": None, "bits_weights": 6}),
        ("fc", {"bits_weights": None}),
    ]
    assert changed["quantizers"]["q"]["bits_weights"] == 5  # type: ignore[index]
    assert changed["pruners"]["p/conv1.weight"]["final_sparsity"] == 0.9  # type: ignore[index]


@pytest.mark.parametrize(
    ("weight", "bits"), [("conv1.weight", 6), ("layer1.0.conv.weight", 8), ("fc.weight", None), ("other.weight", 8)]
)
def test_bits_of_a_layer_are_read_where_they_come_from(weight: str, bits: int | None) -> None:
    assert read_value(BITS, f"per_layer.{weight}.bits_weights") == bits
    assert get_value(BITS, f"per_layer.{weight}.bits_weights", "s.yaml") == bits


def test_bits_without_a_quantizer_lead_nowhere() -> None:
    without = {**BITS, "policies": BITS["policies"][:1]}  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"per_layer.conv1.weight.bits_weights: no quantizer of the schedule acts"):
        with_values(without, {"per_layer.conv1.weight.bits_weights": 2}, "s.yaml")


def test_a_weight_by_itself() -> None:
    """Nothing else of the schedule acts, and what was to rise to the value does not begin above it."""
    agp = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.3, "final_sparsity": 0.9, "weights": ["a", "b"]}
    when = {"starting_epoch": 2, "ending_epoch": 20, "frequency": 2}
    mapping = {
        "version": 1,
        "pruners": {"agp": agp, "idle": {**agp, "weights": ["c"]}},
        "lr_schedulers": {"decay": {"class": "StepLR", "step_size": 3}},
        "policies": [
            {"pruner": {"instance_name": "agp"}, **when},
            {"lr_scheduler": {"instance_name": "decay"}, **when},
        ],
    }
    assert of_weight(mapping, "b", "final_sparsity", 0.2) == {
        "version": 1,
        "pruners": {"agp/b": {**agp, "weights": ["b"], "initial_sparsity": 0.2, "final_sparsity": 0.2}},
        "policies": [{"pruner": {"instance_name": "agp/b"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}],
    }
    assert of_weight(mapping, "c", "final_sparsity", 0.2) is None  # no policy runs its pruner
    assert of_weight(mapping, "d", "final_sparsity", 0.2) is None
