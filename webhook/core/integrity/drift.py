"""How an object differs from what it should be, and who wrote it last, in words for a log line and an Event.

Pure comparison: it never says whether a difference matters, and quotes a value only in part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.integrity.extension import without_extension
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from webhook.core.kube.fields import Document

    # What the API server fills in where an object is silent, by the name of the field.
    Defaults = Mapping[str, tuple[Any, ...]]

_MAX_VALUE = 60
# What the API server fills in where a webhook configuration is silent (k8s.io/kubernetes pkg/apis/
# admissionregistration/v1/defaults.go).
WEBHOOK_DEFAULTS: Defaults = {
    "failurePolicy": ("Fail",),
    "matchPolicy": ("Equivalent",),
    "namespaceSelector": ({},),
    "objectSelector": ({},),
    "timeoutSeconds": (10,),
    "reinvocationPolicy": ("Never",),
    "scope": ("*",),
    "port": (443,),
}
# Whoever keeps the certificate fills it in, where it is not part of what is wanted.
FILLED_IN = ("caBundle",)
# The same of a CustomResourceDefinition (k8s.io/apiextensions-apiserver pkg/apis/apiextensions/v1/defaults.go).
DEFINITION_DEFAULTS: Defaults = {"conversion": ({"strategy": "None"},)}


@dataclass(frozen=True, slots=True)
class Writer:
    """The last write of an object that the API server tells of in managedFields."""

    manager: str
    operation: str
    subresource: str
    at: str

    def __str__(self) -> str:
        part = f" of {self.subresource}" if self.subresource else ""
        return f"{self.manager} ({self.operation}{part}) at {self.at}"


def last_writer(document: Document, since: datetime | None = None) -> Writer | None:
    """Who wrote an object last, as far as it says itself; a manager names a program, not a person.

    None where that was before ``since``: a manager that only takes fields away leaves no entry (k8s.io/apimachinery
    pkg/apis/meta/v1/types.go, ManagedFieldsEntry), and somebody else must not be named in its place.
    """
    entries = (document.get("metadata") or {}).get("managedFields")
    dated = [
        (moment, entry)
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and (moment := parse_time(entry.get("time"))) is not None
    ]
    if not dated:
        return None
    moment, entry = max(dated, key=lambda pair: pair[0])
    if since is not None and moment < since.replace(microsecond=0):
        return None
    words = (entry.get(field) or "" for field in ("manager", "operation", "subresource", "time"))
    return Writer(*(str(word)[:_MAX_VALUE] for word in words))


def difference(wanted: Any, found: Any, defaults: Defaults, *, ignored: tuple[str, ...] = ()) -> str | None:
    """The first difference, as ``path is X, should be Y``; None where all that is wanted is there and nothing else.

    A list must have the same length and order. A field that only the API server's ``defaults`` bring, or an ``ignored``
    one that is not wanted, may be there besides.
    """
    return next(_differences(wanted, found, defaults, ignored, ""), None)


def webhook_difference(expected: Any, live: Any) -> str | None:
    """The first difference between the webhooks of a configuration and the expected ones; None if there is none.

    The API server adds defaults, another component the CA bundle, and the controller rules for detected kinds.
    """
    return difference(expected, without_extension(expected, live), WEBHOOK_DEFAULTS, ignored=FILLED_IN)


def _differences(
    wanted: Any, found: Any, defaults: Defaults, ignored: tuple[str, ...], path: str
) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from _differences(value, found.get(key), defaults, ignored, _joined(path, key))
        for key, value in found.items():
            if key not in wanted and key not in ignored and value not in defaults.get(key, ()):
                yield f"{_joined(path, key)} is {_shown(value)}, should not be there"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(one, other, defaults, ignored, f"{path}[{number}]")
    elif wanted is not None and found is None:
        yield f"{path} is missing"
    elif wanted != found:
        yield f"{path} is {_shown(found)}, should be {_shown(wanted)}"


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{len(value)} items" if len(repr(value)) > _MAX_VALUE else repr(value)
    text = str(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"
