"""Checks of what people wrote: policies that do not compile, and models that no volume of the cluster is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.config import Settings
from webhook.cluster.doctor.installation_view import Finding, Patient
from webhook.core.admission.snapshot import SnapshotBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document

_MOST_NAMED = 5


async def policies(patient: Patient) -> Sequence[Finding]:
    """Every policy compiles: those that people wrote, and those the chart mounts."""
    written = await patient.ours("weightpolicies", "WeightPolicy")
    builder = SnapshotBuilder(Settings(), complete=False)
    shipped = await patient.mounted("policies", "policies.yaml")
    for document in (*shipped, *written):
        builder.put(document)
    problems = builder.snapshot().problems
    if problems:
        return [
            Finding("fail", f"{key.name}: {why}", f"weightlock policy lint, and correct {key.name}")
            for key, why in list(problems.items())[:_MOST_NAMED]
        ]
    return [Finding("ok", f"{len(shipped)} shipped and {len(written)} of your own compile")]


async def models(patient: Patient) -> Sequence[Finding]:
    """Every model is some claim or volume, where it says by which claims or volumes it is known."""
    written = await patient.ours("modelweights", "ModelWeights")
    if not written:
        fix = "name your weights: kubectl explain modelweights.spec, docs/concepts.md"
        return [Finding("warn", "no ModelWeights: no weights are protected, only accelerators", fix)]
    claims = await patient.items("/api/v1/persistentvolumeclaims")
    volumes = await patient.items("/api/v1/persistentvolumes")
    builder = SnapshotBuilder(Settings(), complete=True)
    for document in written:
        builder.put(document)
    snapshot = builder.snapshot()
    faults = [
        Finding("fail", f"{key.name}: {why}", f"kubectl edit modelweights {key.name}")
        for key, why in snapshot.problems.items()
    ]
    known = set(_known(snapshot, claims, volumes))
    for name, model in snapshot.models.items():
        # Other volumes stand in pods, which nobody here reads.
        only_named = all(
            entry.persistent_volume_claim or entry.persistent_volume for entry in model.spec.volumes
        )
        if only_named and name not in known:
            fix = f"compare kubectl get pvc,pv -A --show-labels with kubectl get modelweights {name} -o yaml"
            faults.append(Finding("warn", f"{name} is no claim or volume of this cluster", fix))
    return faults[:_MOST_NAMED] or [Finding("ok", f"{len(written)}, each found")]


def _known(snapshot: Snapshot, claims: list[Document], volumes: list[Document]) -> Iterator[str]:
    catalog = snapshot.catalog
    for item in claims:
        metadata = item["metadata"]
        for model in catalog.of_claim(metadata["namespace"], metadata["name"], metadata.get("labels") or {}):
            yield model.name
    for item in volumes:
        for model in catalog.of_volume(item["metadata"]["name"], item["metadata"].get("labels") or {}):
            yield model.name
