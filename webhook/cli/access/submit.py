"""Create an access object, wait for its signature, and verify that the stored object is the one that was sent.

A mutating webhook that runs before Weightlock's can replace the content of an object before it is stamped. Only the
client knows what the user sent, so this comparison happens here. On a difference the object is revoked at once.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from webhook.api.access import AccessApproval, AccessRequest
from webhook.app.errors import IncompleteError, UsageError
from webhook.core.kube.text import one_line

if TYPE_CHECKING:
    from webhook.cluster.access_client import AccessClient
    from webhook.core.kube.fields import Document

_POLL_SECONDS = 0.5
_REJECTED = ("Invalid", "Ignored")
_STAMPS = {"requester", "approver", "stamped_at", "stamp", "signature"}


class RejectedError(Exception):
    """The controller did not sign an object, or the stored object differs; the message is one line."""


async def submit(client: AccessClient, document: Document, seconds: float) -> Document:
    """Create an object, wait up to ``seconds`` for its signature, and return it as stored.

    If the controller reports that it can sign a new object later, such as shortly after an installation, the object is
    created again after that time, under another name.

    Raises:
        ApiError: the API server denied the object or failed.
        RejectedError: the object is not valid.
        IncompleteError: the signature is not available in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        stored = await client.create(document)
        await _verify(client, document, stored)
        if seconds <= 0:
            return stored
        stored = await signed(client, document["kind"], stored["metadata"]["name"], deadline)
        status = stored.get("status") or {}
        if status.get("state") not in _REJECTED or (stored.get("spec") or {}).get("signature"):
            await _verify(client, document, stored)
            return stored
        reason, pause = str(status.get("reason", "")), status.get("retryAfterSeconds")
        if not isinstance(pause, int) or time.monotonic() + pause > deadline:
            raise RejectedError(f"{_name(stored)} is not valid: {one_line(reason)}")
        print(f"{_name(stored)}: {one_line(reason)}; retrying in {pause} s", file=sys.stderr)
        await asyncio.sleep(pause)
        document = {
            **document,
            "metadata": {"name": f"{document['metadata']['name']}-{secrets.token_hex(2)}"},
        }


async def signed(client: AccessClient, kind: str, name: str, deadline: float) -> Document:
    """Return an object as soon as it is signed or rejected.

    Raises:
        IncompleteError: neither happened before ``deadline`` (monotonic).
    """
    while True:
        stored = await client.read(kind, name)
        status = stored.get("status") or {}
        if (stored.get("spec") or {}).get("signature") or status.get("state"):
            return stored
        if time.monotonic() + _POLL_SECONDS > deadline:
            raise IncompleteError(
                f"{kind} {name} is created but not signed yet: check the controller with weightlock doctor, "
                f"and the request with weightlock access list"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _verify(client: AccessClient, sent: Document, stored: Document) -> None:
    """Compare the stored object with the sent one, and revoke it on a difference. Raises `RejectedError`."""
    fields = differences(sent, stored)
    if not fields:
        return
    revoked = await _revoke(client, stored)
    result = "it was revoked" if revoked else "IT COULD NOT BE REVOKED: contact your cluster admin now"
    raise RejectedError(
        f"another admission webhook modified {_name(stored)} ({', '.join(fields)}); {result}. "
        f"List the mutating webhooks: weightlock doctor"
    )


async def _revoke(client: AccessClient, stored: Document) -> bool:
    """Revoke the request that a modified object is or refers to; return whether the revocation is stored unmodified."""
    spec, metadata = stored.get("spec") or {}, stored["metadata"]
    request = (
        {"name": metadata["name"], "uid": metadata["uid"]}
        if stored["kind"] == "AccessRequest"
        else spec.get("request") or {}
    )
    document: Document = {
        "apiVersion": stored["apiVersion"],
        "kind": "AccessApproval",
        "metadata": {"name": f"{str(request.get('name'))[:200]}-revoke-{secrets.token_hex(3)}"},
        "spec": {
            "request": request,
            "decision": "Revoke",
            "comment": f"{stored['kind']} was modified on the way",
        },
    }
    from webhook.cluster.client.api import ApiError  # noqa: PLC0415 - the client takes long to import

    try:
        return not differences(document, await client.create(document))
    except ApiError:
        return False


def differences(sent: Document, stored: Document) -> list[str]:
    """Return the fields of the spec, and the name, that differ from what was sent; stamps do not count."""
    before, after = _content(sent), _content(stored)
    fields = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    return [f"spec.{field}" for field in fields] + (
        ["metadata.name"] if sent["metadata"].get("name") != stored["metadata"].get("name") else []
    )


def _content(document: Document) -> dict[str, Any]:
    model = AccessRequest if document["kind"] == "AccessRequest" else AccessApproval
    try:
        typed: AccessRequest | AccessApproval = model.model_validate(document)
    except ValidationError:
        return dict(document.get("spec") or {})
    return typed.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_STAMPS)


def _name(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def seconds_of(text: str) -> float:
    """Parse ``--wait``: seconds. Raises `UsageError`."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise UsageError(f"--wait {text}: expected seconds between 0 and 3600")
    return seconds
