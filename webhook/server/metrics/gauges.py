"""What the gauges of a server read: at the scrape, and from what the process holds anyway.

Nothing here asks a cluster or changes anything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhook.api.config import Config
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.admission.snapshot import Snapshot
    from webhook.server.admission_queue import Gate
    from webhook.server.metrics.metrics import Metrics
    from webhook.server.tls.certificates import CertificateKeeper

ENDING_SOON = timedelta(hours=1)


def of_webhook(
    metrics: Metrics, config: Config, source: SnapshotProvider, certificate: CertificateKeeper, gate: Gate
) -> None:
    """Tell a webhook's metrics where its gauges are read."""
    of_server(metrics, config, source, certificate)
    metrics.gauge("weightlock_admission_timeout_seconds", lambda: config.review_timeout_seconds)
    metrics.gauge("weightlock_admission_waiting_reviews", lambda: gate.waiting)
    metrics.gauge("weightlock_admission_asking_reviews", lambda: gate.asking_now)
    metrics.gauges("access", lambda: of_access(source.snapshot(), datetime.now(UTC)))


def of_server(
    metrics: Metrics, config: Config, source: SnapshotProvider, certificate: CertificateKeeper
) -> None:
    """Tell the metrics of whatever serves TLS and judges by snapshots where its gauges are read."""
    metrics.gauge("weightlock_snapshot_age_seconds", source.age)
    metrics.gauge("weightlock_certificate_expiry_timestamp_seconds", certificate.expiry)
    metrics.gauge("weightlock_certificate_usable", certificate.usable)
    if not config.embedded:
        bound = config.cluster.max_snapshot_age_seconds
        metrics.gauge("weightlock_snapshot_max_age_seconds", lambda: bound)


def of_access(snapshot: Snapshot, now: datetime) -> dict[str, float | None]:
    """What a snapshot knows of access at ``now`` (aware UTC), by the names of the gauges that show it."""
    active = snapshot.access.active(now)
    return {
        "weightlock_grants_active": len(active),
        "weightlock_grants_ending_soon": sum(grant.expires - now <= ENDING_SOON for grant in active),
        "weightlock_break_glass_grants_active": sum(grant.break_glass for grant in active),
        "weightlock_access_objects_ignored": len(snapshot.access.problems),
        "weightlock_snapshot_problems": len(snapshot.problems),
    }
