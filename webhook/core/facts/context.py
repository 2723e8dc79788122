"""The data that all gatherers of one evaluation share: the namespace, the lookups and the compiled settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.core.facts.vendors import vendors_of
from webhook.core.storage.claims import Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.protected import protected_backends

if TYPE_CHECKING:
    from webhook.api.config import Settings
    from webhook.core.facts.vendors import Vendors
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.catalog import Catalog


class Context(NamedTuple):
    """One evaluation, in one namespace (empty for cluster-scoped objects). ``writer`` creates the object, if known."""

    namespace: str
    finder: Finder
    catalog: Catalog
    resolver: Resolver
    settings: Settings
    vendors: Vendors
    writer: str | None = None


def context(namespace: str, lookup: Lookup, catalog: Catalog, settings: Settings) -> Context:
    """Build the context of an evaluation. The caller ends with ``finder.raise_if_missing()``."""
    finder = Finder(lookup)
    backends = protected_backends(catalog, lookup) if catalog else None
    return Context(
        namespace, finder, catalog, Resolver(catalog, finder, backends), settings, vendors_of(settings)
    )
