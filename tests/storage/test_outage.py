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


@pytest.mark.parametrize(
    ("status", "rule", "may_help"),
    [
        (299, "does not answer", True),
        (300, "in another region", False),
        (399, "in another region", False),
        (400, "refused", False),
        (408, "does not answer", True),
        (425, "does not answer", True),
        (429, "does not answer", True),
        (499, "refused", False),
        (500, "does not answer", True),
    ],
)
def test_what_a_status_means(status: int, rule: str, may_help: bool) -> None:
    fault, again = explain("s3://b/p", OSError(f"{PUT} UNKNOWN (HTTP status {status}) during PutObject operation: x"))
    assert (rule in fault.rule, again) == (True, may_help)


def test_from_a_second_on_it_is_said_how_long_it_lasts() -> None:
    for seconds, said in ((0.0, "answer ("), (0.9, "answer ("), (1.0, "answer for 1 s ("), (59.6, "answer for 60 s (")):
        assert said in explain("s3://b/p", OSError("odd"), seconds)[0].rule
    assert "answer (" in explain("s3://b/p", OSError("odd"))[0].rule


def test_a_long_error_is_cut() -> None:
    for length in (119, 120, 121, 500):
        fault, _ = explain("s3://b/p", OSError("x" * length))
        told = fault.rule.partition("(")[2].removesuffix(")")
        assert told == ("x" * length if length <= 120 else "x" * 117 + "...")


def test_what_is_said_last_is_told() -> None:
    fault, _ = explain("s3://b/p", OSError("a operation: b Details: c (Request ID: 7)"))
    assert fault.rule == "does not answer (c)"
