"""Groups of channels that stand and fall together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.graph import trace
from raydistill.compression.thinning.groups import Group
from tests.tasks.detection.shapes import small


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.fc = nn.Conv2d(4, 2, 1), nn.Linear(2 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        y = torch.relu(self.b(y) + y)
        return self.fc(self.c(y).flatten(1))


def test_a_sum_couples_its_terms_and_flattening_repeats_a_channel() -> None:
    groups = trace(Net(), torch.zeros(1, 3, 2, 2)).groups
    found = {frozenset((m.layer, m.side) for m in group.members): group for group in groups}
    coupled = found[frozenset({("a", "out"), ("norm", "through"), ("b", "in"), ("b", "out"), ("c", "in")})]
    assert (coupled.width, coupled.blocked) == (4, None)
    assert {m.layer for m in coupled.side("out")} == {"a", "b"}
    flat = found[frozenset({("c", "out"), ("fc", "in")})]
    (reader,) = flat.side("in")
    assert flat.width == 2
    assert reader.channels[reader.where.argsort()].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    last = found[frozenset({("fc", "out")})]
    assert last.blocked == "an output of the network"


def test_a_grouped_conv_joins_what_it_reads() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(4, 4, 1, groups=2)
            self.d = nn.Conv2d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(torch.cat([self.a(x), self.b(x)], 1)))

    groups = trace(Two(), torch.zeros(1, 1, 2, 2)).groups
    (joined,) = [group for group in groups if {"a", "b"} <= {m.layer for m in group.side("out")}]
    assert joined.width == 4
    (reader,) = [member for member in joined.side("in") if member.layer == "c"]
    assert sorted(reader.where.tolist()) == [0, 1, 2, 3]
    assert len(set(reader.channels.tolist())) == 4
    assert isinstance(joined, Group)


@pytest.mark.slow  # ten thousand steps of the library's
def test_a_walk_that_does_not_end_is_given_up_and_the_others_are_followed() -> None:
    """A detector's boxes are picked by index, again and again: the library's walk from there took hours."""
    groups = trace(small(3).eval(), torch.rand(1, 3, 48, 48)).groups
    given_up = [group for group in groups if group.blocked == "what its channels are coupled with cannot be followed"]
    assert 0 < len(given_up) < len(groups)
    followed = {member.layer for group in groups if group.blocked is None for member in group.side("out")}
    assert {"backbone.0", "backbone.3"} <= followed
