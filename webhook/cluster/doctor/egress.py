"""Measure whether the cluster's network enforces an egress limit: two pods, one annotation and real bytes.

The pods run in a namespace of their own, which is deleted afterwards. At most `MOST_BYTES` are sent, from one pod to
the other. Nothing here decides: the admin sets `settings.egress.enforced` by the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

import orjson

from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import CheckResult
from webhook.core.egress.budget import rate_text, size_text
from webhook.core.egress.stamp import BANDWIDTH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

LIMIT = 8_000_000
# containerd permits a burst of 2**31 bits before the limit applies.
MOST_BYTES = 1 << 30
SECONDS = 90
PORT = 5000
_START_SECONDS = 180.0
_EVERY_SECONDS = 1.0
_CLEANUP_SECONDS = 30.0
_MAX_MESSAGE = 4096
_FIX = (
    "add the CNI bandwidth plugin to the nodes' network configuration, or turn on Cilium's bandwidth manager, "
    "and leave settings.egress.enforced unset until then"
)
# Three seconds near the limit prove it; a limit that is never reached proves that there is none.
RECEIVER = """
import json, socket, sys, time
host, limit, most, seconds, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
server = socket.create_server((host, PORT))
server.settimeout(120)
print("listening", flush=True)
peer, _ = server.accept()
peer.settimeout(1)
begun = window = time.monotonic()
total = count = near = 0
rate = 0.0
while near < 3 and total < most and time.monotonic() - begun < seconds:
    try:
        data = peer.recv(1 << 16)
        if not data:
            break
    except TimeoutError:
        data = b""
    total, count = total + len(data), count + len(data)
    now = time.monotonic()
    if now - window >= 1:
        rate = count * 8 / (now - window)
        near = near + 1 if limit / 2 <= rate <= limit * 1.25 else 0
        window, count = now, 0
with open(target, "w") as stream:
    json.dump({"enforced": near >= 3, "rate": int(rate), "bytes": total}, stream)
""".replace("PORT", str(PORT))
SENDER = """
import socket, sys, time
host, most, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
until, sent, block, peer = time.monotonic() + seconds, 0, bytes(1 << 16), None
while peer is None:
    try:
        peer = socket.create_connection((host, PORT), timeout=5)
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.5)
peer.settimeout(1)
while sent < most and time.monotonic() < until:
    try:
        sent += peer.send(block)
    except TimeoutError:
        continue
    except OSError:
        break
""".replace("PORT", str(PORT))


async def measure(api: KubeApi, image: str, seconds: float) -> list[CheckResult]:
    """Run both pods and return one result. ``image`` needs Python 3. ``seconds`` bounds each request.

    Raises:
        ApiError: an object cannot be created.
    """
    async with _namespace(api, seconds) as namespace:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        arguments = ["0.0.0.0", str(LIMIT), str(MOST_BYTES), str(SECONDS), "/dev/termination-log"]
        await api.request("POST", pods, body=_pod("receiver", image, RECEIVER, arguments), seconds=seconds)
        receiver = await _wait(api, f"{pods}/receiver", seconds, lambda pod: bool(_address(pod)))
        if receiver is None:
            return [_unstarted("receiver")]
        sender = _pod("sender", image, SENDER, [_address(receiver), str(MOST_BYTES), str(SECONDS)])
        sender["metadata"]["annotations"] = {BANDWIDTH: str(LIMIT)}
        await api.request("POST", pods, body=sender, seconds=seconds)
        result_pod = await _wait(api, f"{pods}/receiver", seconds, lambda pod: bool(_message(pod)))
        return [_unstarted("sender") if result_pod is None else result_of(_message(result_pod))]


def result_of(message: str) -> CheckResult:
    """Return the result of the receiver's message."""
    try:
        measured = orjson.loads(message)
        enforced, rate, count = measured["enforced"] is True, int(measured["rate"]), int(measured["bytes"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return CheckResult("warn", "the pods of the measurement reported no rate", "run doctor again")
    what = f"{rate_text(rate)} of {rate_text(LIMIT)}, {size_text(count)} sent"
    if enforced:
        return CheckResult("ok", f"the network enforces {BANDWIDTH}: measured {what}")
    return CheckResult("warn", f"the network does not enforce {BANDWIDTH}: measured {what}", _FIX)


def _unstarted(pod: str) -> CheckResult:
    return CheckResult(
        "warn",
        f"not measured: the pod {pod} did not run within {_START_SECONDS:.0f} s",
        "check that nodes can pull the image and that it has python3",
    )


@contextlib.asynccontextmanager
async def _namespace(api: KubeApi, seconds: float) -> AsyncIterator[str]:
    name = f"weightlock-doctor-{secrets.token_hex(4)}"
    labels = {"app.kubernetes.io/managed-by": "weightlock-doctor"}
    body: Document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    created = await api.request("POST", "/api/v1/namespaces", body=body, seconds=seconds)
    try:
        account: Document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        with contextlib.suppress(ApiError):
            await api.request(
                "POST", f"/api/v1/namespaces/{name}/serviceaccounts", body=account, seconds=seconds
            )
        yield name
    finally:
        options: Document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": created["metadata"]["uid"]},
        }
        await asyncio.shield(
            asyncio.ensure_future(
                api.request("DELETE", f"/api/v1/namespaces/{name}", body=options, seconds=_CLEANUP_SECONDS)
            )
        )


async def _wait(api: KubeApi, path: str, seconds: float, ready: Any) -> Document | None:
    """Read a pod until it is ready; None if it is not within the time, or failed."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        pod = await api.get(path, seconds=seconds)
        if ready(pod):
            return pod
        if (pod.get("status") or {}).get("phase") == "Failed":
            return None
        await asyncio.sleep(_EVERY_SECONDS)
    return None


def _address(pod: Document) -> str:
    status = pod.get("status") or {}
    return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""


def _message(pod: Document) -> str:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        terminated = (container.get("state") or {}).get("terminated") or {}
        if terminated:
            return str(terminated.get("message") or "{}")[:_MAX_MESSAGE]
    return ""


def _pod(name: str, image: str, script: str, arguments: list[str]) -> Document:
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", script, *arguments],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "weightlock-doctor"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(_START_SECONDS) + SECONDS,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
