"""Stores on servers: ``https://``, ``s3://``, ``gs://``, ``oci://``, and every other URL through fsspec.

Sealed data is encrypted and every byte of it is authenticated, so a server is not trusted, and neither is the network.
Each read is one range request, with retries. Requests of several threads use several connections. Memory is what the
reader asks for, and no more.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import os
import random
import ssl
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Protocol

from webhook.keys.errors import BadInputError, SealedDataError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.sealed.storage.oci import OciStore

_TIMEOUT = 30.0
_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_CONNECTIONS = 16
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_MAX_PART = 16 << 20
_EMPTY = hashlib.sha256(b"").hexdigest()


class RangeClient:
    """Range requests to one origin over kept connections. Safe for several threads."""

    def __init__(self, url: str, sign: Callable[[str, str], dict[str, str]] | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.query:
            raise BadInputError(f"{url[:200]} is not the URL of a directory")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._context = ssl.create_default_context() if self._tls else None
        self._sign = sign
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, path: str, start: int, buffer: memoryview) -> tuple[int, int]:
        """Read ``path`` from ``start`` into ``buffer``. Returns the bytes read and the size of the file.

        Raises:
            FileNotFoundError: the file does not exist.
            StorageError: the server does not respond, or does not support ranges.
        """
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._once(path, start, buffer)
            except _TemporaryError as error:
                if attempt == _ATTEMPTS:
                    raise StorageError(f"{self.origin}{path.partition('?')[0]}: {error}") from None
            time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _once(self, path: str, start: int, buffer: memoryview) -> tuple[int, int]:
        headers = {"Range": f"bytes={start}-{start + len(buffer) - 1}", "Accept-Encoding": "identity"}
        if self._sign is not None:
            headers |= self._sign("GET", path)
        connection = self._connection()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            result = self._read(response, path, start, buffer)
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if isinstance(error, FileNotFoundError):
                raise
            raise _TemporaryError(str(error) or type(error).__name__) from None
        except BaseException:
            connection.close()
            raise
        self._keep(connection, response)
        return result

    def _read(
        self, response: http.client.HTTPResponse, path: str, start: int, buffer: memoryview
    ) -> tuple[int, int]:
        status = response.status
        if status in _TEMPORARY:
            raise _TemporaryError(f"status {status}")
        if status == 404:
            raise FileNotFoundError(path)
        if status == 416:
            return 0, _size(response.headers.get("Content-Range", ""), start)
        if status == 200 and start == 0 and int(response.headers.get("Content-Length") or -1) <= len(buffer):
            size = int(response.headers.get("Content-Length") or 0)
        elif status == 206:
            size = _size(response.headers.get("Content-Range", ""), start)
        else:
            raise StatusError(self.origin, path, response)
        expected = min(len(buffer), max(size - start, 0))
        done = 0
        while done < expected:
            count = response.readinto(buffer[done:expected])
            if not count:
                raise _TemporaryError("the connection was closed early")
            done += count
        return done, size

    def _connection(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=_TIMEOUT, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)

    def _keep(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        with self._lock:
            if response.isclosed() and not response.will_close and len(self._idle) < _CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


class StatusError(StorageError):
    """A status that is not the content: ``location`` and ``challenge`` are those of its headers."""

    def __init__(self, origin: str, path: str, response: http.client.HTTPResponse) -> None:
        # A query may have a signature.
        super().__init__(f"{origin}{path.partition('?')[0]}: status {response.status} for a range request")
        self.status = response.status
        self.location = response.headers.get("Location", "")
        self.challenge = response.headers.get("WWW-Authenticate", "")


class _TemporaryError(Exception):
    """A failure that a retry may fix."""


class Ranges(Protocol):
    """What a `RemoteBlob` needs of its server."""

    def get(self, path: str, start: int, buffer: memoryview, /) -> tuple[int, int]:
        """See `RangeClient.get`."""


class RemoteBlob:
    """One file of a server."""

    def __init__(self, client: Ranges, path: str, where: str) -> None:
        self._client, self._path, self._where = client, path, where
        probe = memoryview(bytearray(1))
        try:
            _, self.size = client.get(path, 0, probe)
        except FileNotFoundError:
            raise SealedDataError(f"{where} is missing") from None

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """See `Blob.read_at`."""
        done = 0
        while done < len(buffer):
            part = buffer[done : done + _MAX_PART]
            try:
                count, _ = self._client.get(self._path, offset + done, part)
            except FileNotFoundError:
                raise SealedDataError(f"{self._where} is missing") from None
            done += count
            if count < len(part):
                break
        return done

    def close(self) -> None:
        """See `Blob.close`."""


class RemoteStore:
    """A directory of a server. ``base`` is the path of the directory, percent-encoded."""

    def __init__(self, url: str, client: RangeClient, base: str) -> None:
        self._url, self._client, self._base = url.rstrip("/"), client, base.rstrip("/")

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self._url}/{name}" if name else self._url

    def open(self, name: str) -> RemoteBlob:
        """See `Store.open`."""
        return RemoteBlob(self._client, self._path(name), self.where(name))

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`. The size is known after the first request, so a large limit costs no memory."""
        first = memoryview(bytearray(min(limit + 1, 256 << 10)))
        try:
            count, size = self._client.get(self._path(name), 0, first)
        except FileNotFoundError:
            return None
        total = min(size, limit + 1)
        if total <= count:
            return bytes(first[:count])
        content = bytearray(total)
        content[:count] = first[:count]
        with memoryview(content) as view:
            blob = RemoteBlob(self._client, self._path(name), self.where(name))
            done = count + blob.read_at(view[count:], count)
        return bytes(content[:done])

    def close(self) -> None:
        """See `Store.close`."""
        self._client.close()

    def _path(self, name: str) -> str:
        return f"{self._base}/{urllib.parse.quote(name, safe='/')}"


class FsspecStore:
    """A directory of a file system that fsspec supports, such as ``gs://`` with gcsfs."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
        except ImportError:
            raise BadInputError(
                f"{url[:200]} needs fsspec and its package for this kind of URL: pip install fsspec"
            ) from None
        self._url = url.rstrip("/")
        try:
            self._system, self._base = fsspec.core.url_to_fs(self._url)
        except (ValueError, ImportError) as error:
            raise BadInputError(f"cannot open {url[:200]}: {error}") from None

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self._url}/{name}" if name else self._url

    def open(self, name: str) -> FsspecBlob:
        """See `Store.open`."""
        try:
            return FsspecBlob(self._system, f"{self._base}/{name}")
        except FileNotFoundError:
            raise SealedDataError(f"{self.where(name)} is missing") from None

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        try:
            blob = FsspecBlob(self._system, f"{self._base}/{name}")
        except FileNotFoundError:
            return None
        content = bytearray(min(blob.size, limit + 1))
        with memoryview(content) as view:
            return bytes(content[: blob.read_at(view, 0)])

    def close(self) -> None:
        """See `Store.close`."""


class FsspecBlob:
    """One file of an fsspec file system."""

    def __init__(self, system: Any, path: str) -> None:
        self._system, self._path = system, path
        self.size = int(system.info(path)["size"] or 0)

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """See `Blob.read_at`."""
        content = self._system.cat_file(self._path, start=offset, end=min(offset + len(buffer), self.size))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """See `Blob.close`."""


def open_store(url: str) -> RemoteStore | OciStore | FsspecStore:
    """Open the directory at ``url``.

    Raises:
        BadInputError: it is not a URL that can be opened.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in {"https", "http"}:
        return RemoteStore(url, RangeClient(url), urllib.parse.quote(parts.path, safe="/%"))
    if parts.scheme == "s3":
        return _s3(url, parts.netloc, parts.path.strip("/"))
    if parts.scheme == "gs":
        from webhook.keys.sealed.storage.gcs import open_gcs  # noqa: PLC0415 - only this kind of URL needs it

        return open_gcs(url, parts.netloc, parts.path.strip("/"))
    if parts.scheme == "oci":
        from webhook.keys.sealed.storage.oci import OciStore  # noqa: PLC0415 - only this kind of URL needs it

        return OciStore(url)
    return FsspecStore(url)


def _s3(url: str, bucket: str, prefix: str) -> RemoteStore:
    if not bucket:
        raise BadInputError(f"{url[:200]} names no bucket: use s3://BUCKET/PREFIX")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
    host = urllib.parse.urlsplit(endpoint).netloc
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    token = os.environ.get("AWS_SESSION_TOKEN", "")

    def sign(method: str, path: str) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        return s3_headers(method, host, path, region, (access, secret, token), now)

    base = urllib.parse.quote(f"/{bucket}/{prefix}" if prefix else f"/{bucket}", safe="/")
    return RemoteStore(url, RangeClient(endpoint, sign if access else None), base)


def s3_headers(
    method: str, host: str, path: str, region: str, keys: tuple[str, str, str], now: datetime.datetime
) -> dict[str, str]:
    """Headers that authenticate a request without a body to S3 (AWS Signature Version 4).

    ``path`` is percent-encoded. ``keys``: access key id, secret access key and session token, which may be empty.
    """
    access, secret, token = keys
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    del headers["host"]
    return {**headers, "Authorization": credential}


def _size(content_range: str, start: int) -> int:
    """The size of the file from ``Content-Range`` (RFC 9110, section 14.4)."""
    unit, _, rest = content_range.partition(" ")
    span, _, size = rest.partition("/")
    if unit != "bytes" or not size.isdigit() or (span != "*" and not span.startswith(f"{start}-")):
        raise _TemporaryError("the response has no valid Content-Range")
    return int(size)
