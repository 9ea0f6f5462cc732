"""Objects on a real S3 server: whole, with versions, through outages, and what the user hears."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from raydistill.errors import ConfigError, StorageError
from raydistill.storage import objects as module
from raydistill.storage.objects import BucketUri, Objects, parse_bucket_uri


def through(gate: Any, address: BucketUri) -> BucketUri:
    return replace(address, options={**address.options, "endpoint_override": f"127.0.0.1:{gate.port}"})


@pytest.mark.slow
def test_put_get_list_delete(objects: Objects) -> None:
    assert objects.get("a/b/c") is None
    assert objects.version("a/b/c") is None
    assert objects.names("a") == []
    objects.put("a/b/c", b"one")
    first = objects.get("a/b/c")
    assert first is not None
    assert first[0] == b"one"
    assert first[1] == objects.version("a/b/c")
    objects.put("a/b/c", b"two")
    assert objects.version("a/b/c") != first[1]
    objects.put("a/b/d", b"")
    objects.put("ab", b"beside the folder, not in it")
    assert objects.names("a") == ["a/b/c", "a/b/d"]
    assert objects.get("a/b/d") == (b"", objects.version("a/b/d"))
    objects.delete("a/b/c", "never/was")
    assert objects.names("a") == ["a/b/d"]


@pytest.mark.slow
def test_more_than_one_part(objects: Objects) -> None:
    content = os.urandom(11 * 1024 * 1024)
    objects.put("big", content)
    found = objects.get("big")
    assert found is not None
    assert found[0] == content


@pytest.mark.slow  # its clock shows whole seconds
def test_the_services_clock(objects: Objects) -> None:
    objects.put("a", b"")
    time.sleep(1.1)
    objects.put("b", b"")
    before, after = objects.written("a"), objects.written("b")
    assert before is not None
    assert after is not None
    assert before < after
    assert objects.written("c") is None


def test_the_address_travels_without_credentials(bucket: str, s3_endpoint: str) -> None:
    address = parse_bucket_uri(f"s3://{bucket}/some/prefix/")
    assert address.uri == f"s3://{bucket}/some/prefix"
    host = s3_endpoint.removeprefix("http://")
    assert address.options == {"endpoint_override": host, "scheme": "http", "region": "us-east-1"}
    assert parse_bucket_uri(address.full) == address
    assert "secret" not in address.full
    other = parse_bucket_uri(f"s3://{bucket}/p?endpoint_override=https://minio:9000&region=eu-west-1")
    assert other.options == {"endpoint_override": "minio:9000", "scheme": "https", "region": "eu-west-1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hdfs://host/p", r"--storage: must be a folder or begin with s3://.*got 'hdfs"),
        ("s3:///p", "--storage: needs a bucket"),
        ("s3://b/p?regoin=x", "unknown option 'regoin'.*did you mean 'region'"),
        ("s3://me:word@b/p", "must not hold credentials; set AWS_ACCESS_KEY_ID"),
        ("s3://b/p?secret_key=word", "must not hold credentials"),
    ],
)
def test_addresses_that_are_none(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        parse_bucket_uri(text)
    assert "word" not in str(caught.value) or "password" in str(caught.value)


@pytest.mark.slow
def test_a_missing_bucket_is_said_at_once(s3_endpoint: str) -> None:
    objects = Objects(parse_bucket_uri("s3://no-such-bucket-here/p"), outage_s=600.0)
    with pytest.raises(StorageError, match="s3://no-such-bucket-here/p: there is no such bucket; make it") as caught:
        objects.put("x", b"")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_credentials(address: BucketUri, monkeypatch: pytest.MonkeyPatch) -> None:
    Objects(address).put("x", b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"access denied, or no credentials were found; check AWS_ACCESS_KEY_ID"):
        Objects(address, outage_s=600.0).get("x")


@pytest.mark.slow
def test_nothing_answers(address: BucketUri, gate: Any) -> None:
    gate.close()
    with pytest.raises(StorageError) as caught:
        Objects(through(gate, address), outage_s=0.5).put("x", b"1")
    text = str(caught.value)
    assert text.startswith(f"{address.uri}: does not answer (Failed to connect to 127.0.0.1 port {gate.port}")
    assert "AWS Error" not in text
    assert len(text) < 300


@pytest.mark.slow
def test_an_outage_is_waited_for_and_told_once(address: BucketUri, gate: Any) -> None:
    told: list[str] = []
    objects = Objects(through(gate, address), outage_s=60.0, tell=told.append)
    objects.put("x", b"before")
    gate.close()
    thread = threading.Thread(target=objects.put, args=("x", b"after"))
    thread.start()
    while not told:
        time.sleep(0.05)
    gate.open()
    thread.join()
    assert objects.get("x") == (b"after", objects.version("x"))
    assert len(told) == 2
    assert told[0].startswith(f"{address.uri}: does not answer")
    assert told[0].endswith("; it is tried again")
    assert told[1] == f"{address.uri}: answers again"


@pytest.mark.slow
def test_a_server_that_hangs(address: BucketUri, s3_process: tuple[subprocess.Popen[bytes], str]) -> None:
    objects = Objects(address, outage_s=120.0)
    objects.put("x", b"before")
    s3_process[0].send_signal(signal.SIGSTOP)
    try:
        thread = threading.Thread(target=objects.put, args=("x", b"after"))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
    finally:
        s3_process[0].send_signal(signal.SIGCONT)
    thread.join()
    found = objects.get("x")
    assert found is not None
    assert found[0] == b"after"


class Clock:
    """Time that passes in sleeping only. at: called before the sleep of that number."""

    def __init__(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.sleeps: list[float] = []
        self._at = at or {}

    def monotonic(self) -> float:
        return 1000 + sum(self.sleeps)

    def sleep(self, seconds: float) -> None:
        self._at.get(len(self.sleeps), lambda: None)()
        self.sleeps.append(seconds)


@pytest.mark.slow
def test_it_is_tried_ever_less_often_until_the_time_is_over(
    address: BucketUri, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    objects, clock = Objects(through(gate, address), outage_s=40.0, tell=told.append), Clock()
    gate.close()
    monkeypatch.setattr(module, "time", clock)
    with pytest.raises(StorageError, match="does not answer"):
        objects.put("x", b"1")
    assert clock.sleeps == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    assert len(told) == 1
    assert told[0].endswith("; it is tried again")
    for brief in (lambda: objects.briefly(1.5).get("x"), lambda: objects.put("x", b"1", outage_s=1.5)):
        clock.sleeps.clear()
        with pytest.raises(StorageError):
            brief()
        assert clock.sleeps == pytest.approx([0.2, 0.4, 0.8])
    assert objects.outage_s == 40.0
    gate.open()
    objects.put("x", b"2")
    assert told[1:] == [f"{address.uri}: answers again"]


@pytest.mark.slow
def test_a_short_disturbance_is_not_told(address: BucketUri, gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    objects, clock = Objects(through(gate, address), outage_s=40.0, tell=told.append), Clock({1: gate.open})
    gate.close()
    monkeypatch.setattr(module, "time", clock)
    objects.put("x", b"1")
    assert clock.sleeps == pytest.approx([0.2, 0.4])
    assert not told


def test_what_the_environment_adds_to_an_address(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://for-s3:9000/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    expected = {"endpoint_override": "for-s3:9000", "scheme": "http", "region": "eu-west-1"}
    assert parse_bucket_uri("s3://b/p").options == expected
    assert parse_bucket_uri("s3://b/p?scheme=https&region=r").options == {**expected, "scheme": "https", "region": "r"}
    assert parse_bucket_uri("gs://b/p?retry_limit_seconds=3") == BucketUri("gs://b/p", {"retry_limit_seconds": "3"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "no-scheme:9000")
    monkeypatch.delenv("AWS_REGION")
    assert parse_bucket_uri("s3://b").options == {
        "endpoint_override": "no-scheme:9000", "scheme": "https", "region": "eu-west-2",
    }  # fmt: skip
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    assert parse_bucket_uri("s3://b/p/").full == "s3://b/p?region=eu-west-2"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert parse_bucket_uri("s3://b/p/").full == "s3://b/p"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:word@there:9000")
    with pytest.raises(
        ConfigError, match="AWS_ENDPOINT_URL: must be scheme://host:port, without credentials"
    ) as caught:
        parse_bucket_uri("s3://b/p")
    assert "word" not in str(caught.value)


@pytest.mark.slow
def test_a_version_is_the_services_own(objects: Objects) -> None:
    """S3's for an object of one part: its MD5, without the quotes that it comes in."""
    objects.put("x", b"content")
    assert objects.version("x") == hashlib.md5(b"content", usedforsecurity=False).hexdigest()


def test_what_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    assert module._aside(lambda: threading.current_thread().daemon)


@pytest.mark.slow
def test_keys_below_a_folder(objects: Objects) -> None:
    for key in ("f/b/2", "f/a", "f/b/1", "fg"):
        objects.put(key, b"x")
    assert objects.names("f") == ["f/a", "f/b/1", "f/b/2"]
    assert objects.written("f/a") is not None
    assert objects.written("f/never") is None
    objects.delete("never/was", "f/a", "f/b/1")  # one that is missing does not keep the others
    assert objects.names("f") == ["f/b/2"]


def test_an_address_and_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of S3 what was said stands before the environment; of the others everything is passed on."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert parse_bucket_uri("s3://b/p") == BucketUri("s3://b/p", {})
    assert parse_bucket_uri("s3://b/p").full == "s3://b/p"
    assert parse_bucket_uri("gs://b/p/?project=x&empty=") == BucketUri("gs://b/p", {"project": "x", "empty": ""})
    bare = parse_bucket_uri("s3://b/p?endpoint_override=minio:9000/")
    assert bare.options == {"endpoint_override": "minio:9000", "scheme": "https", "region": "us-east-1"}
    plain = parse_bucket_uri("s3://b/p?endpoint_override=https://minio:9000&scheme=http")
    assert plain.options["scheme"] == "http"
    assert parse_bucket_uri("s3://b/p?region=eu-west-1").options == {"region": "eu-west-1"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "second")
    assert parse_bucket_uri("s3://b/p").options == {"region": "second"}
    monkeypatch.setenv("AWS_REGION", "first")
    assert parse_bucket_uri("s3://b/p").options == {"region": "first"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
    assert parse_bucket_uri("s3://b/p").options["endpoint_override"] == "general:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://of-s3:1")
    found = parse_bucket_uri("s3://b/p")
    assert found.options == {"endpoint_override": "of-s3:1", "scheme": "http", "region": "first"}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://me:word@of-s3:1")
    with pytest.raises(ConfigError, match="without credentials") as caught:
        parse_bucket_uri("s3://b/p")
    assert "word" not in str(caught.value)
    assert parse_bucket_uri("s3://b/p?endpoint_override=http://mine:2").options["endpoint_override"] == "mine:2"


def test_somebody_with_less_patience_has_the_same_objects(address: BucketUri) -> None:
    objects = Objects(address)
    hasty = objects.briefly(1.0)
    assert (objects.outage_s, hasty.outage_s) == (600.0, 1.0)
    assert hasty.address is objects.address
