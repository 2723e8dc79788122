"""What those who watch a controller read: its metrics by name, and whether it is ready."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from webhook.server.http.health import Health, snapshot_check
from webhook.server.metrics.endpoint import Reading, Readings
from webhook.server.metrics.metrics import OWN_FAULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cluster.controller.progress import ControllerStats
    from webhook.cluster.controller.run import Controller
    from webhook.server.metrics.endpoint import Value


def health(controller: Controller) -> Health:
    """Ready once all is read, and while a leader's rounds end well."""
    found = Health()
    found.add(snapshot_check(controller.source))
    found.add(controller.trouble)
    return found


def readings(controller: Controller) -> Readings:
    """The metrics of a controller. A replica that waits has them too, with ``weightlock_controller_leader`` 0."""
    progress, source = controller.stats, controller.source
    return Readings(
        "controller",
        [
            *_seen_while_leading(controller),
            Reading(
                "weightlock_controller_leader",
                "gauge",
                "1 where this replica acts, 0 where it waits.",
                lambda: float(controller.leader.leading),
            ),
            Reading(
                "weightlock_controller_rounds",
                "counter",
                "Rounds of the controller's work, by result.",
                lambda: {"ok": progress.rounds, "failed": progress.failed_rounds},
                "result",
            ),
            Reading(
                "weightlock_controller_last_round_timestamp_seconds",
                "gauge",
                "When this replica last ended a round well, in Unix time; absent before its first.",
                lambda: progress.last_round,
            ),
            Reading(
                "weightlock_webhook_configurations_restored",
                "counter",
                "Webhook configurations put back after they were changed or removed.",
                lambda: progress.restored,
            ),
            Reading(
                "weightlock_definitions_restored",
                "counter",
                "Types of weightlock.dev put back after they were changed.",
                lambda: progress.restored_definitions,
            ),
            Reading(
                "weightlock_protection_labels_changed",
                "counter",
                "Namespaces that lost a protecting label of weightlock.dev, or got it otherwise.",
                lambda: progress.labels_changed,
            ),
            Reading(
                "weightlock_signatures",
                "counter",
                "Access requests and approvals signed on read-back.",
                lambda: controller.steps.signed,
            ),
            Reading(
                "weightlock_access_objects_ignored",
                "gauge",
                "Access requests and approvals that count for nothing.",
                lambda: len(source.snapshot().access.problems),
            ),
            Reading(
                "weightlock_grants_active",
                "gauge",
                "Grants that hold now.",
                lambda: len(source.snapshot().access.active(datetime.now(UTC))),
            ),
            Reading(
                "weightlock_snapshot_age_seconds",
                "gauge",
                "Seconds since the snapshot was last known to be what the cluster holds.",
                source.age,
            ),
            Reading(
                "weightlock_internal_errors",
                "counter",
                "Requests and tasks that failed through no fault of the caller, by code.",
                lambda: {OWN_FAULT: progress.internal_errors},
                "code",
            ),
        ],
    )


def _seen_while_leading(controller: Controller) -> Iterator[Reading]:
    """The gauges of what the acting replica sees. One that acts no longer would show for ever what it saw last, and is
    silent; counters it shows on.
    """
    for reading in (*_of_guard(controller.stats), *_of_scan(controller), *_of_certificates(controller)):
        if reading.kind == "counter":
            yield reading
        else:
            yield reading._replace(read=partial(_if_leading, controller, reading))


def _if_leading(controller: Controller, reading: Reading) -> Value:
    return reading.read() if controller.leader.leading else None


def _of_guard(progress: ControllerStats) -> list[Reading]:
    return [
        Reading(
            "weightlock_webhook_configurations_drifted",
            "gauge",
            "Webhook configurations that are not as they should be, as the acting replica sees it.",
            lambda: progress.drifted,
        ),
        Reading(
            "weightlock_definitions_drifted",
            "gauge",
            "Types of weightlock.dev that are not as they should be, as the acting replica sees it.",
            lambda: progress.drifted_definitions,
        ),
    ]


def _of_scan(controller: Controller) -> list[Reading]:
    """The background scan; nothing where there is none."""
    scanner = controller.scanner
    if scanner is None:
        return []
    return [
        Reading(
            "weightlock_scan_resources",
            "counter",
            "Running pods, and other objects, that the background scan judged.",
            lambda: scanner.judged,
        ),
        Reading(
            "weightlock_scan_namespaces_waiting",
            "gauge",
            "Namespaces that the background scan has yet to judge, or to judge again.",
            lambda: scanner.waiting,
        ),
        Reading(
            "weightlock_scan_last_complete_timestamp_seconds",
            "gauge",
            "When no namespace was left waiting for the background scan, in Unix time; absent before that.",
            lambda: scanner.last_complete,
        ),
        Reading(
            "weightlock_report_results",
            "gauge",
            "Rules that what runs now breaks, by what the reports call the result.",
            lambda: scanner.total().outcomes,
            "result",
        ),
        Reading(
            "weightlock_report_would_deny",
            "gauge",
            "What runs now and would be denied were this policy at Deny, which is at Audit or Warn.",
            lambda: scanner.total().would_deny(),
            "policy",
        ),
    ]


def _of_certificates(controller: Controller) -> list[Reading]:
    """What is known of the certificates that the controller makes itself; nothing where somebody else does."""
    own = controller.certificates
    if own is None:
        return []
    return [
        Reading(
            "weightlock_controller_certificate_expiry_timestamp_seconds",
            "gauge",
            "When the authority, or the certificate in a Secret, ends, in Unix time; as the acting replica sees it.",
            lambda: own.kept.expiries,
            "certificate",
        ),
        Reading(
            "weightlock_certificates_issued",
            "counter",
            "Authorities and certificates made.",
            lambda: own.kept.made,
            "certificate",
        ),
        Reading(
            "weightlock_controller_certificates_kept",
            "gauge",
            "1 where the acting replica could look after the certificates at its last try; absent before its first.",
            lambda: None if own.kept.known is None else float(not own.kept.trouble),
        ),
    ]
