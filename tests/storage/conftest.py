"""A place in a fresh bucket."""

from __future__ import annotations

import pytest

from raydistill.storage.objects import BucketUri, Objects, parse_bucket_uri


@pytest.fixture
def address(bucket: str) -> BucketUri:
    return parse_bucket_uri(f"s3://{bucket}/sweeps")


@pytest.fixture
def objects(address: BucketUri) -> Objects:
    return Objects(address, outage_s=5.0)
