"""Whose credentials a command at a prompt takes: those of the kubeconfig that kubectl would read, or of its pod.

The library reads $KUBECONFIG when it is imported and takes a file that is not there for an empty one; so files are
found here.
"""

from __future__ import annotations

import os
from pathlib import Path

from kubernetes_asyncio.config import ConfigException, list_kube_config_contexts

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT = "~/.kube/config"


class MissingError(Exception):
    """A file that was asked for is not there; the message names it."""


def found(file: str, context: str) -> str:
    """The ``file`` an option names, else the files as $KUBECONFIG names them; empty for the credentials of the pod.

    A file that either names, or a context, is asked for and must be there; the default file need not be.
    Raises `MissingError`.
    """
    named = file or os.environ.get("KUBECONFIG", "")
    paths = named or _DEFAULT
    if any(
        Path(path).expanduser().is_file() for path in ([file] if file else paths.split(os.pathsep)) if path
    ):
        return paths
    if not named and not context and in_pod():
        return ""
    raise MissingError(f"{paths}: no such file")


def in_pod() -> bool:
    """Whether a kubelet started this, as Go's clients tell it (client-go rest.InClusterConfig)."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST") and os.environ.get("KUBERNETES_SERVICE_PORT"))


def namespace_of(kubeconfig: str, context: str) -> str:
    """The namespace of the kubeconfig's context, or of the pod, as kubectl takes it."""
    try:
        paths = found(kubeconfig, context)
        if not paths:
            return _POD_NAMESPACE.read_text().strip() or "default"
        contexts, active = list_kube_config_contexts(paths)
    except (ConfigException, MissingError, OSError):
        return "default"
    chosen = next((item for item in contexts if item.get("name") == context), active) if context else active
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")
