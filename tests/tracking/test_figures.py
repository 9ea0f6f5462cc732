from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import StorageError
from raydistill.metrics import Metric
from raydistill.records import BASELINE
from raydistill.search import Objective, front_rows
from raydistill.search.constraints import Constraint
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import front_png, front_table
from raydistill.tracking.figures import (
    SPREAD,
    axes,
    axis_label,
    draw_front,
    figure_of,
    front_title,
    known_figures,
    with_spread,
)
from raydistill.tracking.front_files import write_front
from tests.tracking.test_front_page import data_of

TWO = (Objective("top1", "max"), Objective("sparsity", "max"))
THREE = (*TWO, Objective("loss", "min"))


def pixels(path: Path) -> np.ndarray:
    import matplotlib.image

    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)


def count(picture: np.ndarray, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(picture - rgb).max(axis=-1) <= 6).sum())


def test_the_table_has_both_splits_and_the_searched_values(records, evaluation) -> None:
    records[1] = dataclasses.replace(records[1], test=evaluation(0.75), checkpoint="/x/t0000/checkpoint.pt")
    table = front_table(front_rows(records, TWO), METRICS)
    assert table["trial_id"].tolist() == [BASELINE, "t0000", "t0001"]
    line = table.set_index("trial_id").loc["t0000"]
    assert (line["pareto"], line["pareto_rank"], line["top1"], line["test_top1"]) == (True, 0, 0.85, 0.75)
    assert line["checkpoint"] == "/x/t0000/checkpoint.pt"
    assert line["pruners.conv1_pruner.final_sparsity"] == 0.5
    assert table["test_top1"].isna().tolist() == [True, False, True]
    assert table["knee"].tolist().count(True) == 1


@pytest.mark.slow
def test_files_are_written_whole_and_read_back(records, tmp_path: Path) -> None:
    paths = write_front(front_rows(records, TWO), TWO, METRICS, tmp_path, "simplenet")
    assert [path.name for path in paths] == ["pareto.csv", "pareto.png", "pareto.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pareto.csv", "pareto.html", "pareto.png"]
    lines = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [(line["trial_id"], float(line["top1"])) for line in lines] == [
        (BASELINE, 0.9), ("t0000", 0.85), ("t0001", 0.8),
    ]  # fmt: skip


def test_a_full_or_read_only_folder_is_one_line(records, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        write_front(front_rows(records, TWO), TWO, METRICS, tmp_path / "file" / "sub", "simplenet")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_each_point_stands_where_its_trial_is_and_the_legend_names_them(records) -> None:
    (plot,) = draw_front(front_rows(records, TWO), TWO, METRICS, "title").axes
    points = {each.get_label(): each.get_offsets().tolist() for each in plot.collections}
    found = {record.trial_id: [record.last.sparsity, record.last.metrics["top1"]] for record in records}
    assert points["dense baseline"] == [found[BASELINE]]
    assert points["Pareto front"] + points["dominated"] == [found["t0000"], found["t0001"]]
    assert points["knee"][0] in found.values()
    legend = [text.get_text() for text in plot.get_legend().get_texts()]
    assert {"dense baseline", "Pareto front", "dominated", "knee"} <= set(legend)


@pytest.mark.slow
def test_the_picture_shows_front_rest_baseline_and_knee(records, tmp_path: Path) -> None:
    path = tmp_path / "pareto.png"
    front_png(front_rows(records, TWO), TWO, METRICS, path, "title")
    everything = pixels(path)
    assert everything.shape[0] > 600
    for colour in ("#1f5fa8", "#a9b4c2", "#2b2b2b", "#d1495b"):
        assert count(everything, colour) > 20, colour
    front_png(front_rows(records[:2], TWO), TWO, METRICS, path, "title")
    assert count(pixels(path), "#a9b4c2") < 20  # no dominated trial, no grey


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "kept"), [(TWO, 0), (TWO, 1), (TWO, 2), (THREE, 0), (THREE, 5), (TWO[:1], 5), (THREE[::-1], 5)]
)
def test_any_number_of_trials_and_objectives_is_drawn(records, tmp_path: Path, objectives, kept: int) -> None:
    rows = front_rows(records[:kept], objectives)
    write_front(rows, objectives, METRICS, tmp_path, "simplenet")
    assert pixels(tmp_path / "pareto.png").std() > 5
    assert len(data_of(tmp_path / "pareto.html")["rows"]) == min(kept, len(rows))


@pytest.mark.slow
def test_figures_that_are_nan_are_drawn_around(records, epoch, trial, tmp_path: Path) -> None:
    nan = trial("t0009", last=epoch(2, metrics={"top1": float("nan"), "top5": 1.0, "loss": float("nan")}))
    bare = trial("t0010", last=None)
    write_front(front_rows([*records, nan, bare], THREE), THREE, METRICS, tmp_path, "simplenet")
    assert "t0010" in (tmp_path / "pareto.csv").read_text()


COUNTED = (Objective("top1", "max"), Objective("macs", "min"))


def confirmed(records, evaluation, trial, epoch):
    """t0000 with three seeds: validation 0.85, 0.80 and 0.81, test 0.75, 0.72 and 0.78."""
    records[1] = dataclasses.replace(records[1], test=evaluation(0.75))
    runs = [trial(f"t0000.s{i}", top1, 0.5, confirms="t0000", test=evaluation(test))
            for i, top1, test in ((1, 0.80, 0.72), (2, 0.81, 0.78))]  # fmt: skip
    counted = {"baseline": 650e3, "t0001": 640e3}
    return [
        dataclasses.replace(
            record, last=dataclasses.replace(record.last, footprint={"macs": counted.get(record.trial_id, 300e3)})
        )
        for record in [*records[:3], *runs]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [TWO, COUNTED, (*COUNTED, Objective("sparsity", "max"))])
def test_members_with_several_seeds_stand_at_their_means_with_their_deviation(
    records, evaluation, trial, epoch, tmp_path: Path, objectives
) -> None:
    rows = front_rows(confirmed(records, evaluation, trial, epoch), objectives)
    write_front(rows, objectives, METRICS, tmp_path, "net")
    found = {row["id"]: row for row in data_of(tmp_path / "pareto.html")["rows"]}
    assert found["t0000"]["figures"]["top1"] == pytest.approx(0.82)
    assert {one for one, row in found.items() if row["deviation"]["top1"] is not None} == {"t0000"}
    # of 0.85, 0.80, 0.81: sqrt((9 + 4 + 1) / 2) / 100
    assert found["t0000"]["deviation"]["top1"] == pytest.approx(0.0264575, abs=1e-6)
    assert found["t0000"]["test"]["top1"] == pytest.approx(0.75)  # the mean of the three
    for line in ("top1: 82.00 % ± 2.65 %", "test top1: 75.00 % ± 3.00 %", "3 seeds"):
        assert line in found["t0000"]["lines"]

    with_bars = count(pixels(tmp_path / "pareto.png"), "#1f5fa8")
    alone = [row if not row.repeats else dataclasses.replace(row, repeats=()) for row in rows]
    front_png(alone, objectives, METRICS, tmp_path / "alone.png", front_title(alone, "net"))
    assert with_bars > count(pixels(tmp_path / "alone.png"), "#1f5fa8") + 100


@pytest.mark.slow
def test_large_numbers_have_units(records, evaluation, trial, epoch) -> None:
    """Read off the figure: 300 k, not 300000 or 3e5."""
    from matplotlib.ticker import EngFormatter

    rows = front_rows(confirmed(records, evaluation, trial, epoch), COUNTED)
    (plot,) = draw_front(rows, COUNTED, METRICS, "net").axes
    assert isinstance(plot.xaxis.get_major_formatter(), EngFormatter)
    assert plot.xaxis.get_major_formatter()(300_000) == "300 k"
    assert plot.get_xlabel() == "multiply-accumulates of one sample"


def test_axes() -> None:
    loss = Objective("loss", "min")
    assert axes(TWO, METRICS) == axes(TWO[::-1], METRICS) == ("sparsity", "top1", None)
    assert axes(TWO[:1], METRICS) == ("sparsity", "top1", None)
    assert axes(TWO[1:], METRICS) == ("sparsity", "top1", None)
    assert axes((TWO[0], loss, TWO[1]), METRICS) == ("loss", "top1", "sparsity")
    assert axes((loss, TWO[1]), METRICS) == ("sparsity", "loss", None)
    macs, latency = Objective("macs", "min"), Objective("latency_ms", "min")
    assert axes((TWO[0], macs), METRICS) == axes((macs, TWO[0]), METRICS) == ("macs", "top1", None)
    assert axes((macs, latency, TWO[0]), METRICS) == ("latency_ms", "macs", "top1")


def test_title_counts(records) -> None:
    rows = front_rows(records, TWO)
    assert front_title(rows, "simplenet") == (
        "simplenet: simplenet_cifar on digits, 2 finished trials, 2 of 3 points on the front"
    )
    assert front_title([], "x") == "x: no finished trial yet"


def test_a_line_of_the_table_says_all_of_its_trial(records, evaluation, trial, epoch) -> None:
    runs = confirmed(records, evaluation, trial, epoch)
    table = front_table(front_rows(runs, TWO, (Constraint("sparsity", ">=", 0.45),)), METRICS).set_index("trial_id")
    line = table.loc["t0000"].to_dict()
    assert {key: line[key] for key in ("pareto", "pareto_rank", "sparsity", "seeds", "macs", "epochs", "seed")} == {
        "pareto": True, "pareto_rank": 0, "sparsity": 0.5, "seeds": 3, "macs": 300e3, "epochs": 3, "seed": 7,
    }  # fmt: skip
    assert (line["dataset"], line["arch"], line["infeasible"]) == ("digits", "simplenet_cifar", "")
    assert line["top1_mean"] == pytest.approx(0.82)
    assert line["top1_std"] == pytest.approx(0.0264575, abs=1e-6)
    assert (line["test_top1_mean"], line["test_top1_std"]) == (pytest.approx(0.75), pytest.approx(0.03))
    other = table.loc["t0001"].to_dict()
    assert (other["seeds"], other["pareto"], other["top1_mean"]) == (1, False, 0.8)
    assert np.isnan(other["top1_std"])
    assert np.isnan(other["test_top1_mean"])
    assert "sparsity" in other["infeasible"]


def test_a_trial_without_an_epoch_has_a_line_all_the_same(records, trial) -> None:
    table = front_table(front_rows([*records[:2], trial("t0010", last=None)], TWO), METRICS).set_index("trial_id")
    line = table.loc["t0010"]
    assert line["epochs"] == 0
    assert line[["sparsity", "top1", "top1_mean", "test_top1"]].isna().all()


def test_what_a_figure_is_called_and_told_as(records) -> None:
    energy = Metric("min", "mJ", "energy of one sample")
    known = known_figures((*TWO, Objective("energy", "min", "pkg.mod:ENERGY", energy)), METRICS)
    assert known["energy"] is energy
    assert axis_label("energy", known, METRICS, "digits") == "energy of one sample"
    assert axis_label("macs", known, METRICS, "digits") == "multiply-accumulates of one sample"
    label = METRICS["top1"].label or "top1"
    assert axis_label("top1", known, METRICS, "digits") == f"validation {label} (digits)"
    assert axis_label("top1", known, METRICS, "") == f"validation {label}"
    assert axis_label("plain", {"plain": Metric("min")}, {}, "digits") == "plain"
    assert with_spread(Metric("max", "fraction"), 0.5, None) == "50.00 %"
    assert with_spread(Metric("max", "fraction"), 0.5, 0.01) == "50.00 % ± 1.00 %"
    rows = front_rows([dataclasses.replace(records[1], last=None)], TWO)
    assert np.isnan(figure_of(rows[0], "loss"))
    assert figure_of(front_rows(records[:1], TWO)[0], "loss") == records[0].last.metrics["loss"]
    assert "1 finished trial, " in front_title(front_rows(records[:2], TWO), "x")


@pytest.mark.slow
def test_members_have_bars_and_what_was_tested_stands_hollow(records, evaluation, trial, epoch) -> None:
    (plot,) = draw_front(front_rows(confirmed(records, evaluation, trial, epoch), TWO), TWO, METRICS, "t").axes
    (bars,) = [each for each in plot.containers if each.get_label() == SPREAD]
    (segment,) = [bar.get_segments() for bar in bars[2]]
    assert np.array(segment[0]) == pytest.approx(np.array([[0.5, 0.82 - 0.0264575], [0.5, 0.82 + 0.0264575]]), abs=1e-5)
    points = {each.get_label(): each.get_offsets().tolist() for each in plot.collections}
    assert points["front on the test split"] == [[0.5, pytest.approx(0.75)]]
    assert plot.get_xlabel() == axis_label("sparsity", known_figures(TWO, METRICS), METRICS, "digits")
    assert plot.xaxis.get_major_formatter()(0.5) == "50%"
    assert plot.get_title(loc="left") == "t"
    (line,) = [each for each in plot.lines if len(each.get_xdata()) == 2 and each.get_color() == "#1f5fa8"][:1]
    assert list(line.get_xdata()) == [0.0, 0.5]  # the dense network is where the front begins


@pytest.mark.slow
@pytest.mark.parametrize(
    ("third", "shade", "text"), [("macs", 300e3, "300 k"), ("sparsity", 0.5, "50.0%"), ("loss", 1.25, "")]
)
def test_a_third_objective_is_the_colour(
    records, evaluation, trial, epoch, third: str, shade: float, text: str
) -> None:
    first = (Objective("top1", "max"), Objective("size_bytes", "min"))
    runs = [
        dataclasses.replace(r, last=dataclasses.replace(r.last, footprint={**r.last.footprint, "size_bytes": 9e3 - i}))
        for i, r in enumerate(confirmed(records, evaluation, trial, epoch))
    ]
    objectives = (*first, Objective(third, "max" if third == "sparsity" else "min"))
    plot, bar = draw_front(front_rows(runs, objectives), objectives, METRICS, "t").axes
    (shaded,) = [each for each in plot.collections if each.get_label() == "trials (Pareto front ringed)"]
    assert shade in shaded.get_array().tolist()
    assert len(shaded.get_offsets()) == 2
    assert not any(each.get_label() == "dominated" for each in plot.collections)
    assert bar.get_ylabel() == axis_label(third, known_figures(objectives, METRICS), METRICS, "digits")
    if text:
        assert bar.yaxis.get_major_formatter()(shade) == text
    else:
        assert "%" not in bar.yaxis.get_major_formatter()(shade)
