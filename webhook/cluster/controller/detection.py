"""What detection needs of the cluster: its state and its silences in ConfigMaps, and the objects of its Events."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.cluster.events import pod_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.core.access import Signer, Verifier
    from webhook.core.detection.alert import Alert
    from webhook.core.kube.fields import Document

_MERGE_PATCH = "application/merge-patch+json"
_CONTEXT = b"weightlock.dev/detection/v1\n"
_STATE, _SIGNATURE = "state.json.z", "state.sig"

log = logging.getLogger(__name__)


class StateStore(NamedTuple):
    """The state in a ConfigMap, signed: a user who can write ConfigMaps must not change a baseline.

    Without a name nothing is stored. Without a private key the state is not trusted, and not stored.
    """

    api: KubeApi
    namespace: str
    name: str
    signer: Signer | None
    verifier: Verifier | None

    async def read(self) -> bytes:
        """Return the stored state; empty if it is missing or its signature is invalid. Raises `ApiError`."""
        if not self.name or self.verifier is None:
            return b""
        document = await self.api.get(_path(self.namespace, self.name))
        binary, data = document.get("binaryData") or {}, document.get("data") or {}
        try:
            state = base64.b64decode(str(binary.get(_STATE, "")), validate=True)
        except ValueError:
            state = b""
        if not state:
            return b""
        fault = self.verifier.bytes_fault(_CONTEXT + state, str(data.get(_SIGNATURE, "")))
        if fault:
            log.error("the state of detection is invalid", extra={"fields": {"why": fault}})
            return b""
        return state

    async def write(self, state: bytes) -> None:
        """Store the state. Raises `ApiError`."""
        if not self.name or self.signer is None:
            return
        body = {
            "binaryData": {_STATE: base64.b64encode(state).decode()},
            "data": {_SIGNATURE: self.signer.sign_bytes(_CONTEXT + state)},
        }
        await self.api.request(
            "PATCH", _path(self.namespace, self.name), body=body, content_type=_MERGE_PATCH
        )


async def read_silences(api: KubeApi, namespace: str, name: str) -> Mapping[str, str]:
    """Return the content of the silences' ConfigMap. Raises `ApiError`."""
    document = await api.get(_path(namespace, name))
    return {str(key): str(value) for key, value in (document.get("data") or {}).items()}


async def add_silence(api: KubeApi, namespace: str, name: str, key: str, body: str) -> None:
    """Add a silence to the ConfigMap. Raises `ApiError`."""
    patch = {"data": {key: body}}
    await api.request("PATCH", _path(namespace, name), body=patch, content_type=_MERGE_PATCH)


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"


def reference_of(alert: Alert, entry: Document, namespace: str) -> Document:
    """Return the object of an alert's Event: the pod, the model, or Weightlock's namespace."""
    data = entry.get("data") or {}
    pod = data.get("pod") or {}
    if pod.get("name") and pod.get("namespace"):
        return pod_reference(pod["namespace"], pod["name"], str(pod.get("uid", "")))
    model = dict(alert.group).get("data.model") or data.get("model")
    if isinstance(model, str) and model:
        return {"apiVersion": API_VERSION, "kind": "ModelWeights", "name": model, "uid": ""}
    return {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": ""}
