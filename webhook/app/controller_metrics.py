"""The metrics and the readiness of a controller."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from webhook.core.egress.usage import usages
from webhook.server.http.health import Health, snapshot_check
from webhook.server.metrics.registry import FAULTS_HELP, HELP, OWN_FAULT, Gauge, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.app.detection import DetectionStats
    from webhook.cluster.controller.run import Controller
    from webhook.cluster.controller.stats import ControllerStats
    from webhook.core.egress.usage import Usage
    from webhook.server.metrics.registry import Value


def health(controller: Controller) -> Health:
    """Return the checks: all kinds were read, and a leader's reconcile loop succeeds."""
    checks = Health()
    checks.add(snapshot_check(controller.source))
    checks.add(controller.trouble)
    return checks


def metrics(controller: Controller, detection: DetectionStats | None = None) -> Registry:
    """Return the metrics. A replica that is not the leader has them too, with ``weightlock_controller_leader`` 0."""
    stats, source = controller.stats, controller.source
    return Registry(
        "controller",
        [detection.alerts] if detection is not None else [],
        count_faults=False,
        gauges=[
            *_seen_while_leading(controller),
            Gauge(
                "weightlock_controller_leader",
                "Whether this replica is the leader (1) or not (0).",
                lambda: float(controller.leader.leading),
            ),
            Gauge(
                "weightlock_controller_reconcile",
                "Total reconciles, by result.",
                lambda: {"ok": stats.reconciles, "failed": stats.failed_reconciles},
                "result",
                kind="counter",
            ),
            Gauge(
                "weightlock_controller_last_reconcile_timestamp_seconds",
                "Time of this replica's last successful reconcile, in Unix seconds (absent before the first).",
                lambda: stats.last_reconcile,
            ),
            Gauge(
                "weightlock_webhook_configurations_restored",
                "Total webhook configurations restored after they were modified or deleted.",
                lambda: stats.restored,
                kind="counter",
            ),
            Gauge(
                "weightlock_crds_restored",
                "Total CRDs of weightlock.dev restored after they were modified.",
                lambda: stats.restored_definitions,
                kind="counter",
            ),
            Gauge(
                "weightlock_protection_labels_changed",
                "Total namespaces whose protecting labels of weightlock.dev were changed.",
                lambda: stats.labels_changed,
                kind="counter",
            ),
            Gauge(
                "weightlock_signatures",
                "Total access requests and approvals signed by the controller.",
                lambda: controller.steps.signed,
                kind="counter",
            ),
            Gauge(
                "weightlock_access_objects_ignored",
                HELP["weightlock_access_objects_ignored"],
                lambda: len(source.snapshot().access.problems),
            ),
            Gauge(
                "weightlock_grants_active",
                HELP["weightlock_grants_active"],
                lambda: len(source.snapshot().access.active(datetime.now(UTC))),
            ),
            *_of_egress(controller),
            Gauge("weightlock_snapshot_age_seconds", HELP["weightlock_snapshot_age_seconds"], source.age),
            Gauge(
                "weightlock_internal_errors",
                FAULTS_HELP,
                lambda: {OWN_FAULT: stats.internal_errors},
                "code",
                kind="counter",
            ),
            *(_of_detection(detection) if detection is not None else ()),
        ],
    )


def _of_detection(stats: DetectionStats) -> Iterator[Gauge]:
    """Yield the metrics of detection, which only the leader runs."""
    yield Gauge(
        "weightlock_detection_entries",
        "Total log entries and API server audit events evaluated by the detection rules.",
        lambda: stats.entries,
        kind="counter",
    )
    yield Gauge(
        "weightlock_detection_faults",
        "Total evaluations of the detection rules that failed.",
        lambda: stats.faults,
        kind="counter",
    )
    yield Gauge("weightlock_detection_rules", "Number of active detection rules.", lambda: stats.rules)
    yield Gauge("weightlock_detection_silences", "Number of active silences.", lambda: stats.silences)
    yield Gauge(
        "weightlock_detection_state_bytes",
        "Size of the stored state of detection, in bytes.",
        lambda: stats.state_bytes,
    )
    yield Gauge(
        "weightlock_detection_last_evaluation_timestamp_seconds",
        "Time when the detection rules last evaluated all new entries, in Unix seconds (leader only).",
        lambda: stats.last_evaluation,
    )
    yield Gauge(
        "weightlock_detection_lag_seconds",
        "Age of the last evaluated entry, or 0 if none waits (leader only).",
        lambda: stats.lag,
    )


def _seen_while_leading(controller: Controller) -> Iterator[Gauge]:
    """Yield the metrics that only the leader knows.

    A replica that is no longer the leader exposes the counters and no gauges: those would show its last state for ever.
    """
    for gauge in (
        *_of_guard(controller.stats),
        *_of_scan(controller),
        *_of_certificates(controller),
        *_of_drills(controller),
        *_of_images(controller),
    ):
        if gauge.kind == "counter":
            yield gauge
        else:
            yield gauge._replace(read=partial(_if_leading, controller, gauge))


def _if_leading(controller: Controller, gauge: Gauge) -> Value:
    return gauge.read() if controller.leader.leading else None


def _of_guard(stats: ControllerStats) -> list[Gauge]:
    return [
        Gauge(
            "weightlock_webhook_configurations_drifted",
            "Number of webhook configurations that have drifted (leader only).",
            lambda: stats.drifted,
        ),
        Gauge(
            "weightlock_crds_drifted",
            "Number of CRDs of weightlock.dev that have drifted (leader only).",
            lambda: stats.drifted_definitions,
        ),
    ]


def _of_scan(controller: Controller) -> list[Gauge]:
    """Return the gauges of the background scan, if there is one."""
    scanner = controller.scanner
    if scanner is None:
        return []
    return [
        Gauge(
            "weightlock_scan_resources",
            "Total pods and other objects that the background scan evaluated.",
            lambda: scanner.evaluated,
            kind="counter",
        ),
        Gauge(
            "weightlock_scan_namespaces_waiting",
            "Number of namespaces that wait for the background scan.",
            lambda: scanner.waiting,
        ),
        Gauge(
            "weightlock_scan_last_complete_timestamp_seconds",
            "Time when the background scan last had no namespace waiting, in Unix seconds (absent before that).",
            lambda: scanner.last_complete,
        ),
        Gauge(
            "weightlock_report_results",
            "Number of violations by running workloads, by report result.",
            lambda: scanner.total().outcomes,
            "result",
        ),
        Gauge(
            "weightlock_report_would_deny",
            "Number of running workloads that this Audit or Warn policy would deny.",
            lambda: scanner.total().would_deny(),
            "policy",
        ),
    ]


def _of_drills(controller: Controller) -> list[Gauge]:
    """Return the gauges of the scheduled drills, if there are any."""
    drills = controller.drills
    if drills is None:
        return []
    return [
        Gauge(
            "weightlock_drill_last_timestamp_seconds",
            "Time when the last drill ended, in Unix seconds (absent before the first).",
            lambda: drills.ended,
        ),
        Gauge(
            "weightlock_drill_complete",
            "Whether the last drill was completed (1) or not (0).",
            lambda: None if drills.complete is None else float(drills.complete),
        ),
        Gauge(
            "weightlock_drill_controls_lost",
            "Number of controls that did not stop the attacks of the last drill.",
            lambda: drills.lost,
        ),
        Gauge(
            "weightlock_drill_period_seconds",
            "Interval of the scheduled drills, in seconds.",
            lambda: drills.period,
        ),
    ]


def _of_images(controller: Controller) -> list[Gauge]:
    """Return the metrics of the verification of images ahead of time."""
    images, source = controller.images, controller.source
    return [
        Gauge(
            "weightlock_image_verifications",
            "Total images verified ahead of time, by result.",
            lambda: images.results,
            "result",
            kind="counter",
        ),
        Gauge(
            "weightlock_images_waiting",
            "Number of images that wait for their verification (leader only).",
            lambda: images.waiting,
        ),
        Gauge(
            "weightlock_images_last_complete_timestamp_seconds",
            "Time when the queue of images was last empty, in Unix seconds (absent without an ImageTrust).",
            lambda: images.last_complete,
        ),
        Gauge(
            "weightlock_image_statements",
            "Number of valid statements about images (leader only).",
            lambda: float(source.snapshot().images.size()),
        ),
    ]


def _of_egress(controller: Controller) -> list[Gauge]:
    """Return the gauges of the models' egress budgets."""

    def each(value: Callable[[Usage], float | None]) -> Value:
        snapshot = controller.source.snapshot()
        models = usages(snapshot.models.values(), snapshot.readers, snapshot.settings.exempt_namespaces)
        values = {usage.budget.model: value(usage) for usage in models}
        return {model: number for model, number in values.items() if number is not None}

    return [
        Gauge(
            "weightlock_egress_readers",
            "Number of running pods that read this model and have an egress limit.",
            lambda: each(lambda usage: len(usage.readers)),
            "model",
        ),
        Gauge(
            "weightlock_egress_limit_bytes_per_second",
            "Sum of the egress limits of the running pods that read this model, in bytes a second.",
            lambda: each(lambda usage: usage.rate / 8),
            "model",
        ),
        Gauge(
            "weightlock_egress_time_seconds",
            "Time in which the running readers could send this model, in seconds (absent without readers).",
            lambda: each(lambda usage: usage.seconds),
            "model",
        ),
        Gauge(
            "weightlock_egress_minimum_time_seconds",
            "Time that spec.egress.minimumTime of this model demands, in seconds.",
            lambda: each(lambda usage: usage.budget.minimum),
            "model",
        ),
    ]


def _of_certificates(controller: Controller) -> list[Gauge]:
    """Return the gauges of the certificates that the controller manages, if it does."""
    own = controller.certificates
    if own is None:
        return []
    return [
        Gauge(
            "weightlock_controller_certificate_expiry_timestamp_seconds",
            "Time when the CA, or the certificate in a Secret, expires, in Unix seconds (leader only).",
            lambda: own.kept.expiries,
            "certificate",
        ),
        Gauge(
            "weightlock_certificates_issued",
            "Total CAs and certificates issued.",
            lambda: own.kept.made,
            "certificate",
            kind="counter",
        ),
        Gauge(
            "weightlock_controller_certificates_healthy",
            "Whether the leader could manage the certificates at its last attempt (absent before the first).",
            lambda: None if own.kept.known is None else float(not own.kept.trouble),
        ),
    ]
