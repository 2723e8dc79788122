"""Stamp on a pod which grant covers each model that it reads.

A pod that a user creates under the user's own grant runs as a service account without one. The stamp ties the pod to
that grant, so that its access ends with the grant. Admission writes the stamp and denies updates that change it. The
controller compares it with the first one that it saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from webhook.api.base import GROUP
from webhook.core.kube.metadata import patch_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.core.access.model import Grant
    from webhook.core.kube.fields import Document

ANNOTATION = f"{GROUP}/grants"
_MAX_STAMP = 64 * 1024


class Cover(NamedTuple):
    """The grant that covers a model: name and UID of its request, and whether it is the pod's service account's."""

    request: str
    uid: str
    own: bool


def covers(
    models: Iterable[str], grants: Iterable[Grant], account: tuple[str, str] | None
) -> dict[str, Cover]:
    """The grant of each model that lasts longest: the service account's if it has one, or else the writer's."""
    best: dict[str, tuple[bool, Any, Grant]] = {}
    names = set(models)
    for grant in grants:
        if grant.model not in names:
            continue
        subject = grant.subject
        own = subject.kind == "ServiceAccount" and (subject.namespace, subject.name) == account
        if grant.model not in best or (own, grant.expires) > best[grant.model][:2]:
            best[grant.model] = (own, grant.expires, grant)
    return {model: Cover(grant.request, grant.uid, own) for model, (own, _, grant) in best.items()}


def is_valid(
    pod: Mapping[str, Any], models: Iterable[str], grants: Iterable[Grant], account: tuple[str, str] | None
) -> bool:
    """Whether a stamp names an active grant for each model that has one, and nothing else.

    Which of several grants does not matter, since replicas learn of new ones at different moments.
    """
    grants = tuple(grants)
    stamp = parse(pod)
    if set(stamp) != set(covers(models, grants, account)) or bool(annotation(pod)) != bool(stamp):
        return False
    active = {
        (grant.model, cover)
        for grant in grants
        for cover in covers((grant.model,), (grant,), account).values()
    }
    return all((model, cover) in active for model, cover in stamp.items())


def render(stamp: Mapping[str, Cover]) -> str:
    """The annotation's value; empty for no cover."""
    if not stamp:
        return ""
    document = {
        model: {"request": cover.request, "uid": cover.uid, "own": cover.own}
        for model, cover in stamp.items()
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def parse(pod: Mapping[str, Any]) -> dict[str, Cover]:
    """The stamp of a pod; empty if it has none, or one that admission did not write."""
    value = annotation(pod)
    if not value or len(value) > _MAX_STAMP:
        return {}
    try:
        document = orjson.loads(value)
        return {
            str(model): Cover(str(entry["request"]), str(entry["uid"]), entry["own"] is True)
            for model, entry in document.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}


def annotation(pod: Mapping[str, Any]) -> str:
    """The annotation's value as it is; empty if there is none."""
    metadata = pod.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    value = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def patch(pod: Document, value: str) -> tuple[Document, ...]:
    """The JSON patch that gives a pod this annotation, or removes another one."""
    return patch_entries(pod, "annotations", {ANNOTATION: value or None})
