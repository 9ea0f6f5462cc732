"""No password and no token of a URI is shown, however it is written and wherever it stands."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError, Fault
from raydistill.masking import is_masked, masked, masked_all, secrets_of

WORD = "s3cr3t-Word"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://me:{WORD}@host:5000/path", "http://me:***@host:5000/path"),
        (f"https://{WORD}@host", "https://***@host"),
        (f"https://host/?token={WORD}&experiment=3", "https://host/?token=***&experiment=3"),
        (f"https://host/mlflow?a=1;access_key={WORD}#id_token={WORD}", "https://host/mlflow?a=1;access_key=***#id_token=***"),
        (f"postgresql+psycopg2://u:{WORD}@db:5432/x?sslmode=require", "postgresql+psycopg2://u:***@db:5432/x?sslmode=require"),
        (f"postgresql://db/x?user=u&password={WORD}", "postgresql://db/x?user=u&password=***"),
        (f"postgresql://u:/{WORD}@db/x", "postgresql://u:***@db/x"),
        (f"mysql://u:@{WORD}@db/x", "mysql://u:***@db/x"),
        (f"mysql://:{WORD}@db/x", "mysql://:***@db/x"),
        (f"s3://key:{WORD}@bucket/prefix?endpoint_override=h:1", "s3://key:***@bucket/prefix?endpoint_override=h:1"),
        (f"POSTGRESQL://u:{WORD}'\"@db/x", "POSTGRESQL://u:***@db/x"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("file:///home/me@work", "file:///home/me@work"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host:5000", "http://host:5000"),
        ("mail me@work about it", "mail me@work about it"),
    ],
)  # fmt: skip
def test_a_uri(uri: str, shown: str) -> None:
    assert masked(uri) == shown
    assert masked(f"got {uri!r}; and {uri}, too").count(WORD) == 0
    assert masked(masked(uri)) == masked(uri)
    assert is_masked(masked(uri)) is (WORD in uri)


def test_the_word_by_itself_and_decoded() -> None:
    uri = "postgresql://u:p%40ss%2Fword@db/x"
    assert secrets_of(uri) == {"p%40ss%2Fword", "p@ss/word"}
    assert masked("password p@ss/word refused", uri, None) == "password *** refused"
    assert masked("a token abc", "http://host?token=abc") == "a token abc", "too short to be looked for"


def test_errors_say_no_password_even_where_a_value_is_cut() -> None:
    long = f"postgresql://me:{WORD * 40}@db/x"
    fault = Fault(f"at {long}", f"rule of {long}", {"uri": [long]}, f"not {long}")
    error = ConfigError(fault, f"a line about {long}")
    for text in (str(fault), str(error), repr(error)):
        assert WORD not in text, text


def test_what_is_kept() -> None:
    kept = masked_all({"tracking": {"uri": f"http://me:{WORD}@h"}, "list": [f"https://h?token={WORD}", 3, None]})
    assert kept == {"tracking": {"uri": "http://me:***@h"}, "list": ["https://h?token=***", 3, None]}
