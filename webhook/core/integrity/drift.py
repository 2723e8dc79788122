"""Describe how an object differs from the expected one, and who wrote it last, for a log line and an Event.

Pure comparison: it does not decide whether a difference matters, and quotes at most a part of a value.
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

    # The API server's defaults, by field name.
    Defaults = Mapping[str, tuple[Any, ...]]

_MAX_VALUE = 60
# Defaults of a webhook configuration (k8s.io/kubernetes pkg/apis/admissionregistration/v1/defaults.go).
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
# The certificate manager sets it, if the expected object does not contain it.
FILLED_IN = ("caBundle",)
# The defaults of a CustomResourceDefinition (k8s.io/apiextensions-apiserver pkg/apis/apiextensions/v1/defaults.go).
DEFINITION_DEFAULTS: Defaults = {"conversion": ({"strategy": "None"},)}


@dataclass(frozen=True, slots=True)
class Writer:
    """The last write of an object according to its managedFields."""

    manager: str
    operation: str
    subresource: str
    at: str

    def __str__(self) -> str:
        part = f" on {self.subresource}" if self.subresource else ""
        return f"{self.manager} ({self.operation}{part}) at {self.at}"


def last_writer(document: Document, since: datetime | None = None) -> Writer | None:
    """Return the last writer of an object according to managedFields; a manager names a program, not a user.

    None if that was before ``since``: a manager that only removes fields leaves no entry (k8s.io/apimachinery
    pkg/apis/meta/v1/types.go, ManagedFieldsEntry), and another manager must not be named instead. Any client can write
    managedFields, so this is a hint for a log line and never evidence.
    """
    entries = (document.get("metadata") or {}).get("managedFields")
    writes = [
        (moment, entry)
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and (moment := parse_time(entry.get("time"))) is not None
    ]
    if not writes:
        return None
    moment, entry = max(writes, key=lambda pair: pair[0])
    if since is not None and moment < since.replace(microsecond=0):
        return None
    words = (entry.get(field) or "" for field in ("manager", "operation", "subresource", "time"))
    return Writer(*(str(word)[:_MAX_VALUE] for word in words))


def difference(
    expected: Any, actual: Any, defaults: Defaults, *, ignored: tuple[str, ...] = ()
) -> str | None:
    """Return the first difference, as ``path is X, expected Y``; None if the objects are equal.

    A list must have the same length and order. Values from the API server's ``defaults``, and ``ignored`` fields that
    the expected object lacks, are not differences.
    """
    return next(_differences(expected, actual, defaults, ignored, ""), None)


def webhook_difference(expected: Any, live: Any) -> str | None:
    """The first difference between the webhooks of a configuration and the expected ones; None if there is none.

    The API server adds defaults, another component the CA bundle, and the controller rules for detected kinds.
    """
    return difference(expected, without_extension(expected, live), WEBHOOK_DEFAULTS, ignored=FILLED_IN)


def _differences(
    expected: Any, actual: Any, defaults: Defaults, ignored: tuple[str, ...], path: str
) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            yield from _differences(value, actual.get(key), defaults, ignored, _join(path, key))
        for key, value in actual.items():
            if key not in expected and key not in ignored and value not in defaults.get(key, ()):
                yield f"{_join(path, key)} is {_text(value)}, expected none"
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for number, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(one, other, defaults, ignored, f"{path}[{number}]")
    elif expected is not None and actual is None:
        yield f"{path} is missing"
    elif expected != actual:
        yield f"{path} is {_text(actual)}, expected {_text(expected)}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{len(value)} items" if len(repr(value)) > _MAX_VALUE else repr(value)
    text = str(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"
