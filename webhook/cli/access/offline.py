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
from webhook.manifests.reader import ManifestError, read_bytes, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider
from webhook.offline.review import Requester, review

if TYPE_CHECKING:
    from webhook.manifests.reader import Manifest

_MAX_STDIN_BYTES = 1024 * 1024


def state_ledger(directory: Path) -> Ledger:
    """The requests of a state directory. Raises `UsageError`."""
    objects = _source([directory]).snapshot().objects
    return Ledger(objects.each(REQUESTS), objects.each(APPROVALS), objects.each(MODELS), datetime.now(UTC))


def denials_of(denied: str, state: Path | None) -> list[str]:
    """The text of a denial as it was given, or the denials of a manifest in that state. Raises
    `UsageError`.
    """
    if denied != "-" and not Path(denied).exists():
        return [denied]
    try:
        content = sys.stdin.buffer.read(_MAX_STDIN_BYTES) if denied == "-" else None
        text = content.decode(errors="replace") if content is not None else ""
        if content is not None and "kind:" not in text and '"kind"' not in text:
            return [text]
        manifests = list(
            read_bytes(content, "standard input") if content is not None else read_path(Path(denied))
        )
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if state is None:
        raise UsageError(
            "a manifest is judged against a state directory: add --state DIR, or give the denial's text"
        )
    return _reviewed(manifests, state)


def _reviewed(manifests: list[Manifest], state: Path) -> list[str]:
    try:
        source = _source([shipped_policies(), state])
        outcomes = [review(manifest, Requester(), source) for manifest in manifests]
    except (ManifestError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    return [finding.message for outcome in outcomes for finding in outcome.verdict.denials]


def _source(paths: list[Path]) -> DirectoryProvider:
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing}: no such directory")
    try:
        return DirectoryProvider(paths, Settings())
    except ManifestError as error:
        raise UsageError(str(error)) from None
