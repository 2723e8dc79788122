"""Send converted entries to a target: a file, HTTP, syslog (RFC 5424 over TLS, RFC 5425), or OTLP logs."""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from webhook.audit.errors import AuditError
from webhook.core.audit.export import CSV_HEADER, FORMATS, severity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from urllib.parse import SplitResult

_BATCH = 500
_SECONDS = 30.0
# RFC 5424: facility 13 is log audit. Severities: OCSF 4 is warning, 3 is notice, 1 is informational.
_FACILITY = 13
_SEVERITY = {4: 4, 3: 5, 1: 6}
_OTLP_SEVERITY = {4: 13, 3: 10, 1: 9}
_CONTENT = {"csv": "text/csv", "cef": "text/plain; charset=utf-8"}


def export(entries: Iterable[dict[str, Any]], form: str, target: str, ca: Path | None = None) -> int:
    """Send all entries. Return their number.

    Raises:
        AuditError: the target is unknown or rejects the entries.
    """
    url = urlsplit(target)
    send = _TARGETS.get(url.scheme) if "://" in target else _file
    if send is None:
        raise AuditError(f"unknown export target {target}: expected {', '.join(sorted(_TARGETS))} or a file")
    try:
        return send(entries, form, url, target, ca)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AuditError(f"cannot export to {target}: {error}") from None


def _file(entries: Iterable[dict[str, Any]], form: str, _: SplitResult, target: str, __: Path | None) -> int:
    stream = sys.stdout.buffer if target == "-" else Path(target).open("wb")  # noqa: SIM115 - closed below
    count = 0
    try:
        if form == "csv":
            stream.write(CSV_HEADER + b"\n")
        for entry in entries:
            stream.write(FORMATS[form](entry) + b"\n")
            count += 1
        stream.flush()
    finally:
        if target != "-":
            stream.close()
    return count


def _http(entries: Iterable[dict[str, Any]], form: str, url: SplitResult, _: str, ca: Path | None) -> int:
    count = 0
    for batch in _batches(entries):
        body = b"\n".join(FORMATS[form](entry) for entry in batch) + b"\n"
        _post(url, body, _CONTENT.get(form, "application/x-ndjson"), ca)
        count += len(batch)
    return count


def _otlp(entries: Iterable[dict[str, Any]], form: str, url: SplitResult, _: str, ca: Path | None) -> int:
    url = url._replace(scheme=url.scheme.removeprefix("otlp+"), path=url.path.rstrip("/") or "/v1/logs")
    count = 0
    for batch in _batches(entries):
        records = [
            {
                "timeUnixNano": str(
                    int(datetime.fromisoformat(entry["time"]).timestamp() * 1_000_000) * 1000
                ),
                "severityNumber": _OTLP_SEVERITY[severity_of(entry)],
                "body": {"stringValue": FORMATS[form](entry).decode()},
                "attributes": [
                    {"key": key, "value": {"stringValue": str(entry.get(name, ""))}}
                    for key, name in (
                        ("event.name", "type"),
                        ("event.id", "id"),
                        ("weightlock.log", "source"),
                    )
                ],
            }
            for entry in batch
        ]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "weightlock"}}]}
        logs = [{"scope": {"name": "weightlock.audit"}, "logRecords": records}]
        document = {"resourceLogs": [{"resource": resource, "scopeLogs": logs}]}
        _post(url, orjson.dumps(document), "application/json", ca)
        count += len(batch)
    return count


def _syslog(entries: Iterable[dict[str, Any]], form: str, url: SplitResult, _: str, ca: Path | None) -> int:
    host, count = url.hostname or "", 0
    with (
        socket.create_connection((host, url.port or 6514), _SECONDS) as plain,
        _context(ca).wrap_socket(plain, server_hostname=host) as stream,
    ):
        for entry in entries:
            priority = _FACILITY * 8 + _SEVERITY[severity_of(entry)]
            kind = entry["type"].rpartition(".")[2]
            head = f"<{priority}>1 {entry['time']} {socket.gethostname()[:255] or '-'} weightlock - {kind} - "
            message = head.encode() + b"\xef\xbb\xbf" + FORMATS[form](entry)
            stream.sendall(f"{len(message)} ".encode() + message)
            count += 1
        stream.unwrap()
    return count


def _post(url: SplitResult, body: bytes, content_type: str, ca: Path | None) -> None:
    host, port = url.hostname or "", url.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=_context(ca))
        if url.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_SECONDS)
    )
    try:
        path = f"{url.path or '/'}{'?' + url.query if url.query else ''}"
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        response.read(65536)
        if response.status >= http.client.MULTIPLE_CHOICES:
            raise ValueError(f"status {response.status}")
    finally:
        connection.close()


def _context(ca: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca) if ca is not None else None)


def _batches(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


_TARGETS: dict[str, Callable[[Iterable[dict[str, Any]], str, SplitResult, str, Path | None], int]] = {
    "http": _http,
    "https": _http,
    "otlp+http": _otlp,
    "otlp+https": _otlp,
    "syslog+tls": _syslog,
}
