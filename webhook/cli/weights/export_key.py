"""``weightlock weights export-key``: write a data key to a file, after approvals and with an entry in an audit log.

The escape hatch for the day on which Weightlock cannot run. A request names the digest of a `KeyExport` document, which
binds model, key id, KMS and wrapped key, so approvers approve exactly one key. The key is written only after its entry
is in a signed checkpoint. The command must never print the key, and never replace a file.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from webhook.api.audit import AuditSettings
from webhook.api.base import API_VERSION
from webhook.app.audit import audit_log
from webhook.app.errors import UsageError
from webhook.audit.errors import AuditError, NotLoggedError
from webhook.core.access import Phase
from webhook.core.access.change import KEY_EXPORT, digest_of
from webhook.core.audit.entries import clip
from webhook.keys.errors import BadInputError, KeysError, StorageError
from webhook.keys.rawio import create_file

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.cli.access.ledger import Entry, Ledger
    from webhook.core.kube.fields import Document
    from webhook.keys.sealed.format.manifest import Manifest
    from webhook.keys.sealed.operations import KeyService

_LOG_SECONDS = 30.0


class NotApprovedError(KeysError):
    """The request does not allow this export."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the requests are read: a state directory, or a cluster."""

    state: Path | None
    kubeconfig: str
    context: str


def document_of(claims: Manifest) -> Document:
    """The document whose digest a request names."""
    key = claims.key
    wrapped = f"sha256:{hashlib.sha256(key.wrapped).hexdigest()}"
    spec = {"keyId": key.id, "kms": key.kms, "wrapped": wrapped}
    return {"apiVersion": API_VERSION, "kind": KEY_EXPORT, "metadata": {"name": claims.model}, "spec": spec}


def template(claims: Manifest) -> str:
    """The document as YAML, for ``weightlock access request --change FILE``."""
    text: str = yaml.safe_dump(document_of(claims), sort_keys=False)
    return text


def export(
    claims: Manifest, service: KeyService, request: str, source: Source, audit: Path, output: Path
) -> tuple[str, ...]:
    """Write the data key to ``output`` and return the approvers.

    Raises:
        NotApprovedError: the request is not an active request of this user for this key.
        KeysError: the KMS denied the call, or the file exists.
        StorageError: the export cannot be logged, or the file cannot be written.
    """
    if output.exists() or output.is_symlink():
        raise BadInputError(f"{output} exists: the key is written to a new file only")
    entry, user = _approved(claims, request, source)
    with service.unwrap(claims.key, claims.model) as key:
        asyncio.run(_log(claims, entry, user, audit))
        with key.view() as view:
            if not create_file(output, view, 0o400):
                raise BadInputError(f"{output} exists: the key is written to a new file only")
    return entry.state.approvers


def _approved(claims: Manifest, request: str, source: Source) -> tuple[Entry, str]:
    ledger, user = _read(source)
    entry = ledger.entry(request)
    if entry is None:
        raise NotApprovedError(f"request {request} does not exist; list all: weightlock access list")
    change = (entry.document.get("spec") or {}).get("change") or {}
    document = document_of(claims)
    same = (change.get("kind"), change.get("name"), change.get("digest")) == (
        KEY_EXPORT,
        claims.model,
        digest_of(document),
    )
    if not same:
        raise NotApprovedError(
            f'request {request} is not for key "{claims.key.id}" of model "{claims.model}" as it is in this directory'
        )
    if user and entry.requester != user:
        raise NotApprovedError(f"request {request} is of {entry.requester}, and you are {user}")
    if source.state is None and not entry.document.get("status"):
        raise NotApprovedError(f"request {request} is not evaluated by the controller yet")
    if entry.state.phase is not Phase.ACTIVE:
        raise NotApprovedError(f"request {request} is {str(entry.state.phase).lower()}, not active")
    return entry, user


def _read(source: Source) -> tuple[Ledger, str]:
    """The requests, and the name of the user; the name is empty for a state directory."""
    if source.state is not None:
        from webhook.cli.access.offline import state_ledger  # noqa: PLC0415 - loads the CEL engine

        return state_ledger(source.state), ""
    from webhook.cli.access.ledger import read_ledger  # noqa: PLC0415
    from webhook.cluster.access_client import AccessClient  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415

    async def read() -> tuple[Ledger, str]:
        async with AccessClient.connect(source.kubeconfig, source.context) as client:
            return await read_ledger(client), await client.username()

    try:
        return asyncio.run(read())
    except ClusterError as error:
        raise BadInputError(str(error)) from None
    except ApiError as error:
        raise StorageError(f"cannot read the requests: {error}") from None


async def _log(claims: Manifest, entry: Entry, user: str, audit: Path) -> None:
    who = user or f"{entry.requester} (local user {getpass.getuser()} on {socket.gethostname()})"
    data = {
        "decision": "released",
        "model": clip(claims.model, 253),
        "pod": {},
        "images": [],
        "keys": [claims.key.id],
        "grant": entry.name,
        "code": "",
        "reason": clip(f"exported to a file by {who}: {entry.reason}"),
        "seconds": 0,
    }
    try:
        with audit_log(AuditSettings(directory=str(audit)), "export") as writer:
            if writer is None:
                raise StorageError("cannot log the export: the directory of the audit log is empty")
            await writer.append(
                writer.entry("release", data, subject=f"modelweights/{claims.model}"), _LOG_SECONDS
            )
    except (UsageError, AuditError, NotLoggedError) as error:
        raise StorageError(f"cannot log the export, so the key is not exported: {error}") from None


__all__ = ["NotApprovedError", "Source", "document_of", "export", "template"]
