"""What keeps this machine out of a cluster that is there: its token, another Ray or Python. One line each."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from tests.cluster.conftest import ROOT, RayCluster, ended

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]
Start = Callable[..., subprocess.Popen[str]]
RIGHT, WRONG = "a" * 32, "b" * 32


def home(folder: Path, token: str) -> str:
    (folder / ".ray").mkdir(parents=True)
    if token:
        (folder / ".ray" / "auth_token").write_text(token)
    return str(folder)


def test_who_has_no_token_or_another_one_is_told_in_a_line(
    cluster: RayCluster, raydistill: Start, tmp_path: Path
) -> None:
    cluster.head("--num-cpus=1", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=RIGHT)
    for name, token in (("none", ""), ("wrong", WRONG)):
        asked = ("doctor", "--address", cluster.address)
        out, err = ended(raydistill(*asked, HOME=home(tmp_path / name, token), RAY_AUTH_MODE=None), code=1)
        assert err == ""
        assert out.splitlines()[-1] == (
            f"  --address {cluster.address}: the cluster wants a token, and does not accept this machine's; "
            "copy ~/.ray/auth_token from its head to this machine, or set RAY_AUTH_TOKEN"
        )
    out, _ = ended(raydistill(*asked, HOME=home(tmp_path / "right", RIGHT), RAY_AUTH_MODE=None))
    assert out.splitlines()[-1] == "all is well"


def test_a_token_that_lies_about_and_another_ray(cluster: RayCluster, raydistill: Start, tmp_path: Path) -> None:
    """Any local Ray makes a token. Sent to a cluster that wants none, that cluster's actors would die at once.

    The head's note of its versions is changed by hand: two Rays are not to be had here.
    """
    cluster.head("--num-cpus=1")
    asked = ("doctor", "--address", cluster.address)
    own_home = home(tmp_path / "home", RIGHT)
    out, err = ended(raydistill(*asked, HOME=own_home, RAY_AUTH_MODE=None))
    assert err == ""
    assert out.splitlines()[-1] == "all is well"

    client = ray._raylet.GcsClient(address=cluster.address)
    key = {"key": b"CLUSTER_METADATA", "namespace": b"cluster"}
    metadata = json.loads(client.internal_kv_get(**key))
    for changes, theirs, ours in (
        ({"ray_version": "2.1.0"}, "Ray 2.1.0", f"Ray {ray.__version__}"),
        ({"python_version": "3.8.1"}, "Python 3.8.1", f"Python {platform.python_version()}"),
    ):
        value = json.dumps({**metadata, **changes}).encode()
        client.internal_kv_put(key["key"], value, True, key["namespace"])
        out, err = ended(raydistill(*asked), code=1)
        assert err == ""
        assert out.splitlines()[-1] == (
            f"  --address {cluster.address}: the cluster runs {theirs}, this machine {ours}; "
            f"install {theirs} here, or the cluster's nodes as this machine"
        )
    patch = ".".join([*platform.python_version().split(".")[:2], "99"])
    value = json.dumps({**metadata, "python_version": patch}).encode()
    client.internal_kv_put(key["key"], value, True, key["namespace"])
    out, _ = ended(raydistill(*asked))
    assert out.splitlines()[-1] == "all is well"


def test_a_dry_run_counts_the_clusters_nodes_and_starts_nothing_there(
    cluster: RayCluster, raydistill: Start, tmp_path: Path
) -> None:
    """Not this machine's: a laptop need not have what its cluster has. The cluster may yet grow."""
    cluster.head("--num-cpus=0")
    cluster.node("--num-cpus=5", "--num-gpus=3")
    file = tmp_path / "space.yaml"
    text = (ROOT / "search_spaces" / "simplenet.yaml").read_text()
    dry = ("sweep", file, "--dry-run", "--dataset", "digits", "--address", cluster.address)
    for resources, expected in (
        ("{gpu: 1, cpu: 1}", f"resources:   1 GPU and 1 CPU a trial, 3 at a time on the cluster at {cluster.address}"),
        ("{gpu: 4}", f"resources:   more than the cluster at {cluster.address} has now"),
    ):
        file.write_text(f"{text}resources_per_trial: {resources}\n")
        out, err = ended(raydistill(*dry))
        assert err == ""
        assert expected in out
        assert ("warning: " in out) == ("more than" in expected)
        assert out.splitlines()[-1] == "dry run: everything checked, nothing started"
    jobs = ray._raylet.GcsClient(address=cluster.address).get_all_job_info()
    assert not jobs
