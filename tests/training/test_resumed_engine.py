"""Runs of every kind of policy, cut in the middle and resumed: the bits of one that was never cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.datasets import DatasetConfig, load
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, read_checkpoint

EVERY = {"starting_epoch": 0, "ending_epoch": 5, "frequency": 1}
KINDS: dict[str, dict[str, Any]] = {
    "splicing on the forward pass": {
        "pruners": {
            "p": {
                "class": "SplicingPruner",
                "sensitivities": {"fc1.weight": 0.3},
                "low_thresh_mult": 0.9,
                "hi_thresh_mult": 1.1,
                "sensitivity_multiplier": 0.1,
            }
        },
        "policies": [
            {"pruner": {"instance_name": "p", "args": {"keep_mask": True, "mask_on_forward_only": True}}, **EVERY}
        ],
    },
    "sensitivity": {
        "pruners": {"p": {"class": "SensitivityPruner", "sensitivities": {"*": 0.4}}},
        "policies": [{"pruner": {"instance_name": "p"}, **EVERY}],
    },
    "DropFilter": {
        "pruners": {
            "p": {
                "class": "BernoulliFilterPruner_AGP",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.5,
                "group_type": "Filters",
                "weights": ["conv2.weight"],
            }
        },
        "policies": [
            {
                "pruner": {
                    "instance_name": "p",
                    "args": {
                        "use_double_copies": True,
                        "mask_on_forward_only": True,
                        "mask_gradients": True,
                        "discard_masks_at_minibatch_end": True,
                        "mini_batch_pruning_frequency": 3,
                    },
                },
                **EVERY,
            }
        ],
    },
    "movement": {
        "pruners": {
            "p": {"class": "RankedPruner", "final_sparsity": 0.7, "weights": ["fc1.weight"], "ranking": "movement"}
        },
        "policies": [{"pruner": {"instance_name": "p"}, **EVERY}],
    },
    "activations": {
        "pruners": {
            "p": {
                "class": "ActivationAPoZRankedFilterPruner_AGP",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.5,
                "group_type": "Filters",
                "weights": ["conv2.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "p", "args": {"evidence_minibatches": 2}}, **EVERY}],
    },
    "lottery ticket": {
        "pruners": {"p": {"class": "LotteryTicketPruner", "weights": ["fc1.weight", "fc2.weight"], "fraction": 0.5}},
        "policies": [
            {"pruner": {"instance_name": "p"}, "starting_epoch": 1, "ending_epoch": 6, "frequency": 2},
        ],
    },
    "group lasso": {
        "regularizers": {
            "r": {
                "class": "GroupLassoRegularizer",
                "reg_regims": {"conv2.weight": [0.03, "2D"], "fc1.weight": [0.01, "Rows+Cols"]},
                "threshold_criteria": "Mean_Abs",
            }
        },
        "policies": [{"regularizer": {"instance_name": "r", "args": {"keep_mask": True}}, **EVERY}],
    },
}


@pytest.fixture(scope="module")
def dataset():
    return load(DatasetConfig("digits"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_in_the_middle_has_the_bits_of_one_never_cut(kind: str, dataset, tmp_path: Path) -> None:
    config = RunConfig(
        arch="simplenet_cifar",
        dataset=DatasetConfig("digits"),
        epochs=6,
        schedule=parse_schedule(KINDS[kind], "s.yaml"),
        out_dir=str(tmp_path / "whole"),
        deterministic=True,
        threads=1,
        tensorboard=False,
        effective_train_size=0.5,
        effective_valid_size=0.2,
    )
    whole = list(fit(config, task=Classification(dataset)))
    cut = replace(config, out_dir=str(tmp_path / "cut"))
    run = fit(cut, task=Classification(dataset))
    for _ in range(4):
        next(run)
    run.close()
    rest = list(fit(cut, task=Classification(dataset)))
    assert [metrics.epoch for metrics in rest] == [4, 5]
    left, right = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    assert all(torch.equal(left["model"][name], right["model"][name]) for name in left["model"])
    assert left["scheduler"]["masks"].keys() == right["scheduler"]["masks"].keys()
    for name, mask in left["scheduler"]["masks"].items():
        assert torch.equal(mask, right["scheduler"]["masks"][name])
    if kind != "DropFilter":  # that one leaves no zeros behind
        assert whole[-1].sparsity > 0.01
