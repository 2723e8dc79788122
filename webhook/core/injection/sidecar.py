"""The key sidecar itself: its container, its volumes, and where it leaves what it fetched.

Everything is written out with the defaults the API server would fill in, so that what it stores equals what was
injected. Native sidecars: KEP-753, stable since Kubernetes 1.33.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from webhook.api.base import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.api.config import Injection
    from webhook.api.modelweights import ModelWeights
    from webhook.core.kube.fields import Document

AGENT = "weightlock-agent"
PREFIX = "weightlock-"
TOKEN_VOLUME = "weightlock-token"  # noqa: S105 - the name of a volume
TOKEN_PATH = "/var/run/secrets/weightlock.dev/broker"  # noqa: S105
KEYS_PATH = "/var/run/weightlock/keys"
WEIGHTS_PATH = "/var/run/weightlock/weights"
SEALED_PATH = "/var/run/weightlock/sealed"
AUTHORITY = "--authority="
AUDIENCE = f"{GROUP}/broker"
_TOKEN_SECONDS = 600
# Pod Security's restricted level. No fixed user, so that OpenShift may choose one.
_RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def volume_name(model: str) -> str:
    """The volume that holds a model's key or plaintext; model names may be longer than volume names may."""
    return f"{PREFIX}{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def delivery_mount(name: str, model: ModelWeights) -> Document:
    """Where a reader finds a model's key, or its unsealed files."""
    base = WEIGHTS_PATH if model.spec.delivery == "plaintext" else KEYS_PATH
    return {"name": volume_name(name), "readOnly": True, "mountPath": f"{base}/{name}"}


def volumes(
    names: list[str], models: Mapping[str, ModelWeights], settings: Injection
) -> tuple[Document, ...]:
    """The volumes the sidecar needs: its token, and memory for each model."""
    token = {
        "serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    }
    volumes: list[Document] = [
        {"name": TOKEN_VOLUME, "projected": {"sources": [token], "defaultMode": 0o644}}
    ]
    for name in names:
        memory: Document = {"medium": "Memory"}
        if models[name].spec.delivery == "key":
            memory["sizeLimit"] = settings.key_volume_size
        volumes.append({"name": volume_name(name), "emptyDir": memory})
    return tuple(volumes)


def agent(
    names: list[str],
    models: Mapping[str, ModelWeights],
    sealed: list[Document],
    settings: Injection,
    authorities: Sequence[str],
    user: int | None,
) -> Document:
    """The sidecar of a pod that reads these models; ``user`` is who the readers run as, if they all say the same.

    ``authorities`` vouch for the broker's certificate. They stand in the arguments, which nobody in the namespace can
    change later.
    """
    mounts = [{"name": TOKEN_VOLUME, "readOnly": True, "mountPath": TOKEN_PATH}]
    arguments = ["agent", f"--broker={settings.broker_url}", f"--token={TOKEN_PATH}/token"]
    arguments += [f"{AUTHORITY}{authority}" for authority in authorities]
    if settings.evidence_command:
        arguments.append(f"--evidence-command={settings.evidence_command}")
    for name in names:
        mount = delivery_mount(name, models[name])
        mounts.append({"name": mount["name"], "mountPath": mount["mountPath"]})
        source = f":{SEALED_PATH}/{name}" if models[name].spec.delivery == "plaintext" else ""
        arguments.append(f"--{models[name].spec.delivery}={name}:{mount['mountPath']}{source}")
    limits, startup = dict(settings.limits), settings.startup_seconds
    if any(models[name].spec.delivery == "plaintext" for name in names):
        # The kernel charges files in memory to who writes them: a limit meant for the sidecar would kill it.
        limits.pop("memory", None)
        startup = max(startup, settings.plaintext_startup_seconds)
    return {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "restartPolicy": "Always",
        "resources": {"requests": dict(settings.requests), "limits": limits},
        "securityContext": settings.security_context
        or {**_RESTRICTED, **({"runAsUser": user} if user is not None else {})},
        "startupProbe": {
            "exec": {"command": ["weightlock", "agent", "--check"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": startup,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *sealed],
    }
