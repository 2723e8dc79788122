"""Lookups in a cache that may lack objects: continue to the end, then report every missing object at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.objects import Lookup, MissingObjectError

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document


class Finder:
    """Looks up objects for one evaluation and continues if the cache lacks one, so that all are fetched together."""

    __slots__ = ("lookup",)

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """Return the object; None if it does not exist, or if `raise_if_missing` will report it."""
        try:
            return self.lookup.get(kind, namespace, name)
        except MissingObjectError:
            return None

    def raise_if_missing(self) -> None:
        """Raise `MissingObjectError` if an object was missing: results so far must not be used."""
        if self.lookup.missing:
            raise MissingObjectError(f"{len(self.lookup.missing)} objects are not in the cache")
