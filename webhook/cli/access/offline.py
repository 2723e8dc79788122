"""The access commands without a cluster: a state directory as a ledger, and the denials of a manifest."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.config import Settings
from webhook.app.errors import UsageError
from webhook.cli.access.ledger import Ledger
from webhook.core.admission.snapshot import APPROVALS, MODELS, REQUESTS
from webhook.core.kube.review import causes_of
from webhook.manifests.reader import ManifestError, read_bytes, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider
from webhook.offline.review import Requester, review

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.kube.fields import Document
    from webhook.manifests.reader import Manifest

_MAX_STDIN_BYTES = 1024 * 1024


def state_ledger(directory: Path) -> Ledger:
    """The requests of a state directory. Raises `UsageError`."""
    objects = _source([directory]).snapshot().objects
    return Ledger(objects.each(REQUESTS), objects.each(APPROVALS), objects.each(MODELS), datetime.now(UTC))


def state_pods(directory: Path, namespaces: Iterable[str]) -> list[Document]:
    """The pods of a state directory in some namespaces. Raises `UsageError`."""
    objects = _source([directory]).snapshot().objects
    return [pod for namespace in namespaces for pod in objects.each("Pod", namespace)]


def fixes_of(denied: str, state: Path | None) -> list[str]:
    """Return the fixes of a denial: of its text, of its Status, or of a manifest in that state. Raises `UsageError`."""
    if denied != "-" and not Path(denied).exists():
        return [denied]
    try:
        manifests = _manifests(denied)
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if isinstance(manifests, str):
        return [manifests]
    statuses = [manifest.document for manifest in manifests if manifest.document.get("kind") == "Status"]
    if statuses:
        return [cause.message for status in statuses for cause in causes_of(status)]
    if state is None:
        raise UsageError(
            "a manifest is evaluated against a state directory: add --state DIR, or give the denial"
        )
    return _reviewed(manifests, state)


def _manifests(denied: str) -> list[Manifest] | str:
    """The objects of a file, a directory or standard input, or their text if it contains none."""
    if denied != "-" and Path(denied).is_dir():
        return list(read_path(Path(denied)))
    try:
        if denied == "-":
            content = sys.stdin.buffer.read(_MAX_STDIN_BYTES)
        else:
            with Path(denied).open("rb") as file:
                content = file.read(_MAX_STDIN_BYTES)
    except OSError as error:
        raise UsageError(f"{denied}: {error.strerror or error}") from None
    if b"apiVersion" not in content:
        return content.decode(errors="replace")
    return list(read_bytes(content, "standard input" if denied == "-" else denied))


def _reviewed(manifests: list[Manifest], state: Path) -> list[str]:
    try:
        source = _source([shipped_policies(), state])
        outcomes = [review(manifest, Requester(), source) for manifest in manifests]
    except (ManifestError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    return [finding.fix for outcome in outcomes for finding in outcome.verdict.denials]


def _source(paths: list[Path]) -> DirectoryProvider:
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing}: no such directory")
    try:
        return DirectoryProvider(paths, Settings())
    except ManifestError as error:
        raise UsageError(str(error)) from None
