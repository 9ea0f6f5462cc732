"""Gates that lie in one layer with what they gate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.structure import replay
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.coupling import NEURONS, couplings
from tests.compression.thinning.conftest import relative


class Gated(nn.Module):
    """An MLP over tokens. places: with a table of positions, behind which the library follows no split."""

    def __init__(self, places: bool, dim: int, unequal: bool = False) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 5, 6)) if places else None
        self.dim, self.parts = dim, [3, 13] if unequal else [8, 8]
        self.first, self.both, self.out = nn.Linear(6, 6), nn.Linear(6, 16), nn.Linear(min(self.parts), 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x if self.places is None else x + self.places)
        gate, value = self.both(x).split([part * self.both.out_features // 16 for part in self.parts], self.dim)
        return self.out(nn.functional.silu(gate) * value[..., : gate.shape[-1]])


X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("dim", [-1, 2])
def test_a_gate_and_what_it_gates_are_one_structure(places: bool, dim: int) -> None:
    torch.manual_seed(0)
    model = Gated(places, dim).eval()
    (mlp,) = [each for each in couplings(model, X).couplings if each.name == "both"]
    assert (mlp.kind, mlp.count) == (NEURONS, 8)
    (rows,) = [each for each in mlp.slices if each.weight == "both.weight"]
    assert rows.where.tolist() == [[row, row + 8] for row in range(8)]
    (columns,) = [each for each in mlp.slices if each.weight == "out.weight"]
    assert columns.where.tolist() == [[row] for row in range(8)]


@pytest.mark.parametrize("places", [False, True])
def test_they_go_where_both_are_zero_or_nobody_reads_them(places: bool) -> None:
    torch.manual_seed(0)
    model, fresh = Gated(places, -1).eval(), Gated(places, -1).eval()
    masks = MaskSet(model)
    rows, columns = torch.ones(16, 6), torch.ones(6, 8)
    rows[[1, 9, 2]] = 0  # of one both, of the next the gate alone
    columns[:, 6] = 0
    masks.set("both.weight", rows)
    masks.set("out.weight", columns)
    masks.apply()
    with torch.no_grad():
        model.both.bias[[1, 9, 2]] = 0
    expected = model(X).detach()
    report = thin(model, masks, X)
    assert (model.both.out_features, model.out.in_features) == (12, 6), str(report)
    assert relative(expected, model(X).detach()) < 1e-5
    replay(fresh, report.changes)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))


def test_parts_of_unequal_sizes_are_no_pairs() -> None:
    """Ten values are read by nobody: no two rows are of one channel for all."""
    torch.manual_seed(0)
    model = Gated(True, -1, unequal=True).eval()
    offer = couplings(model, X)
    assert all(each.name != "both" for each in offer.couplings)
    with torch.no_grad():
        model.out.weight[:, 1] = 0
    expected = model(X).detach()
    thin(model, None, X)
    assert relative(expected, model(X).detach()) < 1e-5
