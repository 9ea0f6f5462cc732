"""Whether nodes share a storage; here each node is a probe of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from raydistill.cluster.probe import Probe
from raydistill.cluster.storage import check_storage


def node() -> Callable[..., Any]:
    probe = Probe()
    return lambda method, *given: getattr(probe, method)(*given)


def test_a_folder_that_both_see(tmp_path: Path) -> None:
    assert check_storage(str(tmp_path / "a" / "b"), {"one": node(), "two": node()}) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_bucket_that_both_reach(bucket: str, s3_endpoint: str) -> None:
    assert check_storage(f"s3://{bucket}/sweeps", {"one": node(), "two": node()}) == {}
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    left = [found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    assert [key for key in left if not key.endswith("/")] == []  # a mark for the folder may stay


@pytest.mark.slow
def test_a_bucket_that_is_not_there(s3_endpoint: str) -> None:
    found = check_storage("s3://no-such-bucket/sweeps", {"one": node(), "two": node()})
    assert sorted(found) == ["one", "two"]
    assert "node one cannot write there" in str(found["one"])
    assert "\n" not in str(found["one"])


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    """Each node has a disk of its own under the same path."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def alone(name: str) -> Callable[..., Any]:
        ask = node()
        return lambda method, folder, *given: ask(method, str(tmp_path / name), *given)

    found = check_storage("/sweeps", {"one": alone("one"), "two": alone("two")})
    assert list(found) == ["two"]
    assert "do not see there what the other one wrote" in str(found["two"])
