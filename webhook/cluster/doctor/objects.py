"""Check the users' objects: policies that do not compile, and models without a volume in the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.config import Settings
from webhook.cluster.doctor.installation_view import CheckResult, Installation
from webhook.core.admission.snapshot import SnapshotBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document

_MOST_NAMED = 5


async def policies(view: Installation) -> Sequence[CheckResult]:
    """Check that every policy compiles: the users' own, and those that the chart mounts."""
    objects = await view.ours("weightpolicies", "WeightPolicy")
    builder = SnapshotBuilder(Settings(), complete=False)
    shipped = await view.mounted("policies", "policies.yaml")
    for document in (*shipped, *objects):
        builder.put(document)
    problems = builder.snapshot().problems
    if problems:
        return [
            CheckResult("fail", f"{key.name}: {why}", f"weightlock policy lint, and correct {key.name}")
            for key, why in list(problems.items())[:_MOST_NAMED]
        ]
    return [CheckResult("ok", f"{len(shipped)} shipped policies and {len(objects)} of your own compile")]


async def models(view: Installation) -> Sequence[CheckResult]:
    """Check that every model that names claims or volumes matches at least one of them."""
    objects = await view.ours("modelweights", "ModelWeights")
    if not objects:
        fix = "register your weights: kubectl explain modelweights.spec, docs/concepts.md"
        return [CheckResult("warn", "no ModelWeights: no weights are protected, only accelerators", fix)]
    claims = await view.items("/api/v1/persistentvolumeclaims")
    volumes = await view.items("/api/v1/persistentvolumes")
    builder = SnapshotBuilder(Settings(), complete=True)
    for document in objects:
        builder.put(document)
    snapshot = builder.snapshot()
    faults = [
        CheckResult("fail", f"{key.name}: {why}", f"kubectl edit modelweights {key.name}")
        for key, why in snapshot.problems.items()
    ]
    matched = set(_matched(snapshot, claims, volumes))
    for name, model in snapshot.models.items():
        # Other volumes are in pods, which the doctor does not read.
        only_named = all(
            entry.persistent_volume_claim or entry.persistent_volume for entry in model.spec.volumes
        )
        if only_named and name not in matched:
            fix = f"compare kubectl get pvc,pv -A --show-labels with kubectl get modelweights {name} -o yaml"
            faults.append(CheckResult("warn", f"{name} matches no claim or volume in this cluster", fix))
    return faults[:_MOST_NAMED] or [CheckResult("ok", f"{len(objects)} models, each with a volume")]


def _matched(snapshot: Snapshot, claims: list[Document], volumes: list[Document]) -> Iterator[str]:
    catalog = snapshot.catalog
    for item in claims:
        metadata = item["metadata"]
        for model in catalog.of_claim(metadata["namespace"], metadata["name"], metadata.get("labels") or {}):
            yield model.name
    for item in volumes:
        for model in catalog.of_volume(item["metadata"]["name"], item["metadata"].get("labels") or {}):
            yield model.name
