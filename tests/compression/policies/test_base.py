"""A policy that overrides nothing changes nothing."""

from __future__ import annotations

import torch

from raydistill.compression.policies.base import Policy, Step, weights_text
from raydistill.compression.rates import PolicyTime


def test_the_six_places_do_nothing_by_themselves() -> None:
    policy, when, step = Policy(), PolicyTime(0, 0, 1, 1), Step(0, 0, 1)
    loss = torch.tensor(2.0, requires_grad=True)
    assert policy.before_backward(step, loss) is loss
    assert policy.fractions({"w": torch.ones(2, 2)}, when) == {}
    assert policy.state_dict() == {}
    before = dict(vars(policy))
    policy.on_epoch_begin(when)
    policy.on_minibatch_begin(step)
    policy.before_parameter_optimization(step)
    policy.on_minibatch_end(step)
    policy.on_epoch_end(when, {"loss": 1.0})
    policy.load_state_dict({"a": 1})
    assert vars(policy) == before
    assert float(loss) == 2.0


def test_it_is_called_by_its_class() -> None:
    class Mine(Policy):
        pass

    assert Mine().says(PolicyTime(0, 0, 1, 1)) == "Mine"


def test_one_weight_is_no_weights() -> None:
    assert [weights_text(names) for names in ((), ("a",), ("a", "b"))] == ["0 weights", "1 weight", "2 weights"]
