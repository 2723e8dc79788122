"""Check the running components: the leader's lease, the broker and its KMS, and the age of the snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from webhook.cluster.api import ApiError
from webhook.cluster.doctor.patient import Finding, Patient, SkippedError, sample
from webhook.core.access.model import parse_time
from webhook.keys.refusal import KMS_REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

# Twice the duration of a lease, to allow for clock skew.
_FRESH = timedelta(seconds=30)
_OLD_SECONDS = 60.0


async def leader(patient: Patient) -> Sequence[Finding]:
    """Check that a controller holds the lease and renews it."""
    name = f"{patient.name}-controller"
    lease = await patient.find(f"/apis/coordination.k8s.io/v1/namespaces/{patient.namespace}/leases/{name}")
    if lease is None and await patient.deployment("controller") is None:
        raise SkippedError("no controller")
    logs = f"kubectl -n {patient.namespace} logs deployment/{name}"
    if lease is None:
        return [Finding("fail", "no controller has ever been the leader", logs)]
    spec = lease.get("spec") or {}
    renewed, holder = parse_time(spec.get("renewTime")), spec.get("holderIdentity")
    if renewed is None or not holder:
        return [Finding("fail", "no controller is the leader", logs)]
    age = datetime.now(UTC) - renewed
    if age > _FRESH:
        return [
            Finding(
                "fail", f"the last leader, {holder}, renewed its lease {age.total_seconds():.0f} s ago", logs
            )
        ]
    return [Finding("ok", f"{holder}, renewed {max(0.0, age.total_seconds()):.0f} s ago")]


async def broker(patient: Patient) -> Sequence[Finding]:
    """Check that a broker is ready, through the API server's proxy of its Service."""
    if await patient.deployment("broker") is None:
        raise SkippedError("no broker is installed")
    name = f"{patient.name}-broker"
    path = f"/api/v1/namespaces/{patient.namespace}/services/https:{name}:8443/proxy/readyz"
    try:
        await patient.text(path)
    except ApiError as error:
        fix = f"kubectl -n {patient.namespace} logs deployment/{name}"
        return [Finding("fail", f"not ready: {error}", fix)]
    return [Finding("ok", "ready")]


async def kms(patient: Patient) -> Sequence[Finding]:
    """Check that no broker had a rejected or timed-out KMS request since it started."""
    if await patient.deployment("broker") is None:
        raise SkippedError("no broker is installed")
    texts = await patient.metrics("broker")
    bad = [
        line.rpartition(" ")[0].partition("{")[2].rstrip("}")
        for text in texts.values()
        for line in text.splitlines()
        if line.startswith("weightlock_key_releases_total{")
        and ('result="unavailable"' in line or f'code="{KMS_REFUSED}"' in line)
        and not line.endswith(" 0.0")
    ]
    if bad:
        fix = f"kubectl -n {patient.namespace} logs deployment/{patient.name}-broker   (docs/key-broker.md)"
        what = f"failed key releases since a broker started: {'; '.join(sorted(set(bad))[:3])}"
        return [Finding("warn", what, fix)]
    return [Finding("ok", f"no failed release, reported by {len(texts)} brokers")]


async def snapshot(patient: Patient) -> Sequence[Finding]:
    """Check that every replica of the webhook has a current snapshot with valid policies and models."""
    findings = []
    for pod, text in (await patient.metrics("webhook")).items():
        logs = f"kubectl -n {patient.namespace} logs {pod}"
        (age,) = sample(text, "weightlock_snapshot_age_seconds")[:1] or (float("inf"),)
        problems = sum(sample(text, "weightlock_snapshot_problems"))
        if age > _OLD_SECONDS:
            findings.append(Finding("fail", f"the snapshot of {pod} is {age:.0f} s old", logs))
        elif problems:
            findings.append(Finding("warn", f"{pod} reports {problems:.0f} invalid policies or models", logs))
    return findings or [Finding("ok", "the snapshot of every replica is current")]
