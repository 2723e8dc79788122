"""Since when the webhook configurations have been what they should be, judged from the objects as they
stand.

Resource versions of one etcd are ordered (KEP-5504), and the version of an object is that of its last
change. So while every configuration is as it should be, all of them have been since the newest of their
versions; whatever was written after that went through admission, and whatever was written before may not
have.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from webhook.core.certificates import bundle
from webhook.core.integrity.drift import FILLED_IN, webhook_difference
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

# The informer of an API server follows by watch, in milliseconds where all is well.
SETTLING = timedelta(seconds=30)
_NEVER = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Protection:
    """Whether admission is as it should be: since which version and moment, or which objects are not and
    how.
    """

    version: int = 0
    since: datetime = _NEVER
    faults: tuple[str, ...] = ()

    def covers(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object with this metadata was surely written under this protection."""
        created, version = parse_time(metadata.get("creationTimestamp")), metadata.get("resourceVersion")
        if self.faults or created is None or not isinstance(version, str) or not version.isdecimal():
            return False
        return int(version) > self.version and created >= self.since


@dataclass(frozen=True, slots=True)
class Continued:
    """A change of our own that left a configuration intact: what holds at ``version`` has held since ``since``.

    ``before`` is the version, and ``since`` the moment, of the last change that was not such a one.
    """

    version: int
    before: int
    since: datetime


def protection(
    expected: Mapping[ObjectKey, Document],
    live: Mapping[ObjectKey, Document | None],
    settling: timedelta = SETTLING,
    *,
    authorities: Collection[str] | None = None,
    continued: Mapping[ObjectKey, Continued] | None = None,
) -> Protection:
    """Compare the configurations as they are with those that should be. Without any expected there is none.

    ``settling`` is how long an API server may go on with the configuration it had. With ``authorities``, their ids,
    every CA bundle must be made of them and nothing else, whatever is expected of it.
    """
    if not expected:
        return Protection(faults=("no webhook configuration is expected, so none can be checked",))
    faults, versions, moments = [], [], []
    for key, wanted in sorted(expected.items()):
        found = live.get(key)
        if found is None:
            faults.append(f"{key.kind.partition('.')[0]} {key.name} is missing")
            continue
        if not same(without_bundles(wanted, authorities), found.get("webhooks")):
            faults.append(f"{key.kind.partition('.')[0]} {key.name} was changed")
        elif authorities is not None and not trusts_only(found, authorities):
            faults.append(
                f"{key.kind.partition('.')[0]} {key.name} trusts an authority that is not ours, or any"
            )
        version, moment = _version(found), _changed(found)
        own = (continued or {}).get(key)
        if own is not None and own.version == version:
            version, moment = own.before, own.since
        versions.append(version)
        moments.append(moment)
    if faults:
        return Protection(faults=tuple(faults))
    return Protection(max(versions), max(moments) + settling)


def without_bundles(document: Document, authorities: Collection[str] | None = ()) -> Any:
    """The webhooks of a configuration as they are wanted; without CA bundles where authorities are looked at apart."""
    webhooks = document.get("webhooks")
    if authorities is None or not isinstance(webhooks, list):
        return webhooks
    return [
        {
            **hook,
            "clientConfig": {k: v for k, v in hook.get("clientConfig", {}).items() if k not in FILLED_IN},
        }
        for hook in webhooks
    ]


def last_change(document: Document) -> tuple[int, datetime]:
    """Version and moment of a configuration's last change."""
    return _version(document), _changed(document)


def trusts_only(found: Document, authorities: Collection[str]) -> bool:
    """Whether every CA bundle of a webhook configuration is made of these authorities, their ids, and nothing else."""
    webhooks = found.get("webhooks")
    return isinstance(webhooks, list) and all(
        bundle.is_made_of(bundle.of_webhook(webhook), authorities) for webhook in webhooks
    )


def same(wanted: Any, found: Any) -> bool:
    """Whether the webhooks that were found say all that is wanted; the API server adds defaults, and others the CA's
    certificate.
    """
    return webhook_difference(wanted, found) is None


def _version(document: Document) -> int:
    version = (document.get("metadata") or {}).get("resourceVersion")
    # A version that cannot be read is later than everything, so that nothing is covered.
    return int(version) if isinstance(version, str) and version.isdecimal() else 2**64


def _changed(document: Document) -> datetime:
    """When the object was last written; later than everything where it does not say."""
    metadata = document.get("metadata") or {}
    entries = metadata.get("managedFields")
    times = [parse_time(entry.get("time")) for entry in entries or () if isinstance(entry, dict)]
    times.append(parse_time(metadata.get("creationTimestamp")))
    if not entries or None in times:
        return _NEVER
    return max(moment for moment in times if moment is not None)
