"""Compare the images that a node reports with those that a pod names by digest.

A node reports the digest of the index, of the manifest for its platform, or of the image configuration. The statement
lists the digests that a manifest names, so that all of them count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from webhook.core.images.describe import references_of, split_reference
from webhook.core.kube.fields import list_at, object_at, text_at

if TYPE_CHECKING:
    from webhook.core.images.index import ImageIndex
    from webhook.core.kube.fields import Document

_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def mismatch(pod: Document, namespace: str, index: ImageIndex) -> str:
    """Return the first container that runs another image than the verified one, or an empty text.

    Only verified images are compared, and only containers that have started: a container that starts later is compared
    when the lease is renewed.
    """
    if not index:
        return ""
    verified: dict[str, tuple[str, set[str]]] = {}
    for container, reference in references_of(pod):
        name = split_reference(reference)
        if not container or not name.digest:
            continue
        allowed = _allowed(f"{name.registry}/{name.repository}", namespace, name.digest, index)
        if allowed:
            verified[container] = (name.digest, allowed)
    status = object_at(pod, "status", "") if verified else {}
    for field in _STATUSES if verified else ():
        for position, item in enumerate(list_at(status, field, "status")):
            path = f"status.{field}[{position}]"
            container = text_at(item, "name", path)
            running = text_at(item, "imageID", path).rpartition("@")[2]
            if not running or container not in verified:
                continue
            digest, allowed = verified[container]
            if running not in allowed:
                return f"container {container} runs {running[:80]}, the pod names {digest}"
    return ""


def _allowed(repository: str, namespace: str, digest: str, index: ImageIndex) -> set[str]:
    """Return the digests that a node may report for a verified image; empty if it is not verified."""
    digests: set[str] = set()
    for rule in index.covering(repository, namespace):
        statement = index.statement(rule.hash, digest)
        if statement is not None and not statement.reason:
            digests |= {digest, *statement.platforms}
    return digests
