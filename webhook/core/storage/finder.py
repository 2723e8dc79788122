"""Looking objects up where the cache may lack some: go on to the end, then say what was missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.objects import Lookup, MissingObjectError

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document


class Finder:
    """Looks objects up for one evaluation and goes on where the cache lacks one, so that all are asked for at once."""

    __slots__ = ("lookup",)

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """The object; None where it does not exist, or where `finish` will say that this is not known."""
        try:
            return self.lookup.get(kind, namespace, name)
        except MissingObjectError:
            return None

    def finish(self) -> None:
        """Raise `MissingObjectError` where an object was missing: what was found so far must not be used."""
        if self.lookup.missing:
            raise MissingObjectError(f"{len(self.lookup.missing)} objects are not in the cache")
