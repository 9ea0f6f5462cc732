"""benchmarks/search_quality.py counts what networks are truly worth, and every epoch that it took to find them."""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import search_ablation
import search_methods
import search_quality
import search_surfaces
from search_methods import BASE, Method
from search_surfaces import SURFACES, Surface, make_surface, volume

from raydistill import datasets
from raydistill.parts import DatasetConfig
from raydistill.search.searchers import RandomSearcher
from raydistill.tasks.classification import Classification
from raydistill.training import evaluate_checkpoint

ROOT = Path(__file__).parents[2]


def drawn(surface: Surface, count: int, seed: int = 7) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [surface.space.sample(rng) for _ in range(count)]


@pytest.mark.parametrize("kind", ["additive2", "misled2", "interacting2"])
def test_no_network_of_a_fine_grid_passes_the_optimum_and_the_best_come_close(kind: str) -> None:
    surface = make_surface(kind, 3)
    units = np.array(list(itertools.product(np.linspace(0.0, 1.0, 150), repeat=2)))
    for name, found in surface.possible().items():
        grid = volume(surface.true(units), surface.dense, search_surfaces.POINTS[name])
        assert 0.97 * found < grid < 1.01 * found


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_what_a_trial_shows_is_its_true_worth_and_noise(name: str) -> None:
    """Of every kind and size: over many repeats the last figure's mean is the true one, and none is it."""
    surface = make_surface(name, 1)
    (values,) = drawn(surface, 1)
    truth = surface.delivered(0, values)
    last = np.array([surface.trial(seed, values)[0][-1]["top1"] for seed in range(300)])
    noise = np.hypot(*surface.noise)
    assert abs(last.mean() - truth[0]) < 5 * noise / np.sqrt(300)
    assert last.std() == pytest.approx(noise, rel=0.2)
    figures = list(surface.train(0, values, 0))
    assert len(figures) == surface.epochs
    assert list(surface.train(0, values, 10)) == figures[10:]
    levels = np.array([values[d.path] for d in surface.space.dimensions if d.weight])
    assert truth[1] == pytest.approx((levels * surface.sizes).sum() / surface.sizes.sum())
    assert figures[surface.pruned - 1]["sparsity"] == pytest.approx(truth[1])  # the masks are final
    assert figures[0]["sparsity"] < truth[1]
    top1 = surface.true(surface.space.to_unit(values)[None])[0, 0]
    assert truth[0] <= top1 < truth[0] + 0.005  # little is left to recover at the end


@pytest.mark.slow
def test_a_random_trial_loses_a_few_points_everywhere() -> None:
    for name in SURFACES:
        surface = make_surface(name, 4)
        lost = [surface.dense - surface.delivered(0, values)[0] for values in drawn(surface, 60)]
        assert 0.02 < np.mean(lost) < 0.09, name


def test_curves_are_right_by_a_factor_where_damage_adds_up_and_mislead_where_it_is_said() -> None:
    """A layer's damage for good, at 60 %, over what its one-shot curve says."""
    ratios = {}
    for kind in ("additive21", "misled21"):
        surface = make_surface(kind, 2)
        alone = surface.each(np.full((1, 21), 0.6))[0]
        ratios[kind] = np.array([surface.damage_curve(i, 0.6) for i in range(21)]) / alone
    assert ratios["additive21"].max() / ratios["additive21"].min() < 1.3
    assert ratios["misled21"].max() / ratios["misled21"].min() > 8
    curves, cost = make_surface("additive21", 2).measured((0.6, 0.9), 0)
    assert len(curves) == 21
    assert all([level for level, _ in curve] == [0.6, 0.9] for curve in curves.values())
    assert cost == pytest.approx(0.04 * 43)


def finished(name: str, trials: int, workers: int = 1, place: str = "additive5") -> list:
    return list(search_quality.search_once(Method.of(name), make_surface(place, 0), trials, 0, workers))


@pytest.mark.parametrize("workers", [1, 3])
def test_random_search_trains_its_trials_to_their_end(workers: int) -> None:
    found = finished(BASE, 6, workers)
    assert len(found) == 6
    assert found[-1][0] == 6 * 40
    assert found[0][0] == workers * 40
    surface = make_surface("additive5", 0)
    expected = surface.delivered(0, RandomSearcher(surface.space, 0).suggest(0, (), ()))
    assert found[0][2] == pytest.approx(expected)


@pytest.mark.parametrize(
    "scheduling", ["asha", "hyperband", "median", "moasha", "promote", "moasha_late", "promote_late"]
)
@pytest.mark.parametrize("workers", [1, 8])
def test_who_stops_trials_draws_more_of_them_for_the_same_epochs(scheduling: str, workers: int) -> None:
    found = finished(f"random+{scheduling}", 16, workers)
    assert len(found) >= 3
    assert 0.7 * 640 < found[-1][0] <= 640
    assert [spent for spent, *_ in found] == sorted(spent for spent, *_ in found)


def test_curves_and_confirmations_are_paid_for() -> None:
    plain, curved = finished("even+none", 4), finished("even+none+curves", 4)
    cost = 0.04 * (1 + 5 * len(search_methods.LEVELS))
    assert len(curved) == len(plain) - 1  # one trial does not fit in any more
    assert curved[0][0] == pytest.approx(plain[0][0] + cost)
    confirmed = finished("random+none+confirm2", 4)
    on_front = search_quality.front([seen for _, seen, _ in finished(BASE, 4)])
    assert len(confirmed) == 4 + len(on_front)
    assert confirmed[-1][0] == 4 * 40 + len(on_front) * 2 * 40


@pytest.mark.slow
def test_placed_trials_come_first_and_their_curves_are_paid_for() -> None:
    """Behind them come the searcher's own first ones."""
    surface = make_surface("additive5", 0)
    method = Method.of("random+none+placed")
    assert (method.curves, method.placed) == (True, "placed")
    found, plain = finished("random+none+placed", 12), finished(BASE, 12)
    cost = 0.04 * (1 + 5 * len(search_methods.LEVELS))
    assert found[0][0] == pytest.approx(40 + cost)
    assert [tuple(true) for _, _, true in found[8:]] == [tuple(true) for _, _, true in plain[: len(found) - 8]]
    assert {rule: len(rows) for rule, rows in surface.by_rules().items()} == {"erk": 16, "uniform": 16}
    by_curves = finished("random+none+bycurves", 12)
    same = [tuple(one[2]) == tuple(other[2]) for one, other in zip(found, by_curves, strict=True)]
    assert same == [True, True, True, False, True, True, True, False, True, True, True]


@pytest.mark.slow
def test_a_bound_that_steers_keeps_more_of_what_is_found() -> None:
    steered, blind = (search_ablation.kept_volume("misled21", 16, 0, 4, steers) for steers in (True, False))
    assert steered > blind > 0.0


class Proxied(RandomSearcher):
    spent_epochs = 0.0

    def suggest(self, trial, seen, stages):
        self.spent_epochs += 2.5
        return super().suggest(trial, seen, stages)


def test_what_a_searcher_spends_beside_trials_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search_methods.REFERENCES, "proxied", Proxied)
    found = finished("proxied+none", 4)
    assert [spent for spent, *_ in found] == [42.5, 85.0, 127.5]


def test_what_is_delivered_is_chosen_by_what_was_seen_and_counted_by_what_is_true() -> None:
    """Dense 0.75, so the references are (0.70, 0) and (0.72, 0). The second looks better in both and is worse."""
    told = [
        (40.0, (0.74, 0.5), (0.73, 0.5)),  # 0.03 * 0.5, 0.01 * 0.5
        (80.0, (0.745, 0.6), (0.71, 0.6)),  # it takes the first one's place: 0.01 * 0.6, 0
        (120.0, (0.73, 0.9), (0.725, 0.9)),  # covers it: 0.025 * 0.9, 0.005 * 0.9
        (160.0, (0.60, 0.1), (0.74, 0.1)),  # behind the front, whatever it is worth
    ]
    line = search_quality.grown(((spent, np.array(seen), np.array(true)) for spent, seen, true in told), 0.75)
    assert line == [
        [40.0, pytest.approx(0.015), pytest.approx(0.005)],
        [80.0, pytest.approx(0.006), 0.0],
        [120.0, pytest.approx(0.0225), pytest.approx(0.0045)],
        [160.0, pytest.approx(0.0225), pytest.approx(0.0045)],
    ]
    assert search_quality.reached(line, 0.01) == 40.0
    assert search_quality.reached(line, 0.016) == 120.0
    assert search_quality.reached(line, 0.03) == search_quality.NEVER
    assert search_quality.reached(line, 0.0) == search_quality.NEVER  # random search found nothing to compare with


def test_levels_by_measured_curves_are_those_with_the_least_loss_in_sum() -> None:
    """Two layers of one size: every loss of the first is worth a hundredth of the second's."""
    surface = make_surface("additive2", 0)
    first, second = surface.names
    curves = {first: [(0.5, 0.0001), (0.99, 0.001)], second: [(0.5, 0.01), (0.99, 0.1)]}
    searcher = search_methods.Priced(surface.space, 0, curves, {first: 10.0, second: 10.0})
    for trial in range(8):
        one, other = (float(v) for v in searcher.suggest(trial, (), ()).values())
        wanted = 0.4 + 0.59 * ((trial + 1) * 0.6180339887498949 % 1.0)  # of both, evenly over the range
        assert one == pytest.approx(min(0.99, 2 * wanted), abs=0.011)
        assert one + other == pytest.approx(2 * wanted)


@pytest.mark.parametrize("wrong", ["randum+none", "random+stop", "random+none+often"])
def test_an_unknown_method_is_said(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"no method .*{wrong[:6]}"):
        Method.of(wrong)


def make_kept(work: Path, place: str, methods: list[Method], options: argparse.Namespace) -> search_quality.Kept:
    kept = search_quality.Kept(work, place, methods, again=False)
    work.mkdir()
    for seed in range(2):
        wanted = [(method, 2, 1) for method in methods]
        kept.add(*search_quality.all_of(place, seed, wanted, options)[1:])
    return kept


@pytest.mark.slow
def test_kept_runs_are_added_to_and_forgotten_with_what_made_them(tmp_path: Path) -> None:
    base, other = Method.of(BASE), Method.of("sobol+none")
    kept = search_quality.Kept(tmp_path, "additive5", [base, other], again=False)
    wanted = [(base, 2, 1), (other, 2, 1)]
    options = argparse.Namespace()
    for seed in range(2):
        kept.add(*search_quality.all_of("additive5", seed, wanted, options)[1:])
    rows = search_quality.table(kept, [BASE, "sobol+none"], 2, 1, 2)
    assert len(rows) == 4
    assert max(map(len, rows)) <= 80
    assert any("random+none" in row and "1.00 (1.00-1.00)" in row for row in rows)
    assert kept.lines(BASE, 2, 1, 3) == []  # of three seeds one is missing
    more = make_kept(tmp_path / "more", "rates5", [base], options)
    both = search_quality.follows({"additive5": kept, "rates5": more}, [BASE, "sobol+none"], [2], [1], 2)
    assert not any("sobol" in line for line in both), "not run on both surfaces"
    again = search_quality.Kept(tmp_path, "additive5", [base], again=False)
    assert again.missing(0, wanted) == []
    assert again.missing(2, wanted) == wanted
    changed = search_quality.Kept(tmp_path, "additive5", [replace(base, confirm=1)], again=False)
    assert changed.missing(0, wanted) == [(base, 2, 1)]
    assert search_quality.Kept(tmp_path, "additive5", [other], again=True).missing(0, wanted) == [(other, 2, 1)]
    said = search_quality.follows({"additive5": kept}, [BASE, "sobol+none"], [2], [1], 2)
    assert max(map(len, said)) <= 90
    means = {line.split()[0]: line.split()[1] for line in said if line.startswith(("random+", "sobol+"))}
    shares = [line[-1][1] / kept.possible[str(seed)]["5 points"] for seed, line in enumerate(kept.lines(BASE, 2, 1, 2))]
    assert means[BASE] == f"{sum(shares) / 2:.1%}"
    better = max(means, key=lambda name: float(means[name].rstrip("%")))
    assert any(line.startswith(f"2 trials, 1 at once: {better}; against ") for line in said)


@pytest.mark.slow
def test_real_trials_are_kept_and_counted_by_the_test_split_and_a_surface_is_learned_from_them(tmp_path: Path) -> None:
    space = yaml.safe_load((ROOT / "search_spaces" / "simplenet.yaml").read_text())
    space["baseline"] = {"epochs": 4, "lr": 0.05}
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space))
    options = argparse.Namespace(
        epochs=3, work=tmp_path / "work", data_dir=None, space=file, part=0.5, baseline=None, table=10
    )
    surface = search_quality.surface_of("trained", 0, options)
    assert (surface.epochs, surface.pruned) == (3, 2)  # 45 of 60
    found = list(search_quality.search_once(Method.of(BASE), surface, 2, 0, 1))
    assert [spent for spent, *_ in found] == [3.0, 6.0]
    latest = max((tmp_path / "work").glob("*/checkpoint.pt"), key=lambda file: file.stat().st_mtime_ns)
    task = Classification(datasets.load(DatasetConfig("digits")))
    test = evaluate_checkpoint(latest, task, "test", "cpu").metrics["top1"]
    seen, true = found[-1][1:]
    assert true[0] == pytest.approx(test)
    assert true[1] == pytest.approx(seen[1], abs=1e-6)  # what is planned is what is there
    before = sorted((tmp_path / "work").iterdir())
    again = list(search_quality.search_once(Method.of(BASE), surface, 2, 0, 1))
    assert sorted((tmp_path / "work").iterdir()) == before
    assert np.array_equal(again[-1][1], seen)
    curves, cost = surface.measured((0.5, 0.99), 0)
    assert cost == pytest.approx(0.04 * 11)
    assert sum(lost for curve in curves.values() for _, lost in curve[1:]) > 0.1  # 99 % of any layer hurts
    learned = search_quality.surface_of("real", 0, options)
    assert learned.true(np.full((1, 6), 0.1))[0, 1] == pytest.approx(0.099, abs=0.001)
    figures, truth = learned.trial(0, learned.space.sample(np.random.default_rng(0)))
    assert len(figures) == 3
    assert 0.0 < truth[0] < 1.0
