"""Steps that are learned: where they begin and their gradients, by the paper's formulas written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raydistill.compression.quantizers.activations import LearnedStep
from raydistill.compression.quantizers.steps import LearnedSteps, first_step, learned_step, of_all_ranks
from raydistill.compression.quantizers.weights import LearnedStepWeight


def reference(
    values: np.ndarray, gradient: np.ndarray, step: float, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(rounded, the values' gradient, the step's, not yet scaled), value by value: equations 1, 3 and 5 of LSQ."""
    rounded, of_values, of_step = np.zeros_like(values), np.zeros_like(values), 0.0
    for at in np.ndindex(values.shape):
        counted = values[at] / step
        rounded[at] = np.round(min(max(counted, low), high)) * step
        if counted <= low:
            of_step += gradient[at] * low
        elif counted >= high:
            of_step += gradient[at] * high
        else:
            of_step += gradient[at] * (-counted + np.round(counted))
            of_values[at] = gradient[at]
    return rounded, of_values, of_step


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_weights_gradients_are_the_papers(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    values, gradient = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 5, 2))
    steps = [0.3] if axis is None else list(rng.uniform(0.1, 0.5, values.shape[axis]))
    quantizer = LearnedStepWeight(3, axis, len(steps))
    quantizer.steps.begin(torch.tensor(steps))
    weight = torch.nn.Parameter(torch.tensor(values, dtype=torch.float32))
    rounded = quantizer(weight)
    (rounded * torch.tensor(gradient, dtype=torch.float32)).sum().backward()
    for index, step in enumerate(steps):
        own = slice(None) if axis is None else (slice(None),) * axis + (index,)
        expected, of_values, of_step = reference(values[own], gradient[own], step, -4, 3)
        np.testing.assert_allclose(rounded.detach().numpy()[own], expected, atol=1e-6)
        np.testing.assert_allclose(weight.grad.numpy()[own], of_values, atol=1e-6)
        scaled = of_step / math.sqrt(values[own].size * 3)
        assert float(quantizer.steps.size.grad[index]) == pytest.approx(scaled, abs=1e-5)


@pytest.mark.parametrize(("signed", "low", "high"), [(True, -4, 3), (False, 0, 7)])
def test_an_activations_gradients_are_the_papers_of_one_samples_features(signed: bool, low: int, high: int) -> None:
    rng = np.random.default_rng(1)
    values, gradient = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    quantizer = LearnedStep(3, signed)
    quantizer.steps.begin(torch.tensor([0.25]))
    given = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    rounded = quantizer(given)
    (rounded * torch.tensor(gradient, dtype=torch.float32)).sum().backward()
    expected, of_values, of_step = reference(values, gradient, 0.25, low, high)
    np.testing.assert_allclose(rounded.detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(given.grad.numpy(), of_values, atol=1e-6)
    assert float(quantizer.steps.size.grad) == pytest.approx(of_step / math.sqrt(6 * high), abs=1e-5)


def test_where_steps_begin() -> None:
    rows = torch.tensor([[1.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    assert first_step(rows, 4).tolist() == pytest.approx([2.0, 2.0, 2.0])  # what is pruned counts for nothing
    assert first_step(torch.zeros(1, 3), 4).tolist() == [1.0]
    assert of_all_ranks(torch.tensor([0.0, 4.0]), 16).tolist() == [1.0]
    assert of_all_ranks(torch.zeros(2), 4).tolist() == [1.0]
    weight = LearnedStepWeight(3, 0, 3)
    values = torch.nn.Parameter(rows.clone())
    weight.eval()(values)
    assert not weight.steps.ready  # it rounds by what it sees, and begins when it is trained
    weight.train()(values)
    assert weight.steps.size.tolist() == pytest.approx([4 / math.sqrt(3)] * 3)
    activation = LearnedStep(2, signed=False)
    assert torch.equal(activation.eval()(rows), rows)
    activation.train().tracking = False
    assert torch.equal(activation(rows), rows)
    activation.tracking = True
    activation(rows)
    assert float(activation.steps.size) == pytest.approx(2 * 1.0 / math.sqrt(3))  # 12 values of mean 1
    activation(rows * 100)
    assert float(activation.steps.size) == pytest.approx(2 * 1.0 / math.sqrt(3))


def test_what_is_averaged_over_training_counts_only_steps_that_had_begun() -> None:
    steps, average = LearnedSteps(2), LearnedSteps(2)
    for number in range(5):
        if number == 3:
            steps.begin(torch.tensor([0.5, 2.0]))
        for mine, own in zip(average.state_dict().values(), steps.state_dict().values(), strict=True):
            mine.lerp_(own, 0.1)
    assert average.ready
    assert average.now().tolist() == pytest.approx([0.5, 2.0])


def test_a_step_that_was_driven_below_zero_stays_a_number() -> None:
    steps = LearnedSteps()
    steps.begin(torch.tensor([-1.0]))
    assert float(steps.now()) > 0
    steps.load_state_dict(LearnedSteps().state_dict())
    assert not steps.ready


def test_without_gradients_nothing_is_recorded() -> None:
    values = torch.tensor([0.4], requires_grad=True)
    rounded = values.detach().round()
    with torch.no_grad():
        assert learned_step(values, rounded, values, values, -1, 1, 1.0) is rounded
