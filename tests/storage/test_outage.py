"""pyarrow's errors in one line."""

from __future__ import annotations

import re

import pytest

from raydistill.storage.outage import explain

PUT = "When uploading object with key 'a' in bucket 'b': AWS Error"


@pytest.mark.parametrize(
    ("text", "expected", "may_help"),
    [
        (
            f"{PUT} NO_SUCH_BUCKET during PutObject operation: no (Request ID: x)",
            "no such bucket",
            False,
        ),
        ("Bucket 'b' not found", "no such bucket", False),
        (f"{PUT} ACCESS_DENIED during PutObject operation: No response body.", "access denied", False),
        (f"{PUT} INVALID_ACCESS_KEY_ID during PutObject operation: x", "the access key is not known there", False),
        (f"{PUT} UNKNOWN (HTTP status 301) during PutObject operation: moved", "in another region; name it", False),
        (f"{PUT} UNKNOWN (HTTP status 400) during PutObject operation: odd", r"refused \(odd\)", False),
        (f"{PUT} SLOW_DOWN during PutObject operation: Reduce your rate", "does not answer .*Reduce your rate", True),
        (f"{PUT} UNKNOWN (HTTP status 503) during PutObject operation: busy", "does not answer", True),
        (f"{PUT} UNKNOWN (HTTP status 429) during PutObject operation: busy", "does not answer", True),
        (
            f"{PUT} NETWORK_CONNECTION during PutObject operation: curlCode: 7, Could not connect; Details: Failed to "
            "connect to h port 1 after 0 ms",
            r"does not answer \(Failed to connect to h port 1 after 0 ms\); check network",
            True,
        ),
    ],
)
def test_one_line_and_whether_to_try_again(text: str, expected: str, may_help: bool) -> None:
    fault, again = explain("s3://b/p", OSError(text))
    assert again is may_help
    assert str(fault).startswith("s3://b/p: ")
    assert re.search(expected, str(fault))
    assert "Request ID" not in str(fault)
    assert "AWS Error" not in str(fault)


def test_how_long_it_was_tried() -> None:
    fault, _ = explain("s3://b/p", OSError("odd"), 600.4)
    assert "does not answer for 600 s (odd)" in str(fault)
