"""Check that running workloads have the exceptions that the policies of this version require."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.config import Config
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import HELD
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError
from webhook.cluster.doctor.operators import settings_of
from webhook.cluster.reports.exceptions import running_exceptions
from webhook.core.admission.provider import NotReadyError
from webhook.manifests.shipped import shipped_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_WORKLOADS = 20


async def exceptions(view: Installation) -> Sequence[CheckResult]:
    """No running pod would be denied for a sandbox escape or a device that its service account may not use."""
    settings = await settings_of(view)
    # Without one of these kinds there is no snapshot, and the evaluation would wait for it until its timeout.
    for path in ("/api/v1/pods", *(kind.path() for kind in HELD)):
        await view.probe_list(path)
    try:
        policies = shipped_policies()
        items = await running_exceptions(view.api, Config(policies=str(policies), settings=settings))
    except (ApiError, NotReadyError, FileNotFoundError) as error:
        raise SkippedError(str(error)) from None
    if not items:
        return [CheckResult("ok", "no running workload needs an exception that it lacks")]
    fix = f"weightlock report --would-deny -A --policies {policies} prints the roles to apply"
    results = [
        CheckResult(
            "warn",
            f"{item.workload} needs RBAC use on {', '.join(f'{right.resource}/{right.name}' for right in item.rights)}",
            fix,
        )
        for item in items[:_MAX_WORKLOADS]
    ]
    if len(items) > _MAX_WORKLOADS:
        results.append(
            CheckResult("warn", f"{len(items) - _MAX_WORKLOADS} more workloads need exceptions", fix)
        )
    return results
