"""Models and what they promise, by a second route: interpolation and volumes of others, a posterior by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from raydistill.search import hypervolume

if importlib.util.find_spec("botorch") is None:
    pytest.skip("BoTorch is not installed", allow_module_level=True)

from raydistill.search.bayesian import Figure, Known, Promise, Table, Told, Trend, _Figures, _model, reproducible

RNG = np.random.default_rng(0)
GRID = np.linspace(0.0, 1.0, 65)
SQUARES = Table((0, 1), np.stack([GRID**2, 3.0 * GRID**2]))
STRAIGHT = Table((0, 1), np.stack([0.25 * GRID, 0.75 * GRID]))


def gain(units: np.ndarray) -> np.ndarray:
    return units @ np.array([0.25, 0.75])


def known(units: np.ndarray, metric: np.ndarray, running: np.ndarray | None = None) -> Known:
    rest = np.zeros((0, units.shape[1])) if running is None else running
    return Known(units, np.stack([metric, gain(units)], axis=1), rest, {})


def told(units: np.ndarray, trend: Trend | None = None, **more: float) -> Told:
    return Told(trend=trend, figures=(Figure(STRAIGHT, gain(units), -np.inf),), **more)


def test_a_table_is_read_between_the_places_of_its_grid() -> None:
    units = np.array([[0.0, 1.0], [0.3, 0.51], [1.0, 0.0]])
    x = torch.tensor(units, dtype=torch.double, requires_grad=True)
    found = SQUARES.each(x)
    expected = [[np.interp(u, GRID, table) for u, table in zip(row, SQUARES.values, strict=True)] for row in units]
    assert found.detach().numpy() == pytest.approx(np.array(expected))
    found.sum().backward()
    assert x.grad is not None
    assert x.grad[1].tolist() == pytest.approx([2 * 0.3, 6 * 0.51], abs=0.05)


@pytest.mark.slow
def test_the_metric_is_the_trends_where_trials_follow_it_and_what_they_say_where_they_do_not() -> None:
    units = RNG.random((12, 2))
    trend = Trend(0.9, 0.03, 0.07, SQUARES)

    def predicted(truth: np.ndarray, at: np.ndarray) -> np.ndarray:
        with reproducible(0):
            x, y = (torch.as_tensor(each, dtype=torch.double) for each in (units, known(units, truth).points))
            model, unit = _model(known(units, truth), told(units, trend), x, y)
            found = model.posterior(torch.as_tensor(at, dtype=torch.double)).mean * torch.tensor([float(unit[0]), 1.0])
        return found.detach().numpy()

    def damage(at: np.ndarray, *factors: float) -> np.ndarray:
        return at**2 @ np.array(factors)

    far = np.array([[0.5, 0.5], [0.05, 0.95], [0.95, 0.05]])
    for factors, near in (((1.0, 3.0), 0.004), ((1.5, 4.5), 0.004), ((0.5, 3.6), 0.012)):
        found = predicted(0.9 - 0.03 * damage(units, *factors), far)
        assert found[:, 0] == pytest.approx(0.9 - 0.03 * damage(far, *factors), abs=near)
        assert found[:, 1] == pytest.approx(gain(far), abs=1e-3)


def test_a_figure_is_the_layers_sum_and_at_known_trials_what_they_had() -> None:
    units = RNG.random((6, 2))
    x = torch.as_tensor(units, dtype=torch.double)
    exact = _Figures([Figure(STRAIGHT, gain(units), 0.0)], x)
    new = torch.rand(3, 1, 2, dtype=torch.double)
    assert torch.equal(exact(new), exact._sums(new))
    less = _Figures([Figure(STRAIGHT, gain(units), 0.0), Figure(STRAIGHT, 0.9 * gain(units), 0.0)], x)
    assert less(x)[:, 0].numpy() == pytest.approx(gain(units), abs=1e-3)
    assert less(x)[:, 1].numpy() == pytest.approx(0.9 * gain(units), abs=5e-3)
    assert less(new).shape == (3, 1, 2)


@pytest.mark.slow
def test_what_a_point_promises_goes_with_the_volume_that_it_adds() -> None:
    units, new = RNG.random((20, 2)), RNG.random((40, 2))
    trend = Trend(0.9, 0.03, 0.07, SQUARES)

    def metric(at: np.ndarray) -> np.ndarray:
        return 0.9 - 0.03 * at**2 @ np.array([1.0, 3.0])

    def volume(at: np.ndarray) -> float:
        return hypervolume(np.stack([metric(at), gain(at)], axis=1), ["max", "max"], [0.83, 0.0])

    front = units[:4]
    added = [volume(np.concatenate([front, point[None]])) - volume(front) for point in new]
    promise = Promise(known(front, metric(front)), told(front, trend), 0).of(new)
    assert spearmanr(promise, added).statistic > 0.9
    best = new[int(promise.argmax())]
    beside = Promise(known(front, metric(front), best[None]), told(front, trend), 0)
    assert np.exp(beside.of(best[None])) < 0.2 * np.exp(promise.max())
    moved = beside.moved(new, beside.of(new), [1])
    assert beside.of(moved).max() >= beside.of(new).max()
    assert set(moved[:, 1]) <= set(new[:, 1])


@pytest.mark.slow
def test_what_breaks_a_bound_promises_nothing() -> None:
    units = RNG.random((10, 2))
    metric = 0.9 - 0.03 * units**2 @ np.array([1.0, 3.0])
    trend = Trend(0.9, 0.03, 0.07, SQUARES)
    new = np.array([[0.1, 0.3], [0.8, 0.9]])
    free = np.exp(Promise(known(units, metric), told(units, trend), 0).of(new))
    floor = np.exp(Promise(known(units, metric), told(units, trend, floor=0.88), 0).of(new))
    assert floor[1] < 0.05 * free[1]
    figures = (Figure(STRAIGHT, gain(units), 0.5),)
    small = np.exp(Promise(known(units, metric), Told(trend=trend, figures=figures), 0).of(new))
    assert small[0] < 0.05 * max(free[0], small[1])


def test_random_numbers_are_drawn_again_and_the_state_is_given_back() -> None:
    before = torch.get_rng_state()
    with reproducible(3):
        first = torch.rand(3)
    with reproducible(3):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
