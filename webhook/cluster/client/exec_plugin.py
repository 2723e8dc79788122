"""Credentials from exec plugins (client.authentication.k8s.io, client-go plugin/pkg/client/auth/exec).

A plugin runs again when its credentials expire or the API server rejects them. Its output is never logged.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from webhook.cluster.client.kubeconfig import Context, KubeconfigError
from webhook.core.kube.time import parse_time

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_SECONDS = 60.0
_CLUSTER_FIELDS = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
_EXTENSION = "client.authentication.k8s.io/exec"


class ExecCredential(NamedTuple):
    """The fields for a kubeconfig's user, and when they expire (aware UTC), or None."""

    user: dict[str, Any]
    expires: datetime | None


async def run(context: Context) -> ExecCredential:
    """Run the plugin of a context's user. Raises `KubeconfigError`."""
    plugin = context.user["exec"]
    command, version = plugin.get("command"), plugin.get("apiVersion")
    if not isinstance(command, str) or not command or version not in _VERSIONS:
        raise KubeconfigError(
            f"{context.source}: exec needs command, and apiVersion {' or '.join(_VERSIONS)}"
        )
    mode = plugin.get("interactiveMode") or "IfAvailable"
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not terminal:
        raise KubeconfigError(f"{context.source}: the exec plugin {command} requires a terminal")
    interactive = terminal and mode != "Never"
    environment = {**os.environ, **{item["name"]: str(item["value"]) for item in plugin.get("env") or ()}}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(_info(context, version, interactive=interactive))
    arguments = [str(argument) for argument in plugin.get("args") or ()]
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *arguments,
            env=environment,
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f": {plugin['installHint']}" if plugin.get("installHint") else ""
        raise KubeconfigError(
            f"cannot run the exec plugin {command}: {error.strerror or error}{hint}"
        ) from None
    try:
        async with asyncio.timeout(None if interactive else _SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise KubeconfigError(f"the exec plugin {command} timed out after {_SECONDS:.0f} s") from None
    if process.returncode:
        raise KubeconfigError(f"the exec plugin {command} failed with exit code {process.returncode}")
    return _credential(output, command, version)


def _info(context: Context, version: str, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if context.user["exec"].get("provideClusterInfo"):
        cluster = {key: context.cluster[key] for key in _CLUSTER_FIELDS if context.cluster.get(key)}
        data = context.cluster.get("certificate-authority-data")
        if not data and context.cluster.get("certificate-authority"):
            data = base64.b64encode(Path(context.cluster["certificate-authority"]).read_bytes()).decode()
        if data:
            cluster["certificate-authority-data"] = data
        for extension in context.cluster.get("extensions") or ():
            if extension.get("name") == _EXTENSION:
                cluster["config"] = extension.get("extension")
        spec["cluster"] = cluster
    return {"apiVersion": version, "kind": "ExecCredential", "spec": spec}


def _credential(output: bytes, command: str, version: str) -> ExecCredential:
    try:
        document = json.loads(output)
        status = document["status"]
        matches = document["apiVersion"] == version and document["kind"] == "ExecCredential"
    except (ValueError, TypeError, KeyError):
        matches, status = False, None
    if not matches or not isinstance(status, dict):
        raise KubeconfigError(f"the exec plugin {command} returned no ExecCredential of {version}")
    user: dict[str, Any] = {}
    if status.get("token"):
        user["token"] = str(status["token"])
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    if bool(certificate) != bool(key):
        raise KubeconfigError(f"the exec plugin {command} returned a certificate or a key, but not both")
    if certificate and key:
        user["client-certificate-data"] = base64.b64encode(str(certificate).encode()).decode()
        user["client-key-data"] = base64.b64encode(str(key).encode()).decode()
    if not user:
        raise KubeconfigError(f"the exec plugin {command} returned neither a token nor a certificate")
    return ExecCredential(user, parse_time(status.get("expirationTimestamp")))


def expired(expires: datetime | None) -> bool:
    """Return whether credentials have expired."""
    return expires is not None and expires <= datetime.now(UTC)
