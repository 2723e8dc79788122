"""The table of checks, and the run through it: one after another, each on its own, none of them ever a traceback."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError, ClusterError, KubeApi
from webhook.cluster.doctor import components, content, installation, platform, secrets, webhook_probe
from webhook.cluster.doctor.installation_view import Finding, Patient, SkippedError

if TYPE_CHECKING:
    from webhook.api.config import Cluster
    from webhook.cluster.doctor.installation_view import Examine

CHECKS: dict[str, Examine] = {
    "kubernetes": platform.kubernetes,
    "nodes": platform.kubelets,
    "types": installation.types,
    "webhook configurations": installation.configurations,
    "guard": installation.guard,
    "deployments": installation.deployments,
    "certificate": secrets.certificate,
    "asks mutate": webhook_probe.mutates,
    "asks validate": webhook_probe.validates,
    "judges": webhook_probe.judges,
    "exempt namespaces": installation.exemptions,
    "webhook knowledge": components.knowledge,
    "leader": components.leader,
    "signing key": secrets.signing_key,
    "broker": components.broker,
    "key service": components.key_service,
    "policies": content.policies,
    "models": content.models,
    "runtime classes": platform.runtime_classes,
    "gpu runtime": platform.gpu_runtime,
    "api server manifests": installation.manifests,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One finding and the check it is of."""

    check: str
    finding: Finding


async def examine(cluster: Cluster, namespace: str, name: str, version: str, seconds: float) -> list[Row]:
    """All checks of `CHECKS`. Raises `ClusterError` where the API server cannot be reached; ``seconds`` bound each
    request.
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
                "fail", f"could not be looked at: {error}", "try again; the API server refused or was slow"
            )
        ]
    except TimeoutError:
        return [Finding("fail", "took too long", "try again with a longer --timeout")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Whatever an object of the cluster holds that it should not hold is one check's fault and not the command's.
        log.debug("unreadable", exc_info=error)
        return [Finding("fail", f"an object of the cluster cannot be read ({type(error).__name__})", "")]
