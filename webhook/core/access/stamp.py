"""What admission writes onto a new AccessRequest or AccessApproval: who it is from, when, and perhaps a
signature.

The identity is the one the API server authenticated, and replaces whatever was written. A signature is
given only where the caller is trusted to be the API server; anyone else who reaches the port gets stamps
that prove nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import GROUP
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access.signing import Signer
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest, UserInfo

STAMPS = {"accessrequests": "requester", "accessapprovals": "approver"}
_TYPES: dict[str, type[AccessRequest | AccessApproval]] = {
    "accessrequests": AccessRequest,
    "accessapprovals": AccessApproval,
}
_MAX_GENERATED_PREFIX = 240


def person(user: UserInfo) -> Document:
    """``userInfo`` in the form it is stamped in."""
    document: Document = {"username": user.username}
    if user.uid:
        document["uid"] = user.uid
    if user.groups:
        document["groups"] = list(user.groups)
    if user.extra:
        document["extra"] = {key: list(values) for key, values in user.extra.items()}
    return document


def is_access(request: AdmissionRequest) -> bool:
    """Whether a request is about an AccessRequest or an AccessApproval."""
    return request.resource.group == GROUP and request.resource.name in STAMPS


def stamp(
    request: AdmissionRequest, signer: Signer | None, now: datetime, *, trusted_caller: bool = False
) -> tuple[Document, ...]:
    """The JSON patch (RFC 6902) that stamps a new access object; empty for everything else.

    A name asked for by ``generateName`` is given here, because what is signed includes the name. A dry run is
    stamped and never signed: its answer goes back to the writer.
    """
    if not is_access(request) or request.operation != "CREATE" or request.subresource:
        return ()
    document = request.object or {}
    metadata, spec = document.get("metadata"), document.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return ()
    stamps: Document = {STAMPS[request.resource.name]: person(request.user), "stampedAt": format_time(now)}
    patch: list[Document] = []
    name = metadata.get("name") or _generated(metadata, request.uid)
    if name and name != metadata.get("name"):
        patch.append({"op": "add", "path": "/metadata/name", "value": name})
    if signer is not None and trusted_caller and not request.dry_run:
        stamps["signature"] = _signature(request.resource.name, document, {**spec, **stamps}, name, signer)
    elif "signature" in spec:
        stamps["signature"] = ""
    patch += [
        {"op": "add", "path": f"/spec/{field}", "value": value}
        for field, value in stamps.items()
        if spec.get(field) != value
    ]
    return tuple(patch)


def _generated(metadata: Document, uid: str) -> str:
    prefix = metadata.get("generateName")
    if not isinstance(prefix, str) or not prefix:
        return ""
    return prefix[:_MAX_GENERATED_PREFIX] + hashlib.sha256(uid.encode()).hexdigest()[:10]


def _signature(resource: str, document: Document, spec: Document, name: Any, signer: Signer) -> str:
    """Empty where the object does not fit its type: validation refuses it in words."""
    unsigned = {key: value for key, value in spec.items() if key != "signature"}
    try:
        typed = _TYPES[resource].model_validate(
            {**document, "metadata": {"name": name}, "spec": unsigned, "status": None}
        )
    except ValidationError:
        return ""
    return signer.sign(typed)
