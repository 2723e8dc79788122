"""Read kubeconfigs with the rules of kubectl, and reduce them to the one context in use.

The rules are those of client-go (tools/clientcmd): $KUBECONFIG is a list, the first file that defines an entry or a
current context wins, missing and empty files are skipped, and relative paths belong to the directory of their file. The
library's own loader differs in each of these, and it ignores impersonation, so it only receives the reduced result.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT = "~/.kube/config"
_PATHS = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key", "tokenFile")}
# Characters of a header name (RFC 9110 section 5.6.2); client-go escapes others (transport headerKeyEscape).
_HEADER_SAFE = "!#$&'*+-.^_`|~"
_MAX_BYTES = 4 * 1024 * 1024


class KubeconfigError(Exception):
    """A kubeconfig cannot be used; the message is one line and names the file."""


class MissingError(KubeconfigError):
    """A named file does not exist."""


@dataclass(frozen=True, slots=True)
class Context:
    """One context with its cluster and user; all paths are absolute. ``source`` are the files, for messages."""

    name: str
    namespace: str
    cluster: dict[str, Any]
    user: dict[str, Any]
    source: str

    def document(self, user: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a kubeconfig with this context only, with ``user`` instead of its own if given."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "context",
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": self.cluster}],
            "users": [{"name": "user", "user": self.user if user is None else user}],
        }

    def impersonation(self) -> list[tuple[str, str]]:
        """Return the Impersonate headers (client-go transport.ImpersonationConfig). Raises `KubeconfigError`."""
        user = self.user
        name = user.get("as")
        groups, uid, extra = user.get("as-groups"), user.get("as-uid"), user.get("as-user-extra")
        if not name:
            if groups or uid or extra:
                raise KubeconfigError(f"{self.source}: as-groups, as-uid and as-user-extra require as")
            return []
        headers = [("Impersonate-User", str(name))]
        headers += [("Impersonate-Uid", str(uid))] if uid else []
        headers += [("Impersonate-Group", str(group)) for group in groups or ()]
        for key, values in (extra or {}).items():
            header = f"Impersonate-Extra-{quote(str(key), safe=_HEADER_SAFE)}"
            headers += [(header, str(value)) for value in values or ()]
        if any(not value.isprintable() for _, value in headers):
            raise KubeconfigError(f"{self.source}: an impersonated name contains control characters")
        return headers


def locate(file: str, context: str) -> str:
    """Return the ``file`` of an option, else the list in $KUBECONFIG; empty for the credentials of the pod.

    A named file or context must exist; the default file may be absent.

    Raises:
        MissingError: no file exists.
    """
    path_list = file or os.environ.get("KUBECONFIG", "")
    paths = path_list or _DEFAULT
    if any(path.is_file() for path in _files(file, paths)):
        return paths
    if not path_list and not context and in_pod():
        return ""
    raise MissingError(f"{paths}: no such file")


def read(file: str, paths: str, context: str) -> Context:
    """Read the located ``paths`` and return one context, by default the current one.

    Raises:
        KubeconfigError: a file or the context cannot be used.
    """
    current, entries = "", {"contexts": {}, "clusters": {}, "users": {}}  # type: ignore[var-annotated]
    for path in _files(file, paths):
        if not path.is_file():
            continue
        document = _load(path)
        current = current or str(document.get("current-context") or "")
        for section, items in entries.items():
            for name, value in _named(document, section, path).items():
                items.setdefault(name, value)
    name = context or current
    if not name:
        raise KubeconfigError(f"{paths}: no current-context is set")
    if name not in entries["contexts"]:
        raise KubeconfigError(f"{paths}: context {name!r:.100} does not exist")
    entry = entries["contexts"][name]
    cluster = entries["clusters"].get(entry.get("cluster"))
    if cluster is None or not cluster.get("server"):
        raise KubeconfigError(f"{paths}: context {name!r:.100} has no cluster with a server")
    user = entries["users"].get(entry.get("user"))
    if user is None and entry.get("user"):
        raise KubeconfigError(f"{paths}: user {entry['user']!r:.100} does not exist")
    proxy = urlsplit(str(cluster.get("proxy-url") or ""))
    if proxy.scheme not in ("", "http", "https"):
        raise KubeconfigError(f"{paths}: proxy-url {proxy.scheme}:// is not supported, use an HTTP proxy")
    return Context(name, str(entry.get("namespace") or "default"), cluster, user or {}, paths)


def read_token(file: str) -> str:
    """Return the content of a token file. Raises `OSError`."""
    return Path(file).read_text(encoding="utf-8").strip()


def in_pod() -> bool:
    """Return whether the process runs in a pod, as client-go decides (rest.InClusterConfig)."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST") and os.environ.get("KUBERNETES_SERVICE_PORT"))


def namespace_of(kubeconfig: str, context: str) -> str:
    """Return the namespace of the kubeconfig's context, or of the pod, as kubectl does."""
    try:
        paths = locate(kubeconfig, context)
        if not paths:
            return _POD_NAMESPACE.read_text().strip() or "default"
        return read(kubeconfig, paths, context).namespace
    except (KubeconfigError, OSError):
        return "default"


def _files(file: str, paths: str) -> list[Path]:
    """An option names one file, whatever characters are in its name."""
    names = [file] if file else paths.split(os.pathsep)
    return [Path(name).expanduser() for name in names if name]


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            document = yaml.safe_load(stream.read(_MAX_BYTES))
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise KubeconfigError(f"{path}: not a kubeconfig") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")
    return document


def _named(document: dict[str, Any], section: str, path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of one section by name, with absolute paths."""
    field = section.removesuffix("s")
    items = document.get(section) or []
    if not isinstance(items, list):
        raise KubeconfigError(f"{path}: {section} is not a list")
    entries: dict[str, dict[str, Any]] = {}
    for item in items:
        value = item.get(field) if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise KubeconfigError(f"{path}: an entry of {section} has no name")
        if value is not None and not isinstance(value, dict):
            raise KubeconfigError(f"{path}: {field} {item['name']!r:.100} is not a map")
        entries[item["name"]] = _absolute(dict(value or {}), field, path.absolute().parent)
    return entries


def _absolute(value: dict[str, Any], field: str, directory: Path) -> dict[str, Any]:
    for key in _PATHS.get(field, ()):
        if isinstance(value.get(key), str) and value[key]:
            value[key] = str(directory / value[key])
    plugin = value.get("exec")
    if isinstance(plugin, dict) and isinstance(plugin.get("command"), str):
        command = plugin["command"]
        # A bare name is looked up in $PATH; a relative path belongs to the file.
        if os.sep in command:
            value["exec"] = {**plugin, "command": str(directory / command)}
    return value
