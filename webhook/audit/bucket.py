"""A log's files in a bucket (S3 API). Every write is conditional, so no delayed or foreign write replaces signed data.

- A file is written with ``If-None-Match: *`` or with ``If-Match`` and the ETag that this process wrote or read. A
  request that was delayed, or that another process sends, fails with status 412.
- The writer renews a lease, the object ``.lock``. It stops writing before the lease can expire by the server's clock.
- A write without a known result raises `UncertainError`: the caller must assume that readers have it.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import http.client
import json
import os
import re
import ssl
import tempfile
import threading
import time
import urllib.parse
import uuid
import xml.etree.ElementTree as ET
import zlib
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from webhook.audit.errors import AuditError, LockedError, UncertainError
from webhook.audit.storage import LOCK, MAX_FILE_BYTES, Directory, gunzip
from webhook.core.audit.tiles import CHECKPOINT
from webhook.core.sigv4 import Account, query_of, s3_headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

SCHEME = "s3://"
LEASE_SECONDS = 30.0
_RENEW_SECONDS = 5.0
_TIMEOUT = 5.0
_ATTEMPTS = 3
_PAUSE = 0.2
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
# A page has up to 1,000 keys. The owner of the server chooses how many pages there are.
_MAX_PAGES = 100_000
_PUBLIC = re.compile(r"(?:[A-Za-z0-9._-]{1,80}/){0,2}(?:checkpoint|keys\.txt|tile/[0-9a-z/.]{1,80})")


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


class Client:
    """Requests to one bucket. Credentials, region and endpoint come from the usual variables of the environment."""

    def __init__(self, bucket: str) -> None:
        self._account = Account.of(os.environ)
        self._url = urllib.parse.urlsplit(self._account.endpoint)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise AuditError("AWS_ENDPOINT_URL is not a URL")
        self._bucket = bucket
        self._context = ssl.create_default_context() if self._url.scheme == "https" else None

    def request(
        self,
        method: str,
        key: str,
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        condition: Mapping[str, str] | None = None,
    ) -> _Answer:
        """Send one request, without a retry. Raises `OSError` and `http.client.HTTPException`."""
        path = urllib.parse.quote(f"/{self._bucket}/{key}" if key else f"/{self._bucket}", safe="/-_.~")
        headers = dict(condition or {})
        region, _, keys = self._account
        if keys[0]:
            now = datetime.datetime.now(datetime.UTC)
            digest = hashlib.sha256(body).hexdigest()
            headers |= s3_headers(
                method, self._url.netloc, path, region, keys, now, query=query, payload=digest
            )
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            connection.request(method, f"{path}?{query_of(query)}" if query else path, body or None, headers)
            response = connection.getresponse()
            content = response.read(MAX_FILE_BYTES)
            return _Answer(response.status, response.headers, content)
        finally:
            connection.close()

    def retried(
        self,
        method: str,
        key: str,
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        condition: Mapping[str, str] | None = None,
    ) -> _Answer:
        """Send a request until it has a result. Raises `UncertainError` after the last attempt."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                answer = self.request(method, key, body=body, query=query, condition=condition)
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            else:
                if answer.status not in _TEMPORARY:
                    return answer
                reason = f"status {answer.status}"
            time.sleep(_PAUSE * (attempt + 1))
        raise UncertainError(f"cannot reach the bucket {self._bucket}: {reason}")

    def keys(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the keys and ETags below a prefix. Raises `AuditError`."""
        query = {"list-type": "2", "prefix": prefix}
        for _ in range(_MAX_PAGES):
            answer = self.retried("GET", "", query=query)
            if answer.status != http.client.OK:
                raise AuditError(f"cannot list the bucket {self._bucket}: status {answer.status}")
            try:
                document = ET.fromstring(answer.body)  # noqa: S314 - bounded, and expat has no external entities
            except ET.ParseError:
                raise AuditError(f"cannot list the bucket {self._bucket}: the response is not XML") from None
            for item in document.iterfind("{*}Contents"):
                yield item.findtext("{*}Key") or "", item.findtext("{*}ETag") or ""
            token = document.findtext("{*}NextContinuationToken")
            if not token:
                return
            if token == query.get("continuation-token"):
                break
            query["continuation-token"] = token
        raise AuditError(f"cannot list the bucket {self._bucket}: the server's pages do not end")


class Bucket:
    """The files of one log below ``s3://BUCKET/PREFIX``. Paths are relative, with slashes. See `Directory`."""

    def __init__(self, url: str, public: Mapping[str, bytes] | None = None) -> None:
        """``public`` are files that are written once the lease is acquired, by path."""
        self.root, self._public = url.rstrip("/"), dict(public or {})
        name, self._prefix = split(url)
        self._client = Client(name)
        self._etags: dict[str, str] = {}
        # SHA-256 of what this process may have written, by path: it is not a conflict.
        self._attempts: dict[str, set[str]] = {}
        self._holder = uuid.uuid4().hex
        self._until = 0.0
        self._renewals: threading.Thread | None = None
        self._stop = threading.Event()

    def read(self, path: str) -> bytes | None:
        """Return a file, or None if it does not exist. Raises `AuditError`."""
        data = self._get(path)
        if data is not None or path.startswith("."):
            return data
        packed = self._get(f"{path}.gz") if path.startswith("tile/entries/") else None
        try:
            return gunzip(packed) if packed is not None else None
        except (EOFError, zlib.error):
            return b""

    def paths(self) -> Iterator[str]:
        """Yield the paths of all files except those with a dot."""
        for key, _ in self._client.keys(f"{self._prefix}/"):
            path = key.removeprefix(f"{self._prefix}/")
            if not path.rpartition("/")[2].startswith("."):
                yield path.removesuffix(".gz")

    def write(self, path: str, data: bytes) -> None:
        """Write a file: it is durable afterwards. Raises `AuditError`."""
        if time.monotonic() >= self._until:
            raise AuditError(f"the lease of {self.root} is lost")
        self._put(path, data)

    def sync(self) -> None:
        """Do nothing: each write is durable."""

    def compress(self, path: str) -> None:
        """Replace a file by its compressed form."""
        data = self._get(path)
        if data is not None:
            self.write(f"{path}.gz", gzip.compress(data, 6, mtime=0))
            self._delete(path)

    def delete(self, path: str) -> None:
        """Delete a file or its compressed form."""
        for name in (path, f"{path}.gz"):
            if name in self._etags:
                self._delete(name)

    def _delete(self, path: str) -> None:
        answer = self._client.retried("DELETE", self._key(path))
        if answer.status not in (200, 204, 404):
            raise AuditError(f"cannot delete {self.root}/{path}: status {answer.status}")
        self._etags.pop(path, None)
        self._attempts.pop(path, None)

    def delete_partials(self, path: str) -> None:
        """Delete the partial tiles of a full tile, also those that a delayed or a foreign write left."""
        for key, _ in self._client.keys(self._key(f"{path}.p/")):
            self._delete(key.removeprefix(f"{self._prefix}/"))

    def discard(self, path: str) -> bool:
        """Delete a full tile and its partial tiles. Return whether there were any."""
        there = any(each in (path, f"{path}.gz") or each.startswith(f"{path}.p/") for each in self._etags)
        if there:
            self.delete(path)
            self.delete_partials(path)
        return there

    def lock(self) -> None:
        """Become the only writer, by a lease.

        Raises:
            LockedError: another process writes this log, or stopped less than the lease ago.
            AuditError: the bucket cannot be used.
        """
        answer = self._client.retried("GET", self._key(LOCK))
        condition = {"If-None-Match": "*"}
        if answer.status == http.client.OK:
            if not _is_expired(answer):
                raise LockedError(f"cannot open the log {self.root}: another process writes it")
            condition = {"If-Match": answer.headers["ETag"]}
        elif answer.status != http.client.NOT_FOUND:
            raise AuditError(f"cannot open the log {self.root}: status {answer.status}")
        start = time.monotonic()
        self._etags[LOCK] = self._claim(condition)
        if self._client.retried(
            "PUT", self._key(LOCK), body=b"", condition={"If-None-Match": "*"}
        ).status not in (409, 412):
            raise AuditError(f"cannot open the log {self.root}: the server ignores If-None-Match")
        self._until = start + LEASE_SECONDS - 2 * _TIMEOUT
        self._etags |= {
            key.removeprefix(f"{self._prefix}/"): etag
            for key, etag in self._client.keys(f"{self._prefix}/")
            if not key.endswith(f"/{LOCK}")
        }
        self._stop.clear()
        self._renewals = threading.Thread(target=self._renew, name="audit-lease", daemon=True)
        self._renewals.start()
        for path, data in self._public.items():
            if self._get(path) != data:
                self.write(path, data)

    def unlock(self) -> None:
        """Let another process write."""
        self._stop.set()
        if self._renewals is not None:
            self._renewals.join(_TIMEOUT)
            self._renewals = None
        if self._until:
            self._until = 0.0
            released = json.dumps({"holder": ""}).encode()
            try:
                self._client.request(
                    "PUT", self._key(LOCK), body=released, condition={"If-Match": self._etags[LOCK]}
                )
            except (OSError, http.client.HTTPException):
                return

    def _claim(self, condition: Mapping[str, str]) -> str:
        """Write the lease, and return its ETag."""
        # Each renewal has other content, so that its ETag changes.
        body = json.dumps({"holder": self._holder, "renewal": uuid.uuid4().hex}).encode()
        answer = self._client.retried("PUT", self._key(LOCK), body=body, condition=condition)
        if answer.status == http.client.OK:
            return answer.headers["ETag"]
        current = self._client.retried("GET", self._key(LOCK))
        if current.status == http.client.OK and self._holder.encode() in current.body:
            # An attempt without a response was applied.
            return current.headers["ETag"]
        if answer.status in (409, 412):
            raise LockedError(f"cannot open the log {self.root}: another process writes it")
        raise AuditError(f"cannot open the log {self.root}: status {answer.status}")

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_SECONDS):
            start = time.monotonic()
            try:
                self._etags[LOCK] = self._claim({"If-Match": self._etags[LOCK]})
            except LockedError:
                self._until = 0.0
                return
            except AuditError:
                continue
            # The ETag is that of the last renewal, so no other process had the lease since.
            self._until = start + LEASE_SECONDS - 2 * _TIMEOUT

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    def _get(self, path: str) -> bytes | None:
        answer = self._client.retried("GET", self._key(path))
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise AuditError(f"cannot read {self.root}/{path}: status {answer.status}")
        self._etags[path] = answer.headers.get("ETag", "")
        return answer.body

    def _put(self, path: str, data: bytes) -> None:
        attempts = self._attempts.setdefault(path, set())
        digest = hashlib.sha256(data).hexdigest()
        for _ in range(_ATTEMPTS):
            etag = self._etags.get(path)
            condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
            attempts.add(digest)
            answer = self._client.retried("PUT", self._key(path), body=data, condition=condition)
            if answer.status == http.client.OK:
                self._etags[path] = answer.headers["ETag"]
                if not path.startswith("tile/"):
                    self._attempts[path] = {digest}
                return
            if answer.status not in (404, 409, 412):
                raise AuditError(f"cannot write {self.root}/{path}: status {answer.status}")
            self._etags.pop(path, None)
            current = self._get(path)
            if current == data:
                return
            if current is not None and hashlib.sha256(current).hexdigest() not in attempts:
                raise AuditError(f"cannot write {self.root}/{path}: another process wrote it")
        raise UncertainError(f"cannot write {self.root}/{path}: its content changes")


def _is_expired(answer: _Answer) -> bool:
    """Return whether a lease was released or has expired, by the server's clock."""
    try:
        if not json.loads(answer.body).get("holder"):
            return True
        age = parsedate_to_datetime(answer.headers["Date"]) - parsedate_to_datetime(
            answer.headers["Last-Modified"]
        )
    except (ValueError, TypeError, AttributeError, KeyError):
        return False
    return age.total_seconds() > LEASE_SECONDS


def is_free(url: str, checkpoint: bytes) -> bool:
    """Return whether no process writes a log, and its checkpoint is the given one. Raises `AuditError`."""
    name, prefix = split(url)
    client = Client(name)
    lease = client.retried("GET", f"{prefix}/{LOCK}")
    # A writer that stopped since the checkpoint was read wrote its stop entry.
    return (
        lease.status == http.client.OK
        and _is_expired(lease)
        and _object(client, f"{prefix}/{CHECKPOINT}") == checkpoint
    )


def is_bucket(directory: str) -> bool:
    """Return whether a directory of the configuration is a bucket."""
    return directory.startswith(SCHEME)


def split(url: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://BUCKET/PREFIX``. Raises `AuditError`."""
    bucket, _, prefix = url.removeprefix(SCHEME).strip("/").partition("/")
    if not url.startswith(SCHEME) or not bucket or not prefix:
        raise AuditError(f"{url[:200]} is not s3://BUCKET/PREFIX")
    return bucket, prefix


@contextmanager
def local(directory: str) -> Iterator[Path]:
    """Yield a directory of logs: for a bucket a temporary copy, for any other name the directory itself.

    Raises:
        AuditError: the bucket cannot be read.
    """
    if not is_bucket(directory):
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="weightlock-logs-") as scratch:
        copy_logs(directory, Path(scratch))
        yield Path(scratch)


def copy_logs(url: str, target: Path) -> int:
    """Copy all logs below ``s3://BUCKET/PREFIX`` into a directory, and return the number of new files.

    Full tiles that the directory has are not read again. Checkpoints are read first, so that all their tiles exist.

    Raises:
        AuditError: the bucket cannot be read.
    """
    name, prefix = split(url)
    client = Client(name)
    directory = Directory(target, fsync=False)
    heads = [(key, body) for key in _named(client, prefix, "checkpoint") if (body := _object(client, key))]
    count = 0
    for key, _ in client.keys(f"{prefix}/"):
        path = key.removeprefix(f"{prefix}/")
        plain = path.removesuffix(".gz")
        if not _is_public(plain) or path.endswith("checkpoint"):
            continue
        if path.partition("tile/")[1] and (target / path).exists():
            continue
        data = _object(client, key)
        if data is not None:
            directory.write(path, data)
            count += 1
    for key, body in heads:
        directory.write(key.removeprefix(f"{prefix}/"), body)
    return count + len(heads)


def _named(client: Client, prefix: str, name: str) -> list[str]:
    keys = (key for key, _ in client.keys(f"{prefix}/"))
    return [key for key in keys if key.endswith(f"/{name}") and _is_public(key.removeprefix(f"{prefix}/"))]


def _is_public(path: str) -> bool:
    """Return whether a path is one of a log, and stays inside of its directory."""
    return _PUBLIC.fullmatch(path) is not None and not any(each.startswith(".") for each in path.split("/"))


def _object(client: Client, key: str) -> bytes | None:
    answer = client.retried("GET", key)
    if answer.status == http.client.NOT_FOUND:
        return None
    if answer.status != http.client.OK:
        raise AuditError(f"cannot read {key}: status {answer.status}")
    return answer.body
