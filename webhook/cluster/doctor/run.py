"""Run the table of checks one after another. A check never fails with a traceback and never affects another check."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError, ClusterError, KubeApi
from webhook.cluster.doctor import (
    callers,
    components,
    egress,
    exceptions,
    installation,
    objects,
    operators,
    platform,
    secrets,
    webhook_probe,
)
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError

if TYPE_CHECKING:
    from webhook.api.config import Cluster
    from webhook.cluster.doctor.installation_view import Examine

CHECKS: dict[str, Examine] = {
    "kubernetes": platform.kubernetes,
    "nodes": platform.kubelets,
    "CRDs": installation.types,
    "webhook configurations": installation.configurations,
    "guard": installation.guard,
    "other mutators": installation.mutators_of_access,
    "deployments": installation.deployments,
    "certificate": secrets.certificate,
    "mutating webhook": webhook_probe.mutates,
    "validating webhook": webhook_probe.validates,
    "evaluation": webhook_probe.evaluates,
    "exempt namespaces": installation.exemptions,
    "snapshot": components.snapshot,
    "leader": components.leader,
    "signing key": secrets.signing_key,
    "API server identity": callers.callers,
    "broker": components.broker,
    "sidecar image": components.sidecar_image,
    "KMS": components.kms,
    "audit log": components.audit_log,
    "policies": objects.policies,
    "models": objects.models,
    "operators": operators.operators,
    "exceptions": exceptions.exceptions,
    "runtime classes": platform.runtime_classes,
    "gpu runtime": platform.gpu_runtime,
    "api server manifests": installation.manifests,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One result and the name of its check."""

    check: str
    result: CheckResult


async def examine(
    cluster: Cluster, namespace: str, name: str, version: str, seconds: float, egress_image: str = ""
) -> list[Row]:
    """Run all checks of `CHECKS`. ``seconds`` bounds each request.

    With ``egress_image``, also measure the egress limit with two pods of this image.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    api = await KubeApi.connect(cluster, in_cluster=False)
    try:
        try:
            await api.get("/version", seconds=seconds)
        except ApiError as error:
            if error.status == 0:
                raise ClusterError(f"{api.server}: {error}") from None
        view = await Installation.find_release(api, namespace, name, version, seconds)
        rows = [
            Row(check, result)
            for check, examine_one in CHECKS.items()
            for result in await _run_check(examine_one, view)
        ]
        if egress_image:
            rows += [Row("egress limit", result) for result in await _measured(api, egress_image, seconds)]
        return rows
    finally:
        await api.close()


async def _measured(api: KubeApi, image: str, seconds: float) -> list[CheckResult]:
    try:
        return await egress.measure(api, image, seconds)
    except ApiError as error:
        return [CheckResult("fail", f"cannot measure the egress limit: {error}", "")]


async def _run_check(examine_one: Examine, view: Installation) -> list[CheckResult]:
    try:
        async with asyncio.timeout(view.seconds * 6):
            return list(await examine_one(view))
    except SkippedError as error:
        return [CheckResult("skipped", str(error))]
    except ApiError as error:
        return [
            CheckResult(
                "fail",
                f"cannot run the check: {error}",
                "retry: the API server rejected the request or was slow",
            )
        ]
    except TimeoutError:
        return [CheckResult("fail", "the check timed out", "retry with a longer --timeout")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # An invalid object in the cluster must fail one check only, not the command.
        log.debug("unreadable", exc_info=error)
        return [CheckResult("fail", f"cannot read an object in the cluster ({type(error).__name__})", "")]
