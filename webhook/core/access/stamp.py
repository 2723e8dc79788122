"""Admission's additions to a new AccessRequest or AccessApproval: identity, time, and a signature or a stamp.

The identity is the one that the API server authenticated, and replaces any submitted value. Only a caller that is
known to be the API server receives a signature. Any other caller receives a stamp, which alone is not sufficient.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import GROUP
from webhook.core.access.signing import STAMP_TOLERANCE
from webhook.core.kube.time import format_time, parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access.signing import Signer, StampKey
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest, UserInfo

STAMPS = {"accessrequests": "requester", "accessapprovals": "approver"}
_TYPES: dict[str, type[AccessRequest | AccessApproval]] = {
    "accessrequests": AccessRequest,
    "accessapprovals": AccessApproval,
}
_MAX_GENERATED_PREFIX = 240


def person(user: UserInfo) -> Document:
    """Return ``userInfo`` in its stamped form."""
    document: Document = {"username": user.username}
    if user.uid:
        document["uid"] = user.uid
    if user.groups:
        document["groups"] = list(user.groups)
    if user.extra:
        document["extra"] = {key: list(values) for key, values in user.extra.items()}
    return document


def is_access(request: AdmissionRequest) -> bool:
    """Return whether a request is about an AccessRequest or an AccessApproval."""
    return request.resource.group == GROUP and request.resource.name in STAMPS


def stamp(
    request: AdmissionRequest,
    signer: Signer | None,
    now: datetime,
    *,
    trusted_caller: bool = False,
    stamps: StampKey | None = None,
) -> tuple[Document, ...]:
    """Return the JSON patch (RFC 6902) that stamps a new access object; empty for every other object.

    A name from ``generateName`` is assigned here, because the signature covers the name. A dry run is never signed or
    stamped with ``stamps``: its result goes back to the client. If the API server calls the webhook again after
    another webhook modified a signed or stamped object, the object stays as it is, so that validation detects the
    change.
    """
    if not is_access(request) or request.operation != "CREATE" or request.subresource:
        return ()
    document = request.object or {}
    metadata, spec = document.get("metadata"), document.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return ()
    if stamps is not None and stamps.issued(spec.get("stamp")):
        return ()
    if signer is not None and trusted_caller and _is_rewritten(request, document, spec, signer, now):
        return ()
    fields: Document = {STAMPS[request.resource.name]: person(request.user), "stampedAt": format_time(now)}
    patch: list[Document] = []
    name = metadata.get("name") or _generated(metadata, request.uid)
    if name and name != metadata.get("name"):
        patch.append({"op": "add", "path": "/metadata/name", "value": name})
    authenticators = {"stamp": "", "signature": ""}
    typed = _typed(request.resource.name, document, {**spec, **fields}, name)
    if typed is not None and not request.dry_run:
        if stamps is not None:
            authenticators["stamp"] = stamps.stamp(typed)
            spec_with_stamp = typed.spec.model_copy(update={"stamp": authenticators["stamp"]})
            typed = typed.model_copy(update={"spec": spec_with_stamp})
        if signer is not None and trusted_caller:
            authenticators["signature"] = signer.sign(typed)
    fields |= {field: value for field, value in authenticators.items() if value or field in spec}
    patch += [
        {"op": "add", "path": f"/spec/{field}", "value": value}
        for field, value in fields.items()
        if spec.get(field) != value
    ]
    return tuple(patch)


def _is_rewritten(
    request: AdmissionRequest, document: Document, spec: Document, signer: Signer, now: datetime
) -> bool:
    """Return whether this review's object was signed a moment ago for this user, and has other content now."""
    signature, at = spec.get("signature"), parse_time(spec.get("stampedAt"))
    if request.dry_run or not isinstance(signature, str) or not signature.startswith(f"{signer.id}:"):
        return False
    if spec.get(STAMPS[request.resource.name]) != person(request.user):
        return False
    if at is None or abs(now - at) > STAMP_TOLERANCE:
        return False
    typed = _typed(request.resource.name, document, spec, (document.get("metadata") or {}).get("name"))
    return typed is None or not signer.has_signed(typed, signature)


def _generated(metadata: Document, uid: str) -> str:
    prefix = metadata.get("generateName")
    if not isinstance(prefix, str) or not prefix:
        return ""
    return prefix[:_MAX_GENERATED_PREFIX] + hashlib.sha256(uid.encode()).hexdigest()[:10]


def _typed(
    resource: str, document: Document, spec: Document, name: Any
) -> AccessRequest | AccessApproval | None:
    """Return the stamped object; None if it does not match its schema, which validation reports."""
    unsigned = {key: value for key, value in spec.items() if key not in ("signature", "stamp")}
    try:
        return _TYPES[resource].model_validate(
            {**document, "metadata": {"name": name}, "spec": unsigned, "status": None}
        )
    except ValidationError:
        return None
