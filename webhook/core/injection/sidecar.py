"""The key sidecar itself: its container, its volumes, and the paths of the delivered data.

All defaults of the API server are written out, so that the stored pod equals the injected one.
Native sidecars: KEP-753, stable since Kubernetes 1.33.
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
# Pod Security's restricted level. No fixed user, so that OpenShift can choose one.
_RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def volume_name(model: str) -> str:
    """Return the name of the volume for a model's key or plaintext. Model names can be too long for a volume name."""
    return f"{PREFIX}{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def delivery_mount(name: str, model: ModelWeights) -> Document:
    """Return a reader's mount of a model's key, or of its unsealed files."""
    base = WEIGHTS_PATH if model.spec.delivery == "plaintext" else KEYS_PATH
    return {"name": volume_name(name), "readOnly": True, "mountPath": f"{base}/{name}"}


def volumes(
    names: list[str], models: Mapping[str, ModelWeights], settings: Injection
) -> tuple[Document, ...]:
    """Return the volumes of the sidecar: its token, and memory for each model."""
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
    """Return the sidecar of a pod that reads these models. ``user`` is the readers' user, if they all set the same.

    ``authorities`` are the CAs of the broker's certificate. They are arguments, because no user of the namespace can
    change those later.
    """
    mounts: list[Document] = [{"name": TOKEN_VOLUME, "readOnly": True, "mountPath": TOKEN_PATH}]
    arguments = ["agent", f"--broker={settings.broker_url}", f"--token={TOKEN_PATH}/token"]
    arguments += [f"{AUTHORITY}{authority}" for authority in authorities]
    if settings.evidence_command:
        arguments.append(f"--evidence-command={settings.evidence_command}")
    if settings.cdh_address and any(models[name].spec.delivery == "key" for name in names):
        arguments.append(f"--cdh={settings.cdh_address}")
    for name in names:
        mount = delivery_mount(name, models[name])
        mounts.append({"name": mount["name"], "mountPath": mount["mountPath"]})
        place = f"{SEALED_PATH}/{name}"
        source = f":{place}" if any(mount["mountPath"] == place for mount in sealed) else ""
        arguments.append(f"--{models[name].spec.delivery}={name}:{mount['mountPath']}{source}")
    startup = settings.startup_seconds
    if any(models[name].spec.delivery == "plaintext" for name in names):
        startup = max(startup, settings.plaintext_startup_seconds)
    return {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "restartPolicy": "Always",
        "resources": {},
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
