"""Change control: an object that protects something changes only as several users approved it, content included.

An approved change is bound to a digest of the new object, so the applied object is the approved one. Creating a
ModelWeights or a WeightPolicy only adds protection and requires no approval, so a first install works.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from webhook.api.base import GROUP
from webhook.api.codes import CHANGE_NEEDS_APPROVAL
from webhook.api.modelweights import ModelWeights
from webhook.api.policy import WeightPolicy
from webhook.core.access.problems import AccessProblem
from webhook.core.access.signing import canonical
from webhook.core.kube.objects import group_kind

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.api.access import AccessSettings, Change
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest

DELETION = "delete"
# Not an object of the cluster: the document of `weightlock weights export-key`, whose digest the approvers approve.
KEY_EXPORT = "KeyExport"
_TYPES: dict[str, type[BaseModel]] = {"ModelWeights": ModelWeights, "WeightPolicy": WeightPolicy}


def kind_of(document: Document) -> str:
    """Return the kind as change requests spell it: bare within weightlock.dev, else ``Kind.group``."""
    full = group_kind(str(document.get("apiVersion")), str(document.get("kind")))
    return full.removesuffix(f".{GROUP}")


def digest_of(document: Document) -> str:
    """Return ``sha256:<hex>`` of an object's content without ``metadata`` and ``status``, and its kind and name.

    Weightlock's own objects are parsed first, so that an explicit default equals an absent one.
    """
    metadata = document.get("metadata") or {}
    content = {key: value for key, value in document.items() if key not in ("metadata", "status")}
    model = _TYPES.get(kind_of(document))
    if model is not None:
        try:
            typed = model.model_validate(document)
        except ValidationError:
            pass
        else:
            content |= typed.model_dump(mode="json", by_alias=True, exclude_defaults=True, include={"spec"})
    place = {"namespace": metadata.get("namespace") or "", "name": metadata.get("name")}
    return "sha256:" + hashlib.sha256(canonical({"content": content, "place": place})).hexdigest()


def validate_change(
    request: AdmissionRequest, index: GrantIndex, now: datetime, settings: AccessSettings
) -> tuple[AccessProblem, ...]:
    """Return why a write of an object under change control is denied; empty if it is allowed."""
    control = settings.change_control
    document = request.object or request.old_object
    if not control.enabled or request.subresource or document is None or request.operation == "CONNECT":
        return ()
    kind = kind_of(document)
    if kind not in control.kinds or request.user.username in control.exempt or _is_free(request, kind):
        return ()
    digest = DELETION if request.operation == "DELETE" else digest_of(document)
    if any(_covers(grant.change, kind, request, digest) for grant in index.changes(now)):
        return ()
    what = "delete it" if digest == DELETION else "change it"
    return (
        AccessProblem(
            CHANGE_NEEDS_APPROVAL,
            f"{kind} {request.name} is under change control: the request to {what} is not approved",
            "weightlock access request --change FILE" + (" --delete" if digest == DELETION else ""),
        ),
    )


def _is_free(request: AdmissionRequest, kind: str) -> bool:
    """Return whether nothing changes, or the write only adds protection."""
    if request.operation == "CREATE":
        return kind in _TYPES
    return (
        request.operation == "UPDATE"
        and request.object is not None
        and request.old_object is not None
        and digest_of(request.object) == digest_of(request.old_object)
    )


def _covers(change: Change | None, kind: str, request: AdmissionRequest, digest: str) -> bool:
    return change is not None and (change.kind, change.namespace, change.name, change.digest) == (
        kind,
        request.namespace,
        request.name,
        digest,
    )
