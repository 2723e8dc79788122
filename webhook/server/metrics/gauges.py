"""The gauges of a server, read at the scrape from state that the process has anyway.

Nothing here queries a cluster or changes anything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhook.api.config import Config
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.admission.snapshot import Snapshot
    from webhook.server.admission_queue import AdmissionQueue
    from webhook.server.metrics.registry import Registry
    from webhook.server.tls.certificates import CertificateManager

EXPIRING_SOON = timedelta(hours=1)


def add_admission(
    metrics: Registry, config: Config, provider: SnapshotProvider, queue: AdmissionQueue
) -> None:
    """Add the gauges of the process that evaluates reviews."""
    add_snapshot(metrics, config, provider)
    metrics.gauge("weightlock_admission_timeout_seconds", lambda: config.review_timeout_seconds)
    metrics.gauge("weightlock_admission_queued_reviews", lambda: queue.waiting)
    metrics.gauge("weightlock_admission_pending_lookups", lambda: queue.lookups)
    metrics.group(lambda: of_access(provider.snapshot(), datetime.now(UTC)))


def add_snapshot(metrics: Registry, config: Config, provider: SnapshotProvider) -> None:
    """Add the gauges of a process that decides by snapshots."""
    metrics.gauge("weightlock_snapshot_age_seconds", provider.age)
    if not config.embedded:
        bound = config.cluster.max_snapshot_age_seconds
        metrics.gauge("weightlock_snapshot_max_age_seconds", lambda: bound)


def add_certificate(metrics: Registry, certificate: CertificateManager) -> None:
    """Add the gauges of a process that serves TLS."""
    metrics.gauge("weightlock_certificate_expiry_timestamp_seconds", certificate.expiry)
    metrics.gauge("weightlock_certificate_usable", certificate.usable)


def of_access(snapshot: Snapshot, now: datetime) -> dict[str, float | None]:
    """Return the state of access at ``now`` (aware UTC), by metric name."""
    active = snapshot.access.active(now)
    return {
        "weightlock_grants_active": len(active),
        "weightlock_grants_expiring_soon": sum(grant.expires - now <= EXPIRING_SOON for grant in active),
        "weightlock_break_glass_grants_active": sum(grant.break_glass for grant in active),
        "weightlock_access_objects_ignored": len(snapshot.access.problems),
        "weightlock_snapshot_problems": len(snapshot.problems),
    }
