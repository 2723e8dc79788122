"""The ConfigMap with the last drill. The drill writes it, and the controller logs and exposes what it contains.

Another process wrote it, so its content is parsed as untrusted input: bounded in size, and wrong types are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi
    from webhook.core.drills.outcome import Drill

FIELD = "drill.json"
LOGGED = "logged"
_MERGE = "application/merge-patch+json"
_MAX_BYTES = 512 * 1024
_MAX_CONTROLS = 256


def path_of(namespace: str, name: str) -> str:
    """Return the path of the ConfigMap."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"


async def write(api: KubeApi, path: str, drill: Drill) -> None:
    """Store a drill. Raises `ApiError`."""
    document = drill.as_json()
    # The attacks are in the output of the command. A ConfigMap has little room.
    document.pop("attacks")
    body: dict[str, Any] = {"data": {FIELD: orjson.dumps(document).decode()}}
    await api.request("PATCH", path, body=body, content_type=_MERGE)


async def read(api: KubeApi, path: str) -> dict[str, Any] | None:
    """Return the last drill as JSON; None if none ran yet. Raises `ApiError`."""
    try:
        document = await api.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    data = document.get("data") or {}
    drill = parsed(data.get(FIELD))
    return None if drill is None else {**drill, LOGGED: data.get(LOGGED)}


async def mark(api: KubeApi, path: str, ended: str) -> None:
    """Note that the drill that ended then is in the log. Raises `ApiError`."""
    await api.request("PATCH", path, body={"data": {LOGGED: ended[:64]}}, content_type=_MERGE)


def parsed(text: Any) -> dict[str, Any] | None:
    """Parse the stored text; None if it is not a drill."""
    if not isinstance(text, str) or not text or len(text) > _MAX_BYTES:
        return None
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("ended"), str):
        return None
    controls = document.get("controls")
    return {**document, "controls": controls[:_MAX_CONTROLS] if isinstance(controls, list) else []}
