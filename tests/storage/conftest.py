"""A place in a fresh bucket."""

from __future__ import annotations

import pytest

from raydistill.storage.objects import Address, Objects, parse_address


@pytest.fixture
def address(bucket: str) -> Address:
    return parse_address(f"s3://{bucket}/sweeps")


@pytest.fixture
def objects(address: Address) -> Objects:
    return Objects(address, outage_s=5.0)
