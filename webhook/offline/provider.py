"""A state directory as a snapshot provider: its objects are the whole state, and its RBAC objects decide.

It answers immediately, so a review of files and an offline webhook return the verdicts of a cluster in that state. An
invalid object in the directory is an error. Objects that are stored later are as they would be on a cluster: an invalid
one is reported by its own review.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.core.admission.provider import FetchedData
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.images.describe import UNAVAILABLE, ImageAnswer, rules_for
from webhook.core.kube.rbac import decide
from webhook.manifests.reader import Manifest, ManifestError, read_path
from webhook.offline.keys import signing_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from webhook.api.config import Settings
    from webhook.api.images import ImageTrustSpec
    from webhook.core.admission.provider import RequiredData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.images.describe import ImageQuery
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey
    from webhook.core.policies.match import RequestKind

    # An image and the rules that cover it, by the hash of their trust.
    ImageReader = Callable[[ImageQuery, Mapping[str, ImageTrustSpec]], ImageAnswer]


class ManifestProvider:
    """Provides snapshots of manifests. ``like`` lends its compiled policies, ``images`` verifies images.

    ``late`` names policies that are known to compile, and the kinds of all requests that may follow: see
    `SnapshotBuilder.compile_late`.

    Raises `ManifestError`.
    """

    def __init__(
        self,
        manifests: Iterable[Manifest],
        settings: Settings,
        *,
        now: datetime | None = None,
        like: ManifestProvider | None = None,
        images: ImageReader | None = None,
        late: tuple[Iterable[str], Iterable[RequestKind]] | None = None,
    ) -> None:
        manifests = list(manifests)
        keys, moment = signing_keys(manifests), now or datetime.now(UTC)
        self._images: ImageReader = images or _no_images
        self._builder = SnapshotBuilder(settings, complete=True, verifier=keys, assumed_time=moment)
        places: dict[object, str] = {}
        for manifest in manifests:
            try:
                places[self._builder.put(manifest.document)] = manifest.source
            except ValueError as error:
                raise ManifestError(f"{manifest.source}: {error}", manifest.file, manifest.line) from None
        if late is not None:
            self._builder.compile_late(*late)
        if like is not None:
            like.lend_policies(self._builder)
        snapshot = self._builder.snapshot()
        for key, problem in snapshot.problems.items():
            raise ManifestError(f"{places.get(key, key.name)}: {key.kind} {key.name}: {problem}")

    def lend_policies(self, builder: SnapshotBuilder) -> None:
        """Give the compiled policies to a builder that holds the same ones."""
        builder.share_policies(self._builder.snapshot(), self._builder)

    def snapshot(self) -> Snapshot:
        """Return the current state."""
        return self._builder.snapshot()

    def age(self) -> float:
        """Return 0: no newer state exists."""
        return 0.0

    def put(self, document: Document) -> None:
        """Add or replace one object. Raises `ValueError` if it is not a Kubernetes object."""
        self._builder.put(document)

    def remove(self, key: ObjectKey) -> None:
        """Remove one object."""
        self._builder.remove(key)

    def resolve(self, needs: RequiredData) -> FetchedData:
        """Decide by the RBAC objects. Objects that are not in the directory do not exist."""
        objects = self._builder.objects
        return FetchedData(
            decisions={question: decide(question, objects) for question in needs.questions},
            objects=dict.fromkeys(needs.objects),
            images={query: self._answer(query) for query in needs.images},
        )

    def _answer(self, query: ImageQuery) -> ImageAnswer:
        return self._images(query, rules_for(query, self._builder.snapshot().images))

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """Like `resolve`."""
        return self.resolve(needs)


class DirectoryProvider(ManifestProvider):
    """Reads the manifests below the given paths once, at construction. Raises `ManifestError` if one is invalid."""

    def __init__(
        self,
        paths: Iterable[Path],
        settings: Settings,
        *,
        now: datetime | None = None,
        images: ImageReader | None = None,
    ) -> None:
        manifests = (manifest for path in paths for manifest in read_path(path))
        super().__init__(manifests, settings, now=now, images=images)


def _no_images(query: ImageQuery, rules: Mapping[str, ImageTrustSpec]) -> ImageAnswer:
    """No registry is contacted offline."""
    del rules
    return ImageAnswer(reason=UNAVAILABLE, message=f"no registry layout contains {query.reference}")
