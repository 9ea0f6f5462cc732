"""The workers of a run, and whether a cluster has room for them."""

from __future__ import annotations

import pytest

from raydistill.cluster.nodes import Node
from raydistill.cluster.team import Team, at_once, check_room, trial_team
from raydistill.errors import ResourceError

BOX, GPUS = Node(2, 0), Node(16, 4)


@pytest.mark.parametrize(
    ("team", "nodes", "says"),
    [
        (Team(2), [BOX], ""),
        (Team(4), [BOX, BOX], ""),
        (Team(4, fewest=2), [BOX], ""),
        (Team(4, gpu=1), [GPUS], ""),
        (
            Team(4),
            [BOX],
            r"--n: asks for 4 workers of 1 CPU, there is room for 2 \(nodes: 2 CPU \+ 0 GPU\); use 2 workers",
        ),
        (Team(5, gpu=1), [GPUS, BOX], "asks for 5 workers of 1 GPU and 1 CPU, there is room for 4"),
        (Team(2, cpu=8), [BOX], "there is room for 0 .*; ask for less a worker"),
        (Team(4, fewest=3), [BOX], "asks for 3 to 4 workers of 1 CPU, there is room for 2"),
    ],
)
def test_room(team: Team, nodes: list[Node], says: str) -> None:
    if not says:
        check_room(team, nodes, "--n")
        return
    with pytest.raises(ResourceError, match=says):
        check_room(team, nodes, "--n")


def test_the_workers_of_trials() -> None:
    assert at_once(trial_team(2, 1, 1.0, 1, [GPUS, GPUS], "f.yaml"), [GPUS, GPUS]) == 4
    assert at_once(trial_team(2, 1, 0.0, 1, [Node(5, 0)], "f.yaml"), [Node(5, 0)]) == 2
    with pytest.raises(ResourceError, match=r"f.yaml: workers_per_trial: asks for 4 workers"):
        trial_team(4, 1, 0.0, 1, [BOX], "f.yaml")
    with pytest.raises(ResourceError, match=r"f.yaml: resources_per_trial.gpu: must be 0 or 1"):
        trial_team(2, 1, 0.5, 1, [GPUS], "f.yaml")


def test_a_team_by_hand() -> None:
    half = Team(3, cpu=0.5, gpu=1, fewest=2)
    assert (half.least, half.threads, half.device, str(half)) == (2, 1, "cuda", "2 to 3 workers of 1 GPU and 0.5 CPU")
    whole = Team(4, cpu=2.9)
    assert (whole.least, whole.threads, whole.device, str(whole)) == (4, 2, "cpu", "4 workers of 2.9 CPU")
