"""Stores on servers: ``https://``, ``s3://``, ``gs://``, ``oci://``, and every other URL through fsspec.

Sealed data is encrypted and every byte of it is authenticated, so a server is not trusted, and neither is the network.
Each read is one range request, with retries. Requests of several threads use several connections. Memory is what the
reader asks for, and no more.
"""

from __future__ import annotations

import datetime
import functools
import http.client
import io
import os
import random
import ssl
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Protocol

from webhook.core.sigv4 import Account, s3_headers
from webhook.keys.errors import BadInputError, SealedDataError, StorageError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from webhook.keys.sealed.storage.oci import OciStore

_TIMEOUT = 30.0
_SLOWEST = 16 << 10  # bytes a second: a server that sends less on average is not waited for
_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_CONNECTIONS = 16
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_MAX_PART = 16 << 20
_MAX_DIGITS = 19


class RangeClient:
    """Range requests to one origin over kept connections. Safe for several threads."""

    def __init__(self, url: str, sign: Callable[[str, str], dict[str, str]] | None = None) -> None:
        parts = split_url(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.query:
            raise BadInputError(f"{url[:200]} is not the URL of a directory")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._sign = sign
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, path: str, start: int, buffer: memoryview) -> tuple[int, int]:
        """Read ``path`` from ``start`` into ``buffer``. Returns the bytes read and the size of the file.

        A server may return fewer bytes than requested (RFC 9110, section 15.3.7).

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
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, path, start, buffer)
            except _ClosedError:
                self.close()  # the server closes all idle connections at about the same time
        return self._exchange(connect(self.origin, self._context), path, start, buffer)

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, start: int, buffer: memoryview
    ) -> tuple[int, int]:
        headers = {"Range": f"bytes={start}-{start + len(buffer) - 1}", "Accept-Encoding": "identity"}
        if self._sign is not None:
            headers |= self._sign("GET", path)
        try:
            response = request(connection, path, headers, len(buffer))
            try:
                result = self._read(response, path, start, buffer)
            except BaseException:
                response.close()
                raise
        except FileNotFoundError:
            connection.close()
            raise
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            connection.close()
            raise _ClosedError(str(error) or type(error).__name__) from None
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise _TemporaryError(str(error) or type(error).__name__) from None
        except ValueError as error:  # a header or a name that cannot be sent
            connection.close()
            raise StorageError(f"cannot send a request to {self.origin}: {error}") from None
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
        whole = _number(response.headers.get("Content-Length", ""))
        if status in {206, 416}:
            stop, size = _range(response.headers.get("Content-Range", ""), start)
        elif status == 200 and start == 0 and whole is not None and whole <= len(buffer):
            stop = size = whole
        else:
            raise StatusError(self.origin, path, response)
        expected = min(len(buffer), max(stop - start, 0)) if status != 416 else 0
        position = 0
        while position < expected:
            count = response.readinto(buffer[position:expected])
            if not count:
                raise _TemporaryError("the connection was closed early")
            position += count
        return position, size

    def _keep(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        with self._lock:
            if response.isclosed() and not response.will_close and len(self._idle) < _CONNECTIONS:
                self._idle.append(connection)
                return
        response.close()
        connection.close()


def split_url(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL whose host and port can be used.

    Raises:
        BadInputError: they cannot.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
        (parts.hostname or "").encode("idna")
        url.encode()
    except ValueError as error:
        raise BadInputError(f"{url[:200]} is not a URL: {error}") from None
    if any(char.isspace() for char in parts.netloc):
        raise BadInputError(f"{url[:200]} is not a URL: its host contains a space")
    return parts


def connect(origin: str, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """A new connection to an origin; with a context, by TLS."""
    parts = urllib.parse.urlsplit(origin)
    host = parts.hostname or ""
    if context is None:
        return http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT)
    return http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT, context=context)


def request(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str], size: int
) -> http.client.HTTPResponse:
    """Send a GET request. The response, headers included, must arrive in the time for ``size`` bytes."""
    # Each read has a timeout, but a server that sends a byte now and then would never reach it.
    until = time.monotonic() + _TIMEOUT + size / _SLOWEST
    connection.response_class = functools.partial(_Response, until)  # type: ignore[assignment]
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


class _Response(http.client.HTTPResponse):
    """A response that must be complete at a given time of the monotonic clock."""

    def __init__(self, until: float, sock: socket.socket, *rest: Any, **named: Any) -> None:
        super().__init__(sock, *rest, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, until))


class _Timed(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the server sends too slowly")
        self._sock.settimeout(min(_TIMEOUT, remaining))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


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


class _ClosedError(_TemporaryError):
    """The server closed the connection."""


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
        position = 0
        while position < len(buffer):
            part = buffer[position : position + _MAX_PART]
            try:
                count, _ = self._client.get(self._path, offset + position, part)
            except FileNotFoundError:
                raise SealedDataError(f"{self._where} is missing") from None
            position += count
            if not count or offset + position >= self.size:
                break
        return position

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
            position = count + blob.read_at(view[count:], count)
        return bytes(content[:position])

    def close(self) -> None:
        """See `Store.close`."""
        self._client.close()

    def _path(self, name: str) -> str:
        return f"{self._base}/{urllib.parse.quote(name, safe='/')}"


class FsspecStore:
    """A directory of a file system that fsspec supports, such as ``sftp://`` with paramiko."""

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
        except Exception as error:  # noqa: BLE001 - each package raises errors of its own
            raise BadInputError(f"cannot open {url[:200]}: {_first_line(error)}") from None

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self._url}/{name}" if name else self._url

    def open(self, name: str) -> FsspecBlob:
        """See `Store.open`."""
        try:
            return FsspecBlob(self._system, f"{self._base}/{name}", self.where(name))
        except FileNotFoundError:
            raise SealedDataError(f"{self.where(name)} is missing") from None

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        try:
            blob = FsspecBlob(self._system, f"{self._base}/{name}", self.where(name))
        except FileNotFoundError:
            return None
        content = bytearray(min(blob.size, limit + 1))
        with memoryview(content) as view:
            return bytes(content[: blob.read_at(view, 0)])

    def close(self) -> None:
        """See `Store.close`."""


class FsspecBlob:
    """One file of an fsspec file system."""

    def __init__(self, system: Any, path: str, where: str) -> None:
        self._system, self._path, self._where = system, path, where
        try:
            self.size = int(system.info(path)["size"] or 0)
        except FileNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 - each package raises errors of its own
            raise StorageError(f"cannot read {where}: {_first_line(error)}") from None

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """See `Blob.read_at`."""
        position, stop = 0, min(len(buffer), max(self.size - offset, 0))
        while position < stop:
            try:
                part = self._system.cat_file(self._path, start=offset + position, end=offset + stop)
            except FileNotFoundError:
                raise SealedDataError(f"{self._where} is missing") from None
            except Exception as error:  # noqa: BLE001 - each package raises errors of its own
                raise StorageError(f"cannot read {self._where}: {_first_line(error)}") from None
            count = min(len(part), stop - position)
            if not count:
                break
            buffer[position : position + count] = memoryview(part)[:count]
            position += count
        return position

    def close(self) -> None:
        """See `Blob.close`."""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:300]


def open_store(url: str) -> RemoteStore | OciStore | FsspecStore:
    """Open the directory at ``url``.

    Raises:
        BadInputError: it is not a URL that can be opened.
    """
    parts = split_url(url)
    if parts.scheme in {"https", "http"}:
        return RemoteStore(url, RangeClient(url), urllib.parse.quote(parts.path, safe="/%"))
    if parts.scheme in {"s3", "gs"} and (parts.query or parts.fragment):
        raise BadInputError(
            f"{url[:200]} contains '?' or '#', which are not supported in the name of a prefix"
        )
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
    account = Account.of(os.environ)
    host = urllib.parse.urlsplit(account.endpoint).netloc

    def sign(method: str, path: str) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        return s3_headers(method, host, path, account.region, account.keys, now)

    base = urllib.parse.quote(f"/{bucket}/{prefix}" if prefix else f"/{bucket}", safe="/")
    return RemoteStore(url, RangeClient(account.endpoint, sign if account.keys[0] else None), base)


def _range(content_range: str, start: int) -> tuple[int, int]:
    """Where the response ends, and the size of the file, from ``Content-Range`` (RFC 9110, section 14.4)."""
    unit, _, rest = content_range.partition(" ")
    span, _, length = rest.partition("/")
    first, _, last = span.partition("-")
    size, stop = _number(length), _number(last)
    if unit == "bytes" and size is not None:
        if span == "*":
            return start, size
        if stop is not None and first == str(start):
            return stop + 1, size
    raise _TemporaryError("the response has no valid Content-Range")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None
