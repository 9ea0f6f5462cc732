"""The sparsity summary: each column against loops over the weight, after Distiller's definitions."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.summaries import SparsityRow, columns, csv_text, mask_table, sparsity_csv, sparsity_table


def by_loops(weight: np.ndarray) -> dict[str, float | None]:
    """Distiller counts matrices transposed: its columns are torch's dim 0."""

    def empty(parts: list[np.ndarray]) -> float:
        return sum(not part.any() for part in parts) / len(parts)

    out, inputs = weight.shape[:2]
    outputs, channels = [weight[i] for i in range(out)], [weight[:, i] for i in range(inputs)]
    if weight.ndim == 2:
        return {
            "cols": empty(outputs),
            "rows": empty(channels),
            "channels": None,
            "sparsity_2d": empty(outputs),
            "sparsity_3d": None,
        }
    kernels = [weight[i, j] for i in range(out) for j in range(inputs)]
    return {
        "cols": None,
        "rows": None,
        "channels": empty(channels),
        "sparsity_2d": empty(kernels),
        "sparsity_3d": empty(outputs),
    }


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 6, 3)
        self.conv1d = nn.Conv1d(4, 5, 2)
        self.fc = nn.Linear(8, 5)
        self.bn = nn.BatchNorm2d(6)
        self.tied = nn.Linear(8, 5)
        self.tied.weight = self.fc.weight
        with torch.no_grad():
            self.conv.weight[1] = 0
            self.conv.weight[:, 2] = 0
            self.conv.weight[0, 0] = 0
            self.conv.weight[5, 3, 1, 1] = 0
            self.conv1d.weight[0, :3] = 0
            self.fc.weight[:2] = 0
            self.fc.weight[:, 7] = 0
            self.fc.weight[4, 0] = -0.0


def test_every_column() -> None:
    model = Weights()
    *rows, total = sparsity_table(model)
    assert [row.weight for row in rows] == ["conv.weight", "conv1d.weight", "fc.weight"]
    for row in rows:
        weight = model.get_parameter(row.weight).detach().numpy()
        assert row.shape == weight.shape
        assert (row.dense, row.nonzero) == (weight.size, np.count_nonzero(weight))
        assert row.sparsity == pytest.approx(1 - np.count_nonzero(weight) / weight.size, abs=1e-15)
        for column, expected in by_loops(weight).items():
            found = getattr(row, column)
            assert found is None if expected is None else found == pytest.approx(expected, abs=1e-12), column
        assert row.std == pytest.approx(weight.std(ddof=1), rel=1e-5)
        assert row.mean == pytest.approx(weight.mean(), rel=1e-4)
        assert row.abs_mean == pytest.approx(np.abs(weight).mean(), rel=1e-5)
    assert total.weight == "total"
    assert total.dense == 6 * 4 * 9 + 5 * 4 * 2 + 5 * 8
    assert total.nonzero == sum(row.nonzero for row in rows)
    assert total.sparsity == pytest.approx(1 - total.nonzero / total.dense)


def test_numbers_worked_by_hand() -> None:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, -3.0], [0.0, 0.0, 0.0, 0.0]]))
    row, total = sparsity_table(model)
    assert (row.nonzero, row.sparsity) == (2, 0.75)
    assert (row.cols, row.rows, row.sparsity_2d) == (0.5, 0.5, 0.5)
    assert (row.mean, row.abs_mean) == (-0.25, 0.5)
    assert total.sparsity == 0.75


@pytest.mark.parametrize("model", [nn.BatchNorm2d(3), nn.Linear(0, 4), nn.Linear(1, 1, bias=False)])
def test_models_with_next_to_nothing(model: nn.Module) -> None:
    total = sparsity_table(model)[-1]
    assert total.sparsity == 0.0
    assert total.dense == sum(p.numel() for p in model.parameters() if p.dim() > 1)


def test_masks_say_what_is_pruned_whatever_the_weights_hold() -> None:
    mask = torch.ones(4, 2, 3, 3, dtype=torch.bool)
    mask[0] = False
    mask[1, 1] = False
    row, total = mask_table({"conv.weight": mask})
    assert row.weight == "conv.weight"
    assert (row.nonzero, row.sparsity_3d, row.sparsity_2d, row.channels) == (72 - 27, 0.25, 3 / 8, 0.0)
    assert total.sparsity == pytest.approx(27 / 72)


def test_csv_has_every_column_and_full_precision() -> None:
    model = Weights()
    rows = list(csv.DictReader(io.StringIO(sparsity_csv(model))))
    assert tuple(rows[0]) == columns(SparsityRow)
    assert rows[0]["shape"] == "6x4x3x3"
    assert rows[0]["cols"] == ""
    assert [float(row["sparsity"]) for row in rows] == [row.sparsity for row in sparsity_table(model)]
    assert rows[-1]["weight"] == "total"
    assert csv_text(SparsityRow, ()) == ",".join(columns(SparsityRow)) + "\n"


def test_low_precision_and_other_memory_formats_give_the_same_counts() -> None:
    model = Weights()
    expected = [(row.nonzero, row.sparsity_3d, row.sparsity_2d) for row in sparsity_table(model)]
    for changed in (model.to(memory_format=torch.channels_last), model.bfloat16()):
        assert [(row.nonzero, row.sparsity_3d, row.sparsity_2d) for row in sparsity_table(changed)] == expected


def test_nothing_is_written_to_the_model() -> None:
    model = Weights()
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    sparsity_table(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
