from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import StorageError
from raydistill.records import BASELINE
from raydistill.search import Objective, front_rows
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import front_png, front_table
from raydistill.tracking.figures import axes, draw_front, front_title
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
