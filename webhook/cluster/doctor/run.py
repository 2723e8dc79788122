"""Run the table of checks one after another. A check never fails with a traceback and never affects another check."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.api import ApiError, ClusterError, KubeApi
from webhook.cluster.doctor import asking, content, installation, parts, platform, secrets
from webhook.cluster.doctor.patient import Finding, Patient, SkippedError

if TYPE_CHECKING:
    from webhook.api.config import Cluster
    from webhook.cluster.doctor.patient import Examine

CHECKS: dict[str, Examine] = {
    "kubernetes": platform.kubernetes,
    "nodes": platform.kubelets,
    "CRDs": installation.types,
    "webhook configurations": installation.configurations,
    "guard": installation.guard,
    "deployments": installation.deployments,
    "certificate": secrets.certificate,
    "mutating webhook": asking.mutates,
    "validating webhook": asking.validates,
    "evaluation": asking.evaluates,
    "exempt namespaces": installation.exemptions,
    "snapshot": parts.snapshot,
    "leader": parts.leader,
    "signing key": secrets.signing_key,
    "broker": parts.broker,
    "KMS": parts.kms,
    "policies": content.policies,
    "models": content.models,
    "runtime classes": platform.runtime_classes,
    "gpu runtime": platform.gpu_runtime,
    "api server manifests": installation.manifests,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One result and the name of its check."""

    check: str
    finding: Finding


async def examine(cluster: Cluster, namespace: str, name: str, version: str, seconds: float) -> list[Row]:
    """Run all checks of `CHECKS`. ``seconds`` bounds each request.

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
        patient = await Patient.found(api, namespace, name, version, seconds)
        return [
            Row(check, finding)
            for check, examined in CHECKS.items()
            for finding in await _made(examined, patient)
        ]
    finally:
        await api.close()


async def _made(examined: Examine, patient: Patient) -> list[Finding]:
    try:
        async with asyncio.timeout(patient.seconds * 6):
            return list(await examined(patient))
    except SkippedError as error:
        return [Finding("skipped", str(error))]
    except ApiError as error:
        return [
            Finding(
                "fail", f"cannot run the check: {error}", "retry: the API server rejected the request or was slow"
            )
        ]
    except TimeoutError:
        return [Finding("fail", "the check timed out", "retry with a longer --timeout")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # An invalid object in the cluster must fail one check only, not the command.
        log.debug("unreadable", exc_info=error)
        return [Finding("fail", f"cannot read an object in the cluster ({type(error).__name__})", "")]
