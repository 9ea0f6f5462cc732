"""The objects of a bucket through pyarrow: put and got whole, tried again while the service is away.

Keys are relative to the storage's URI. S3 itself, and what speaks its protocol, is what is tested; Google's and Azure's
stores go through the same few calls.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from raydistill.errors import ABSENT, ConfigError, Fault, StorageError, close_match
from raydistill.masking import masked
from raydistill.storage.outage import explain

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

SCHEMES = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})
OPTION = "--storage"
OUTAGE_S = 600.0
"""How long an operation is tried again while the service does not answer."""

CHECK_S = 10.0
"""The same before a sweep starts: a wrong address is to be told at once."""

_FIRST_DELAY_S, _LAST_DELAY_S = 0.2, 10.0
_CONNECT_S, _SILENT_S = 5.0, 20.0
_S3_OPTIONS = ("endpoint_override", "region", "scheme")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class BucketUri:
    """uri: the storage without options, as ``s3://bucket/prefix``: it names what is kept there, and is shown.

    options: endpoint_override, region and scheme of an S3 storage. They travel to all nodes; credentials do not.
    """

    uri: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def full(self) -> str:
        return f"{self.uri}?{urlencode(self.options)}" if self.options else self.uri


def parse_bucket_uri(text: str) -> BucketUri:
    """A storage URI with what the environment adds to it: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION.

    Raises:
        ConfigError: it is none, or has credentials in it.
    """
    parts = urlsplit(text)
    uri = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or {"access_key", "secret_key", "session_token"} & set(query):
        way_out = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every node"
        raise ConfigError(Fault(OPTION, "a URI is shown and kept, it must not hold credentials", ABSENT, way_out))
    if parts.scheme not in SCHEMES:
        raise ConfigError(Fault(OPTION, "must be a folder or begin with s3://, gs:// or abfs://", text))
    if not parts.netloc:
        raise ConfigError(Fault(OPTION, "needs a bucket", text, f"as in {parts.scheme}://bucket/sweeps"))
    if parts.scheme != "s3":
        return BucketUri(uri, query)
    for name in query:
        if name not in _S3_OPTIONS:
            raise ConfigError(Fault(OPTION, f"has an unknown option '{name}'", text, close_match(name, _S3_OPTIONS)))
    endpoint = query.get("endpoint_override") or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = query.get("region") or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
    options = {}
    if "@" in endpoint:
        way_out = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every node"
        raise ConfigError(Fault("AWS_ENDPOINT_URL", "must be scheme://host:port, without credentials", ABSENT, way_out))
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options = {"endpoint_override": host.rstrip("/"), "scheme": query.get("scheme") or scheme or "https"}
        region = region or "us-east-1"
    return BucketUri(uri, {**options, **({"region": region} if region else {})})


class Objects:
    """outage_s: how long an operation is tried again. tell: called with one line when an outage begins, or ends."""

    def __init__(
        self, address: BucketUri, outage_s: float = OUTAGE_S, tell: Callable[[str], None] | None = None
    ) -> None:
        self.address = address
        self.outage_s = outage_s
        self.tell = tell
        self._opened: tuple[FileSystem, str] | None = None
        self._away = threading.Event()

    def briefly(self, outage_s: float) -> Objects:
        """The same objects for somebody with less patience."""
        same = copy.copy(self)
        same.outage_s = outage_s
        return same

    def put(self, key: str, content: bytes, outage_s: float | None = None) -> None:
        """Replace an object: readers see the old one or the new one.

        Raises:
            StorageError: it cannot be written.
        """

        def put() -> None:
            filesystem, root = self._filesystem()
            with filesystem.open_output_stream(f"{root}/{key}", compression=None) as stream:
                stream.write(content)

        self._persist(put, outage_s)

    def get(self, key: str) -> tuple[bytes, str] | None:
        """(content, version) of an object; None where there is none.

        Raises:
            StorageError: it cannot be read.
        """

        def get() -> tuple[bytes, str] | None:
            filesystem, root = self._filesystem()
            while True:  # its length is asked for first: one that was replaced in between would be cut to it
                try:
                    with filesystem.open_input_file(f"{root}/{key}") as file:
                        version, content = _version(file), bytes(file.read())
                    with filesystem.open_input_file(f"{root}/{key}") as file:
                        if _version(file) == version:
                            return content, version
                except FileNotFoundError:
                    return None

        return self._persist(get)

    def version(self, key: str) -> str | None:
        """Another one for each content; None where there is no such object."""

        def version() -> str | None:
            filesystem, root = self._filesystem()
            try:
                with filesystem.open_input_file(f"{root}/{key}") as file:
                    return _version(file)
            except FileNotFoundError:
                return None

        return self._persist(version)

    def written(self, key: str) -> datetime | None:
        """When an object was written, by the service's own clock."""

        def written() -> datetime | None:
            filesystem, root = self._filesystem()
            found = filesystem.get_file_info(f"{root}/{key}").mtime
            return found if isinstance(found, datetime) else None

        return self._persist(written)

    def folders(self) -> list[str]:
        """The names that keys begin with, up to their first slash, sorted."""

        def folders() -> list[str]:
            from pyarrow import fs

            filesystem, root = self._filesystem()
            found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
            return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

        return self._persist(folders)

    def last_written(self, folder: str) -> datetime | None:
        """When anything below `folder` was written last, by the service's own clock; None where there is nothing."""

        def last() -> datetime | None:
            from pyarrow import fs

            filesystem, root = self._filesystem()
            selector = fs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
            times = [info.mtime for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
            return max((time for time in times if isinstance(time, datetime)), default=None)

        return self._persist(last)

    def names(self, folder: str) -> list[str]:
        """The keys of all objects below `folder`, sorted."""

        def names() -> list[str]:
            from pyarrow import fs

            filesystem, root = self._filesystem()
            selector = fs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
            found = filesystem.get_file_info(selector)
            return sorted(info.path[len(root) + 1 :] for info in found if info.type == fs.FileType.File)

        return self._persist(names)

    def delete(self, *keys: str) -> None:
        """What is not there is not missed."""

        def delete() -> None:
            filesystem, root = self._filesystem()
            for key in keys:
                try:
                    filesystem.delete_file(f"{root}/{key}")
                except FileNotFoundError:
                    continue

        self._persist(delete)

    def _filesystem(self) -> tuple[FileSystem, str]:
        if self._opened is None:
            self._opened = _open(self.address)
        return self._opened

    def _persist(self, call: Callable[[], _Answer], outage_s: float | None = None) -> _Answer:
        begun, delay = time.monotonic(), _FIRST_DELAY_S
        limit = self.outage_s if outage_s is None else outage_s
        while True:
            try:
                answer = _aside(call)
            except OSError as error:
                seconds = time.monotonic() - begun
                fault, may_help = explain(self.address.uri, error, seconds)
                if not may_help or seconds + delay > limit:
                    raise StorageError(fault) from error
                if seconds >= 1 and not self._away.is_set():
                    self._away.set()
                    self._say(f"{fault.where}: {fault.rule}; it is tried again")
                time.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY_S)
            else:
                if self._away.is_set():
                    self._away.clear()
                    self._say(f"{self.address.uri}: answers again")
                return answer

    def _say(self, line: str) -> None:
        if self.tell is not None:
            self.tell(line)


def _aside(call: Callable[[], _Answer]) -> _Answer:
    """Run `call` in a thread and wait for it.

    So Ctrl-C comes through at once; and not in the middle of a put, for pyarrow closes a stream that it drops, which
    would make an object of the half that was written.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="raydistill-storage", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def _open(address: BucketUri) -> tuple[FileSystem, str]:
    """pyarrow's file system, and the path in it."""
    from pyarrow import ArrowException, fs

    parts = urlsplit(address.uri)
    root = f"{parts.netloc}{parts.path}"
    if parts.scheme != "s3":
        try:
            return fs.FileSystem.from_uri(address.full)
        except (ArrowException, ValueError) as error:
            rule = f"cannot be opened ({masked(str(error).splitlines()[0], address.full)})"
            raise StorageError(Fault(OPTION, rule, address.uri)) from error
    options = dict(address.options)
    if "region" not in options:
        options["region"] = fs.resolve_s3_region(parts.netloc)
        address.options["region"] = options["region"]
    filesystem = fs.S3FileSystem(
        **options,
        allow_delayed_open=True,  # one request for a small object, not three
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # the loop around it says what it waits for
        tls_ca_file_path=_environment("AWS_CA_BUNDLE") or None,
    )
    return filesystem, root


def _version(file: NativeFile) -> str:
    found = {str(key).lower(): value for key, value in (file.metadata() or {}).items()}
    tag = found.get("etag") or found.get("generation") or b""
    text = tag.decode(errors="replace") if isinstance(tag, bytes) else str(tag)
    return text.strip('"') or f"{file.size()}-{found.get('last-modified')!r}"


def _environment(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
