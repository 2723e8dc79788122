"""Checks of the parts as they run: the leader's lease, the broker and its key service, the age of what they know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from webhook.api.codes import KMS_DENIED
from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import Finding, Patient, SkippedError, sample
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

# Twice as long as a lease lasts, for clocks that differ.
_FRESH = timedelta(seconds=30)
_OLD_SECONDS = 60.0


async def leader(patient: Patient) -> Sequence[Finding]:
    """A controller holds the lease and renews it."""
    name = f"{patient.name}-controller"
    lease = await patient.find(f"/apis/coordination.k8s.io/v1/namespaces/{patient.namespace}/leases/{name}")
    if lease is None and await patient.deployment("controller") is None:
        raise SkippedError("no controller")
    logs = f"kubectl -n {patient.namespace} logs deployment/{name}"
    if lease is None:
        return [Finding("fail", "no controller has ever led", logs)]
    spec = lease.get("spec") or {}
    renewed, holder = parse_time(spec.get("renewTime")), spec.get("holderIdentity")
    if renewed is None or not holder:
        return [Finding("fail", "no controller leads", logs)]
    age = datetime.now(UTC) - renewed
    if age > _FRESH:
        return [
            Finding(
                "fail", f"the last leader, {holder}, renewed its lease {age.total_seconds():.0f} s ago", logs
            )
        ]
    return [Finding("ok", f"{holder}, renewed {max(0.0, age.total_seconds()):.0f} s ago")]


async def broker(patient: Patient) -> Sequence[Finding]:
    """A broker is ready, asked through the API server as its Service."""
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


async def key_service(patient: Patient) -> Sequence[Finding]:
    """No broker was refused or left waiting by a key service since it started."""
    if await patient.deployment("broker") is None:
        raise SkippedError("no broker is installed")
    found = await patient.metrics("broker")
    bad = [
        line.rpartition(" ")[0].partition("{")[2].rstrip("}")
        for text in found.values()
        for line in text.splitlines()
        if line.startswith("weightlock_key_releases_total{")
        and ('result="unavailable"' in line or f'code="{KMS_DENIED}"' in line)
        and not line.endswith(" 0.0")
    ]
    if bad:
        fix = f"kubectl -n {patient.namespace} logs deployment/{patient.name}-broker   (docs/key-broker.md)"
        what = f"keys not released since a broker started: {'; '.join(sorted(set(bad))[:3])}"
        return [Finding("warn", what, fix)]
    return [Finding("ok", f"nothing refused, as {len(found)} brokers count")]


async def knowledge(patient: Patient) -> Sequence[Finding]:
    """Every replica of the webhook hears from the API server, and can read all policies and models."""
    findings = []
    for pod, text in (await patient.metrics("webhook")).items():
        logs = f"kubectl -n {patient.namespace} logs {pod}"
        (age,) = sample(text, "weightlock_snapshot_age_seconds")[:1] or (float("inf"),)
        problems = sum(sample(text, "weightlock_snapshot_problems"))
        if age > _OLD_SECONDS:
            findings.append(Finding("fail", f"{pod} last heard of the cluster {age:.0f} s ago", logs))
        elif problems:
            findings.append(Finding("warn", f"{pod} cannot use {problems:.0f} policies or models", logs))
    return findings or [Finding("ok", "every replica is up to date")]
