"""The audit log of a process: open it as the configuration says, and close it with a stop entry."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.codes import RELEASE_NOT_LOGGED
from webhook.app.errors import UsageError
from webhook.audit.bucket import Bucket, copy_logs, is_bucket, is_free
from webhook.audit.errors import AuditError, NotLoggedError
from webhook.audit.heads import Heads
from webhook.audit.keys import KEYS, load_signer
from webhook.audit.storage import Directory
from webhook.audit.witness import Witnesses
from webhook.audit.writer import LogWriter
from webhook.core.admission.provider import NotReadyError
from webhook.core.audit.entries import clip
from webhook.core.audit.observe import Observer
from webhook.keys.broker.refusal import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from webhook.api.audit import AuditSettings
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.audit.notes import VerifierKey

_OBSERVE_SECONDS = 1.0
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

log = logging.getLogger(__name__)


def origin_of(settings: AuditSettings, component: str) -> str:
    """Return the origin of a component's log: ``<cluster>/<component>/<instance>``."""
    instance = settings.instance or _UNSAFE.sub("-", socket.gethostname())[:80] or "local"
    return f"{settings.cluster or 'cluster'}/{component}/{instance}"


@contextmanager
def audit_log(settings: AuditSettings, component: str) -> Iterator[LogWriter | None]:
    """Open the log of a component while the context lasts. None if the log is off.

    Raises:
        UsageError: the log cannot be opened.
    """
    if not settings.directory:
        yield None
        return
    with ExitStack() as stack:
        try:
            writer = _open(settings, component, stack)
        except AuditError as error:
            raise UsageError(str(error)) from None
        yield writer


def _open(settings: AuditSettings, component: str, stack: ExitStack) -> LogWriter:
    origin = origin_of(settings, component)
    signer = load_signer(_key_file(settings), origin, create=not settings.key)
    public = "".join(f"{each.render()}\n" for each in signer.keys).encode()
    storage: Directory | Bucket
    if is_bucket(settings.directory):
        path = "/".join(origin.split("/")[1:])
        storage = Bucket(f"{settings.directory.rstrip('/')}/{path}", {KEYS: public})
    else:
        place = Path(settings.directory).joinpath(*origin.split("/")[1:])
        storage = Directory(place, fsync=settings.fsync)
    witnesses = None
    if settings.witnesses:
        witnesses = Witnesses(settings.witnesses, settings.witness_timeout_seconds, settings.quorum)
        stack.callback(witnesses.close)
    writer = LogWriter(
        storage,
        signer,
        limit=settings.queue_limit,
        interval=settings.interval_seconds,
        cosign=witnesses.cosign if witnesses is not None else None,
        quorum=settings.quorum,
        witnesses=len(settings.witnesses),
        compress=settings.compress,
        retention_seconds=settings.retention_days * 86_400,
        version=version("weightlock"),
    )
    writer.open()
    stack.callback(writer.close)
    if isinstance(storage, Directory):
        _publish_keys(storage.root, public)
    return writer


def _key_file(settings: AuditSettings) -> Path:
    if is_bucket(settings.directory) and not settings.key:
        raise AuditError("audit.key is required if audit.directory is a bucket")
    parent = Path(settings.directory)
    return Path(settings.key) if settings.key else parent.with_name(f"{parent.name}.key")


def _publish_keys(place: Path, keys: bytes) -> None:
    """Write the public keys beside the log. They help a reader, and prove nothing by themselves."""
    try:
        (place / KEYS).write_bytes(keys)
    except OSError as error:
        raise AuditError(f"cannot write {place / KEYS}: {error.strerror or error}") from None


def log_keys(settings: AuditSettings) -> Callable[[str], Sequence[VerifierKey]]:
    """Return a function that derives the verifier keys of an origin from the private keys of the logs."""
    key = _key_file(settings)
    cache: dict[str, Sequence[VerifierKey]] = {}

    def keys(origin: str) -> Sequence[VerifierKey]:
        if origin not in cache:
            cache[origin] = load_signer(key, origin).keys
        return cache[origin]

    return keys


class LogsDirectory:
    """The directory with all logs. For a bucket, a copy of it in a temporary directory."""

    def __init__(self, directory: str) -> None:
        self._url = directory.rstrip("/") if is_bucket(directory) else ""
        self.path = Path(tempfile.mkdtemp(prefix="weightlock-logs-")) if self._url else Path(directory)

    def refresh(self) -> None:
        """Copy what is new in the bucket. Raises `AuditError`."""
        if self._url:
            copy_logs(self._url, self.path)

    @property
    def is_free(self) -> Callable[[str, bytes], bool] | None:
        """Return the check of a writer's lease in the bucket. None for a directory, whose locks decide."""
        return (lambda path, raw: is_free(f"{self._url}/{path}", raw)) if self._url else None


class ControllerLog:
    """The controller's log: what its leader observes, and the heads of all other logs."""

    def __init__(self, writer: LogWriter, settings: AuditSettings) -> None:
        self._writer = writer
        self._seconds = settings.heads_seconds
        self._logs = LogsDirectory(settings.directory)
        self._heads = Heads(self._logs.path, writer.origin, log_keys(settings), self._logs.is_free)

    def record(self, kind: str, data: Mapping[str, Any], subject: str = "") -> None:
        """Queue one entry."""
        self._writer.submit(self._writer.entry(kind, data, subject=subject))

    def _changes(self) -> list[dict[str, Any]]:
        self._logs.refresh()
        return list(self._heads.changes())

    async def run(
        self, source: SnapshotProvider, leading: Callable[[], bool], issued: Mapping[str, int]
    ) -> None:
        """Log access, certificates and the heads of other logs while this replica leads, until cancelled.

        ``issued`` counts the certificates that this replica issued, by name.
        """
        observer, due, logged = Observer(access=True), 0.0, dict(issued)
        while True:
            await asyncio.sleep(_OBSERVE_SECONDS)
            if not leading():
                observer = Observer(access=True)
                continue
            try:
                for name in [name for name, count in issued.items() if count > logged.get(name, 0)]:
                    self.record("certificate", {"event": "issued", "name": name}, f"secrets/{name}")
                logged = dict(issued)
                for change in observer.changes(source.snapshot(), datetime.now(UTC)):
                    self.record(change.kind, change.data, change.subject)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._seconds
                    for data in await asyncio.to_thread(self._changes):
                        self.record("log", data)
            except NotReadyError:
                continue
            except AuditError as error:
                log.warning("cannot read the audit logs", extra={"fields": {"reason": str(error)}})
            except Exception:
                log.exception("internal error")


class BrokerLog:
    """Log the broker's decisions. A key leaves only after its release is in a signed checkpoint."""

    def __init__(self, writer: LogWriter, settings: AuditSettings) -> None:
        self._writer = writer
        self._deny = settings.on_full.releases == "deny"

    async def release(self, event: Mapping[str, Any], seconds: float) -> str:
        """Log a release and return its receipt. Raises `UnavailableError`."""
        try:
            return (await self._writer.append(self._entry(event), seconds)).proof
        except NotLoggedError as error:
            raise UnavailableError(RELEASE_NOT_LOGGED, f"cannot log the key release: {error}") from None

    def gauges(self) -> dict[str, float | None]:
        """Return the figures of the log by the names of their metrics."""
        return self._writer.gauges()

    def check(self) -> None:
        """Raise `UnavailableError` if the log is full and renewals must be logged."""
        if self._deny and self._writer.full:
            raise UnavailableError(
                RELEASE_NOT_LOGGED, "cannot log the renewal: the queue of the audit log is full"
            )

    def record(self, event: Mapping[str, Any]) -> None:
        """Log a renewal or a denial."""
        self._writer.submit(self._entry(event))

    def _entry(self, event: Mapping[str, Any]) -> dict[str, Any]:
        renewal = event.get("event") == "key.renewal"
        result = str(event.get("result", ""))
        outcome = "renewed" if renewal else "released"
        pod = {
            "namespace": event.get("namespace", ""),
            "name": event.get("pod", ""),
            "uid": event.get("uid", ""),
            "node": event.get("node", ""),
            "zone": event.get("zone", ""),
            "serviceAccount": event.get("serviceAccount", ""),
        }
        data = {
            "decision": outcome if result == "released" else "denied",
            "model": clip(str(event.get("model", "")), 253),
            "pod": {key: value for key, value in pod.items() if value} if pod["name"] else {},
            "images": list(event.get("images", ())),
            "keys": list(event.get("keys", ())),
            "grant": event.get("grant", ""),
            "subject": event.get("subject", ""),
            "credential": clip(str(event.get("credential", "")), 253),
            "code": event.get("code", ""),
            "reason": clip(str(event.get("message", ""))),
            "seconds": int(event.get("seconds", 0)),
        }
        subject = "/".join(filter(None, ("pods", pod["namespace"], pod["name"]))) if pod["name"] else ""
        return self._writer.entry("renewal" if renewal else "release", data, subject=subject)
