"""What a searcher and a trial scheduler find, by what their networks are truly worth, at budgets of 16, 64, 256 trials.

A method has as many epochs as random search trains for so many full trials, and draws trials while they fit in;
curves and proxies are paid from the same. It delivers what is on the front of its finished trials by the noisy
validation figures that it saw. Counted is the hypervolume of (top1 without noise, sparsity) of those, over the dense
network's top1 less 5 points (beside it, less 3) and no sparsity. A lucky figure counts for nothing. On real runs the
test split takes the place of what is without noise.

    python benchmarks/search_quality.py                          # made-up networks (search_surfaces.py)
    python benchmarks/search_quality.py --only evolution+none    # adds a row to what is kept
    python benchmarks/search_quality.py --surfaces real          # a surface learned from real trials, trained on a miss
    python benchmarks/search_quality.py --trained --budgets 16   # every trial really trained

Printed, one table a surface and budget: the volume over random search's, the share of what is possible, the epochs
until 99 % of random search's final volume as a share of all its epochs and as a share of those that it took itself to
get there (medians and ranges over seeds, each another network; ``inf``: never). Then what follows. A method is searched
with the sweep's own decisions (`raydistill.search`), without Ray; runs are kept in --work and not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from search_methods import BASE, DEFAULT, LEVELS, OPTUNA, REFERENCES, Method
from search_surfaces import HELD_OUT, POINTS, SURFACES, Curve, make_surface, volume

from raydistill.files import write_atomically
from raydistill.search import Objective, pareto_rank
from raydistill.search.constraints import Constraint
from raydistill.search.decisions import GO_ON, PAUSE
from raydistill.search.search import NEW, RESUME
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection
from raydistill.sweep.planning.methods import make_search, rungs

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
NEVER = math.inf
Line = list[list[float]]
"""[epochs spent, volume over 5 points, over 3 points], each time that one of them changed, and at the end."""


def search_once(
    method: Method,
    source: Any,
    trials: int,
    seed: int,
    workers: int,
    more: Mapping[str, Any] | None = None,
    constraints: Sequence[Constraint] = (),
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(epochs spent so far, seen, true) of each trial that finishes, as they do; both (top1, sparsity).

    more: is offered to the searcher too. constraints: steer the search as a sweep's do.

    Workers train in step. A trial is started when its whole length fits into what is left, so the budget is never
    exceeded but by confirmations. With `confirm`, members of the front come once more at the end, with their means.
    """
    epochs, budget = source.epochs, float(trials * source.epochs)
    curves, beside = source.measured(LEVELS, seed) if method.curves else (None, 0.0)
    rules = source.by_rules() if method.placed else None
    offered = {"curves": curves, "sizes": source.weights, "count": trials, "allocations": rules, **(more or {})}
    searcher = method.make(source.space, seed, trials, offered)
    scheduling = TrialSchedulerSection(**method.scheduling(source.pruned))
    known = method.searcher["name"] if method.searcher["name"] in SearcherSection.uses else "random"
    search = make_search(
        SearcherSection(name=known), scheduling, searcher, OBJECTIVES, epochs, 64 * trials, constraints=constraints
    )
    every = scheduling.name not in ("none", "asha", "moasha", "hyperband")
    told = range(1, epochs + 1) if every else sorted({*rungs(scheduling, epochs), epochs})
    running: dict[int, tuple[int, Curve]] = {}  # the step since when, and its figures
    done: dict[int, int] = {}
    queue: list[tuple[int, int, int]] = []  # (the step at which it is compared next, order, trial)
    found: list[tuple[np.ndarray, np.ndarray, int]] = []
    trained = order = now = 0

    def proceed(trial: int) -> None:
        nonlocal order
        order += 1
        reached = next(epoch for epoch in told if epoch > done[trial])
        heapq.heappush(queue, (now + reached - done[trial], order, trial))

    while True:
        while len(running) < workers:
            committed = trained + sum(epochs - done[trial] for trial in running) + beside
            if committed + getattr(searcher, "spent_epochs", 0.0) + epochs > budget + 1e-6:
                break
            if (wanted := search.next()).kind not in (NEW, RESUME):
                break
            trial = wanted.trial
            curve = source.train(seed, search.observations[trial].values, done.setdefault(trial, 0))
            running[trial] = (now, curve)
            proceed(trial)
        if not queue:
            break
        now, _, trial = heapq.heappop(queue)
        since, curve = running[trial]
        for _ in range(now - since):
            figures = next(curve)
        trained += now - since
        done[trial] += now - since
        running[trial] = (now, curve)
        verdict = search.result(trial, done[trial], figures)
        if verdict.action == GO_ON and done[trial] < epochs:
            proceed(trial)
            continue
        running.pop(trial)[1].close()
        if verdict.action == PAUSE:
            search.pause(trial)
            continue
        search.ended(trial)
        if verdict.action == GO_ON:
            under_way = sum(now - began for began, _ in running.values())
            spent = trained + under_way + beside + getattr(searcher, "spent_epochs", 0.0)
            seen = np.array([figures["top1"], figures["sparsity"]])
            true = source.delivered(seed, search.observations[trial].values)
            found.append((seen, true, trial))
            yield spent, seen, true
    spent = trained + beside + getattr(searcher, "spent_epochs", 0.0)
    for seen, true, trial in [found[i] for i in front([seen for seen, _, _ in found])] if method.confirm else []:
        values, means = search.observations[trial].values, [seen]
        for again in range(1, method.confirm + 1):
            *_, figures = source.train(seed + 1000 * again, values, 0)
            means.append(np.array([figures["top1"], figures["sparsity"]]))
        spent += method.confirm * epochs
        seen[:] = np.mean(means, axis=0).round(12)  # in place: it is one of those that were handed out
        yield spent, seen, true


def front(seen: Sequence[np.ndarray]) -> list[int]:
    """Those that a sweep would deliver."""
    if not seen:
        return []
    return np.flatnonzero(pareto_rank(np.array(seen), ["max", "max"]) == 0).tolist()


def grown(finished: Iterator[tuple[float, np.ndarray, np.ndarray]], dense: float) -> Line:
    """The volumes of what would be delivered after each finished trial."""
    seen: list[np.ndarray] = []
    true: list[np.ndarray] = []
    line: Line = []
    spent = 0.0
    for spent, figures, truth in finished:
        if not any(figures is one for one in seen):
            seen.append(figures)
            true.append(truth)
        delivered = np.array([true[i] for i in front(seen)])
        volumes = [round(volume(delivered, dense, below), 7) for below in POINTS.values()]
        if not line or line[-1][1:] != volumes:
            line.append([round(spent, 2), *volumes])
    if not line or line[-1][0] != round(spent, 2):
        line.append([round(spent, 2), *(line[-1][1:] if line else [0.0] * len(POINTS))])
    return line


def reached(line: Line, goal: float) -> float:
    """Epochs until the volume over 5 points came to the goal."""
    return next((spent for spent, found, *_ in line if found >= goal > 0.0), NEVER)


def all_of(
    place: str, seed: int, wanted: Sequence[tuple[Method, int, int]], options: argparse.Namespace
) -> tuple[str, int, dict[str, float], dict[str, Line], int]:
    """One seed of a surface, by itself in a process: what is possible, and the line of each method, budget, workers."""
    source = surface_of(place, seed, options)
    lines = {}
    for method, trials, workers in wanted:
        source.forget()
        finished = search_once(method, source, trials, seed, workers)
        lines[key(method, trials, workers)] = grown(finished, source.dense)
    return place, seed, source.possible(), lines, source.epochs


def surface_of(place: str, seed: int, options: argparse.Namespace) -> Any:
    if place == "trained":
        from search_real import Simplenet

        return Simplenet(options, seed)
    return learned(options) if place == "real" else make_surface(place, seed)


_LEARNED: list[Any] = []  # learned once a process


def learned(options: argparse.Namespace) -> Any:
    from search_real import Simplenet
    from search_surrogate import Surrogate

    if not _LEARNED:
        _LEARNED.append(Surrogate(Simplenet(options), options.table, options.work))
    return _LEARNED[0]


def key(method: Method, trials: int, workers: int) -> str:
    return f"{method.name} {trials}x{workers}"


class Kept:
    """The runs of one surface, a JSON file: {"code", "epochs", "possible": {seed: ...}, "runs": {key: {seed: line}}}.

    Runs are dropped where the surface's code is another; those of a method where its sections are.
    """

    def __init__(self, work: Path, place: str, methods: Sequence[Method], again: bool) -> None:
        self.file = work / f"{place}.json"
        here = Path(__file__).parent
        parts = {"real": ("real", "surrogate"), "trained": ("real",)}.get(place, ("surfaces",))
        code = b"".join((here / f"search_{part}.py").read_bytes() for part in parts)
        self.code = hashlib.sha256(code).hexdigest()[:12]
        content = json.loads(self.file.read_text()) if self.file.exists() else {}
        if content.get("code") != self.code:
            content = {}
        self.possible: dict[str, dict[str, float]] = content.get("possible", {})
        self.runs: dict[str, dict[str, Line]] = content.get("runs", {})
        self.sections: dict[str, Any] = content.get("sections", {})
        self.epochs: int = content.get("epochs", 0)
        for method in methods:
            said = json.loads(json.dumps(asdict(method)))
            if again or self.sections.get(method.name) != said:
                for name in [name for name in self.runs if name.partition(" ")[0] == method.name]:
                    del self.runs[name]
            self.sections[method.name] = said

    def missing(self, seed: int, wanted: Sequence[tuple[Method, int, int]]) -> list[tuple[Method, int, int]]:
        return [one for one in wanted if str(seed) not in self.runs.get(key(*one), {})]

    def add(self, seed: int, possible: dict[str, float], lines: dict[str, Line], epochs: int) -> None:
        self.possible[str(seed)], self.epochs = possible, epochs
        for name, line in lines.items():
            self.runs.setdefault(name, {})[str(seed)] = line
        content = {"code": self.code, "epochs": self.epochs, "sections": self.sections, "possible": self.possible}
        write_atomically(self.file, json.dumps({**content, "runs": self.runs}).encode())

    def lines(self, name: str, trials: int, workers: int, seeds: int) -> list[Line]:
        """Seed by seed; none where one of the seeds was not run."""
        kept = self.runs.get(f"{name} {trials}x{workers}", {})
        return [kept[str(seed)] for seed in range(seeds)] if all(str(seed) in kept for seed in range(seeds)) else []

    def shares(self, name: str, trials: int, workers: int, seeds: int, which: int = 1) -> list[float]:
        """Of what is possible, seed by seed."""
        reference = list(POINTS)[which - 1]
        lines = self.lines(name, trials, workers, seeds)
        return [line[-1][which] / self.possible[str(seed)][reference] for seed, line in enumerate(lines)]


def table(kept: Kept, names: Sequence[str], trials: int, workers: int, seeds: int) -> list[str]:
    """Rows of 80 columns at most, the best first."""
    base = kept.lines(BASE, trials, workers, seeds)
    whole = trials * kept.epochs
    rows = []
    for name in names:
        lines = kept.lines(name, trials, workers, seeds)
        if not lines:
            continue
        pairs = [(line, own) for line, own in zip(lines, base, strict=False) if own[-1][1] > 0.0]
        gained = [line[-1][1] / own[-1][1] for line, own in pairs]
        needed = [(reached(line, 0.99 * own[-1][1]), reached(own, 0.99 * own[-1][1])) for line, own in pairs]
        of_all, of_own = [mine / whole for mine, _ in needed], [mine / own for mine, own in needed]
        five, three = (statistics.mean(kept.shares(name, trials, workers, seeds, which)) for which in (1, 2))
        said = f"{_middle(gained)} {five:5.0%} {three:4.0%}  {_middle(of_all)} {_middle(of_own, short=True)}"
        rows.append((-five, f"{name:21} {said}"))
    head = f"{trials} trials, {workers} at once, {len(base)} seeds"
    return [
        f"{head:32} {'volume':>6}{'of possible':>13}  epochs to random's 99 %",
        f"{'':21} {'random is 1':18} 5 pt 3 pt  {'of all its':17} of its own",
        *(row for _, row in sorted(rows, key=lambda one: one[0])),
    ]


def _middle(figures: Sequence[float], short: bool = False) -> str:
    """The median and the range; where half of the seeds never got there it is inf."""
    if not figures:
        return "  -" if short else f"{'  -':18}"
    middle, low, high = (
        f"{x:4.2f}" if x < 10 else f"{x:.0f}" for x in (statistics.median(figures), min(figures), max(figures))
    )
    return f"{middle:>4}" if short else f"{f'{middle:>4} ({low}-{high})':18}"


def follows(
    all_kept: dict[str, Kept], names: Sequence[str], budgets: Sequence[int], workers: Sequence[int], seeds: int
) -> list[str]:
    """The mean share of what is possible of every method, on the surfaces tuned on and on those held out; then which is
    best: of what a sweep has, and of the trial schedulers that random search was tried with."""
    lines = ["what follows: the share of what is possible (5 points), the mean over surfaces and seeds"]
    for at_once in workers:
        scores = {trials: {n: _means(all_kept, n, trials, at_once, seeds) for n in names} for trials in budgets}
        heads = "".join(f"{f'{trials} trials':>19}" for trials in budgets)
        lines += ["", f"{f'{at_once} at once':21}{heads}", f"{'':21}" + f"{'tuned on  held out':>19}" * len(budgets)]
        for name in sorted(names, key=lambda name: -scores[budgets[-1]][name][2]):
            parts = [scores[trials][name][:2] for trials in budgets]
            figures = "".join(f"{_share(tuned):>10}{_share(held):>9}" for tuned, held in parts)
            if figures.strip():
                lines.append(f"{name:21}{figures}")
    lines.append("")
    for trials in budgets:
        for at_once in workers:
            said = f"{trials} trials, {at_once} at once: "
            sweeps = [name for name in names if name.partition("+")[0] not in REFERENCES]
            for among in (sweeps, [name for name in names if name.startswith("random+")]):
                means = {name: _means(all_kept, name, trials, at_once, seeds)[2] for name in among}
                ranked = sorted((name for name in means if means[name] >= 0.0), key=lambda name: -means[name])
                if len(ranked) > 1:
                    wins = _wins(all_kept, *ranked[:2], trials, at_once, seeds)
                    lines.append(f"{said}{ranked[0]}; against {ranked[1]} {wins}")
                    said = " " * len(said)
    return lines


def _share(figure: float) -> str:
    return "" if math.isnan(figure) else f"{figure:.1%}"


def _means(all_kept: dict[str, Kept], name: str, trials: int, at_once: int, seeds: int) -> tuple[float, float, float]:
    """Over the surfaces tuned on, those held out, and all of them; NaN over none. A method that was not run on all of
    them is compared on none: its surfaces may be the easy ones."""
    found = {place: kept.shares(name, trials, at_once, seeds) for place, kept in all_kept.items()}
    if not all(found.values()):
        return math.nan, math.nan, -1.0
    means = {place: statistics.mean(shares) for place, shares in found.items() if shares}
    parts = [[v for p, v in means.items() if (p in HELD_OUT) == held] for held in (False, True)]
    tuned, held = (statistics.mean(part) if part else math.nan for part in parts)
    return tuned, held, statistics.mean(means.values()) if means else -1.0


def _wins(all_kept: dict[str, Kept], first: str, second: str, trials: int, at_once: int, seeds: int) -> str:
    """In how many of the seeds of all surfaces the first beat the second, and was beaten."""
    pairs = [
        pair
        for kept in all_kept.values()
        for pair in zip(
            kept.shares(first, trials, at_once, seeds), kept.shares(second, trials, at_once, seeds), strict=False
        )
    ]
    better, worse = (sum(sign * (one - other) > 0 for one, other in pairs) for sign in (1, -1))
    return f"better in {better}, worse in {worse} of {len(pairs)}"


def plot(all_kept: dict[str, Kept], names: Sequence[str], trials: int, workers: int, seeds: int, file: Path) -> None:
    """The share of what is possible as epochs are spent, a panel a surface: medians over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(all_kept))
    height = math.ceil(len(all_kept) / columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(4.2 * columns, 3.2 * height), squeeze=False, layout="constrained"
    )
    colours = plt.get_cmap("tab20")
    grid = np.linspace(0.0, 1.0, 101)
    for axis, (place, kept) in zip(axes.flat, all_kept.items(), strict=False):
        for number, name in enumerate(names):
            lines, whole = kept.lines(name, trials, workers, seeds), trials * kept.epochs
            shares = [
                [
                    next((v for e, v, *_ in reversed(line) if e <= x * whole), 0.0)
                    / kept.possible[str(seed)]["5 points"]
                    for x in grid
                ]
                for seed, line in enumerate(lines)
            ]
            if shares:
                axis.plot(
                    grid, np.median(shares, axis=0), color=colours(number % 20), label=name, lw=2 if name == BASE else 1
                )
        axis.set_title(place + (" (held out)" if place in HELD_OUT else ""), fontsize=10)
    for axis in list(axes.flat)[len(all_kept) :]:
        axis.set_visible(False)
    figure.supxlabel(f"epochs spent, of {trials} full trials")
    figure.supylabel("volume, of what is possible")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right", fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", nargs="+", default=list(SURFACES), help=f"of {', '.join(SURFACES)}, real")
    parser.add_argument("--only", nargs="+", default=[], help="methods to run, beside random+none; all kept are shown")
    parser.add_argument("--methods", type=Path, help="a YAML file of methods: see search_methods.py")
    parser.add_argument("--optuna", action="store_true", help=f"run {', '.join(OPTUNA)} too: slow")
    parser.add_argument("--again", action="store_true", help="forget the kept runs of the methods that are run")
    parser.add_argument("--budgets", nargs="+", type=int, default=[16, 64, 256], help="trials")
    parser.add_argument("--workers", nargs="+", type=int, default=[4, 1, 32], help="trials at once; tables: the first")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("search_quality"), help="where runs are kept")
    parser.add_argument("--plot", type=Path, default=Path("search_quality.png"))
    real = parser.add_argument_group("real trials (--surfaces real, --trained)")
    real.add_argument("--trained", action="store_true", help="every trial is really trained, none learned or made up")
    real.add_argument("--data-dir", help="CIFAR-10; left out, scikit-learn's digits")
    real.add_argument("--space", type=Path, default=Path(__file__).parents[1] / "search_spaces" / "simplenet.yaml")
    real.add_argument("--epochs", type=int, default=12, help="of a trial")
    real.add_argument("--baseline", type=Path, help="a dense checkpoint; left out, one is trained for each seed")
    real.add_argument("--table", type=int, default=200, help="real trials that the surface is learned from")
    real.add_argument("--part", type=float, help="of the training images, in each epoch; default 0.1, of digits all")
    options = parser.parse_args()
    places = ["trained"] if options.trained else options.surfaces
    try:
        methods = [Method.of(name) for name in dict.fromkeys((BASE, *(options.only or DEFAULT)))]
        methods += [Method.of(name) for name in OPTUNA] if options.optuna else []
        if options.methods:
            import yaml

            said = yaml.safe_load(options.methods.read_text())
            methods += [Method(name, **sections) for name, sections in said.items()]
    except ValueError as error:
        sys.exit(f"error: {error}")
    unknown = [place for place in places if place not in (*SURFACES, "real", "trained")]
    if unknown:
        sys.exit(f"error: no surface {unknown[0]}; there are {', '.join(SURFACES)}, real")
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = [
        (method, trials, at_once) for method in methods for trials in options.budgets for at_once in options.workers
    ]
    all_kept = {place: Kept(options.work, place, methods, options.again) for place in places}
    began = time.monotonic()
    jobs = [
        (place, seed, missing)
        for place, kept in all_kept.items()
        for seed in range(options.seeds)
        if (missing := kept.missing(seed, wanted))
    ]
    if "real" in places and any(place == "real" for place, *_ in jobs):
        surface = surface_of("real", 0, options)  # trains what both processes need
        print(
            f"real: top1 of half of the trials varies by {surface.spread:.4f}, the fit is wrong by {surface.error:.4f}"
        )
    with ProcessPoolExecutor(options.processes) as pool:
        running = [pool.submit(all_of, place, seed, missing, options) for place, seed, missing in jobs]
        for number, job in enumerate(as_completed(running), 1):
            place, seed, possible, lines, epochs = job.result()
            all_kept[place].add(seed, possible, lines, epochs)
            if number % 10 == 0 and sys.stderr.isatty():
                print(f"{number} of {len(jobs)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    names = list(dict.fromkeys([m.name for m in methods] + [n for kept in all_kept.values() for n in kept.sections]))
    for place, kept in all_kept.items():
        print(f"\n== {place}{' (held out of tuning)' if place in HELD_OUT else ''}, {kept.epochs} epochs a trial")
        for trials in options.budgets:
            print("\n".join(["", *table(kept, names, trials, options.workers[0], options.seeds)]))
    print("\n".join(["", *follows(all_kept, names, options.budgets, options.workers, options.seeds)]))
    middle = options.budgets[len(options.budgets) // 2]
    plot(all_kept, names, middle, options.workers[0], options.seeds, options.plot)
    print(f"\n{len(jobs)} runs took {time.monotonic() - began:.0f} s; plot: {options.plot}; kept: {options.work}")


if __name__ == "__main__":
    main()
