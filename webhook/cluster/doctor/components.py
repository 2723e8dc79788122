"""Check the running components: the leader's lease, the broker and its KMS, and the age of the snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from webhook.api.codes import KMS_DENIED
from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError, sample
from webhook.core.injection.sidecar import AGENT
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

# Twice the duration of a lease, to allow for clock skew.
_FRESH = timedelta(seconds=30)
_OLD_SECONDS = 60.0
_MOST_NAMED = 5
# k8s.io/kubernetes pkg/kubelet/images/types.go
_NOT_PULLED = frozenset(
    {"ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName"}
)


async def leader(view: Installation) -> Sequence[CheckResult]:
    """Check that a controller holds the lease and renews it."""
    name = f"{view.name}-controller"
    lease = await view.find(f"/apis/coordination.k8s.io/v1/namespaces/{view.namespace}/leases/{name}")
    if lease is None and await view.deployment("controller") is None:
        raise SkippedError("no controller")
    logs = f"kubectl -n {view.namespace} logs deployment/{name}"
    if lease is None:
        return [CheckResult("fail", "no controller has ever been the leader", logs)]
    spec = lease.get("spec") or {}
    renewed, holder = parse_time(spec.get("renewTime")), spec.get("holderIdentity")
    if renewed is None or not holder:
        return [CheckResult("fail", "no controller is the leader", logs)]
    age = datetime.now(UTC) - renewed
    if age > _FRESH:
        return [
            CheckResult(
                "fail", f"the last leader, {holder}, renewed its lease {age.total_seconds():.0f} s ago", logs
            )
        ]
    return [CheckResult("ok", f"{holder}, renewed {max(0.0, age.total_seconds()):.0f} s ago")]


async def broker(view: Installation) -> Sequence[CheckResult]:
    """Check that a broker is ready, through the API server's proxy of its Service."""
    if await view.deployment("broker") is None:
        raise SkippedError("no broker is installed")
    name = f"{view.name}-broker"
    path = f"/api/v1/namespaces/{view.namespace}/services/https:{name}:8443/proxy/readyz"
    try:
        await view.text(path)
    except ApiError as error:
        fix = f"kubectl -n {view.namespace} logs deployment/{name}"
        return [CheckResult("fail", f"not ready: {error}", fix)]
    return [CheckResult("ok", "ready")]


async def sidecar_image(view: Installation) -> Sequence[CheckResult]:
    """Check that the nodes can pull the sidecar's image with the pull secrets of the pods that contain it."""
    count = 0
    failures: dict[str, str] = {}
    for pod in await view.items("/api/v1/pods"):
        for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
            if status.get("name") != AGENT:
                continue
            count += 1
            reason = ((status.get("state") or {}).get("waiting") or {}).get("reason")
            if reason in _NOT_PULLED:
                namespace = pod["metadata"]["namespace"]
                failures.setdefault(namespace, f"{reason} in pod {namespace}/{pod['metadata']['name']}")
    if failures:
        return [
            CheckResult(
                "fail",
                f"a node cannot pull the sidecar's image: {failure}",
                f"create the registry's pull secret in namespace {namespace}: docs/install.md#private-registries",
            )
            for namespace, failure in sorted(failures.items())[:_MOST_NAMED]
        ]
    if not count:
        raise SkippedError("no pod has a sidecar")
    return [CheckResult("ok", f"the image of {count} sidecars can be pulled")]


async def kms(view: Installation) -> Sequence[CheckResult]:
    """Check that no broker had a rejected or timed-out KMS request since it started."""
    if await view.deployment("broker") is None:
        raise SkippedError("no broker is installed")
    texts = await view.metrics("broker")
    bad = [
        line.rpartition(" ")[0].partition("{")[2].rstrip("}")
        for text in texts.values()
        for line in text.splitlines()
        if line.startswith("weightlock_key_releases_total{")
        and ('result="unavailable"' in line or f'code="{KMS_DENIED}"' in line)
        and not line.endswith(" 0.0")
    ]
    if bad:
        fix = f"kubectl -n {view.namespace} logs deployment/{view.name}-broker   (docs/key-broker.md)"
        what = f"failed key releases since a broker started: {'; '.join(sorted(set(bad))[:3])}"
        return [CheckResult("warn", what, fix)]
    return [CheckResult("ok", f"no failed release, reported by {len(texts)} brokers")]


async def snapshot(view: Installation) -> Sequence[CheckResult]:
    """Check that every replica of the webhook has a current snapshot with valid policies and models."""
    results = []
    for pod, text in (await view.metrics("webhook")).items():
        logs = f"kubectl -n {view.namespace} logs {pod}"
        (age,) = sample(text, "weightlock_snapshot_age_seconds")[:1] or (float("inf"),)
        problems = sum(sample(text, "weightlock_snapshot_problems"))
        if age > _OLD_SECONDS:
            results.append(CheckResult("fail", f"the snapshot of {pod} is {age:.0f} s old", logs))
        elif problems:
            results.append(
                CheckResult("warn", f"{pod} reports {problems:.0f} invalid policies or models", logs)
            )
    return results or [CheckResult("ok", "the snapshot of every replica is current")]


async def audit_log(view: Installation) -> Sequence[CheckResult]:
    """Check that every component writes its audit log, without losses and with enough witnesses."""
    results, count = [], 0
    for part in ("webhook", "broker"):
        if await view.deployment(part) is None:
            continue
        for pod, text in (await view.metrics(part)).items():
            checkpoints = sample(text, "weightlock_audit_checkpoint_timestamp_seconds")
            if not checkpoints:
                continue
            count += 1
            logs = f"kubectl -n {view.namespace} logs {pod}   (docs/audit.md)"
            queued = sum(sample(text, "weightlock_audit_queue_entries"))
            age = datetime.now(UTC).timestamp() - max(checkpoints)
            losses = sum(sample(text, "weightlock_audit_lost_entries"))
            missing = sum(sample(text, "weightlock_audit_witness_quorum")) - sum(
                sample(text, "weightlock_audit_witness_cosignatures")
            )
            if queued and age > _OLD_SECONDS:
                results.append(CheckResult("fail", f"{pod} cannot write its audit log for {age:.0f} s", logs))
            elif missing > 0:
                results.append(CheckResult("fail", f"{pod}: {missing:.0f} witnesses are missing", logs))
            elif losses:
                results.append(CheckResult("warn", f"{pod} lost {losses:.0f} audit log entries", logs))
    if not count:
        fix = f"{view.upgrade} --set audit.enabled=true   (docs/audit.md)"
        return [CheckResult("warn", "the audit log is off: no receipts and no evidence", fix)]
    return results or [CheckResult("ok", f"{count} logs are written")]
