"""A state directory as a snapshot source: what it holds is all there is, and its RBAC objects decide.

It answers at once and never waits, so a review of files and an embedded webhook give the verdicts a cluster in that
state would. An object in it that cannot be understood is an error, not a guess.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.core.admission.provider import FetchedData
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.kube.rbac import decide
from webhook.manifests.reader import Manifest, ManifestError, read_path
from webhook.offline.keys import signing_keys

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from webhook.api.config import Settings
    from webhook.core.admission.provider import RequiredData
    from webhook.core.admission.snapshot import Snapshot


class ManifestProvider:
    """Takes manifests once, at construction. ``like`` lends its compiled policies. Raises `ManifestError`."""

    def __init__(
        self,
        manifests: Iterable[Manifest],
        settings: Settings,
        *,
        now: datetime | None = None,
        like: ManifestProvider | None = None,
    ) -> None:
        manifests = list(manifests)
        keys, moment = signing_keys(manifests), now or datetime.now(UTC)
        builder = SnapshotBuilder(settings, complete=True, verifier=keys, assumed_time=moment)
        places: dict[object, str] = {}
        for manifest in manifests:
            try:
                places[builder.put(manifest.document)] = manifest.source
            except ValueError as error:
                raise ManifestError(f"{manifest.source}: {error}") from None
        self._builder = builder
        if like is not None:
            like.lend_policies(builder)
        self._snapshot = builder.snapshot()
        for key, problem in self._snapshot.problems.items():
            raise ManifestError(f"{places.get(key, key.name)}: {key.kind} {key.name}: {problem}")

    def lend_policies(self, builder: SnapshotBuilder) -> None:
        """Give the compiled policies to a builder that holds the same ones."""
        builder.share_policies(self._snapshot, self._builder)

    def snapshot(self) -> Snapshot:
        """The state, which never changes."""
        return self._snapshot

    def age(self) -> float:
        """Always 0: nothing can be newer."""
        return 0.0

    def resolve(self, needs: RequiredData) -> FetchedData:
        """Decide by the RBAC objects; objects that are not in the directory do not exist."""
        objects = self._snapshot.objects
        return FetchedData(
            decisions={question: decide(question, objects) for question in needs.questions},
            objects=dict.fromkeys(needs.objects),
        )

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """As `resolve`."""
        return self.resolve(needs)


class DirectoryProvider(ManifestProvider):
    """Reads the manifests below the given paths once, at construction. Raises `ManifestError` where one is wrong."""

    def __init__(self, paths: Iterable[Path], settings: Settings, *, now: datetime | None = None) -> None:
        super().__init__((manifest for path in paths for manifest in read_path(path)), settings, now=now)
