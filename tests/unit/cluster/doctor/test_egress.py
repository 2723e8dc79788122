"""The measurement of the egress limit: two pods in a namespace of their own, which is deleted."""

import json

import pytest
import yaml
from aiohttp import web

from webhook.api.config import Cluster
from webhook.cluster.client.api import KubeApi
from webhook.cluster.doctor import egress

ENFORCED = json.dumps({"enforced": True, "rate": 7_900_000, "bytes": 300_000_000})


class Server:
    """Starts each pod at once; the receiver ends with a message when the sender exists."""

    def __init__(self, message=ENFORCED, *, starts=True):
        self.message, self.starts, self.objects, self.deleted = message, starts, {}, []

    async def answer(self, request):
        path = request.path
        if request.method == "POST":
            body = await request.json()
            body["metadata"]["uid"] = "u"
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return web.json_response(body, status=201)
        if request.method == "DELETE":
            assert (await request.json())["preconditions"] == {"uid": "u"}
            self.deleted.append(path)
            return web.json_response({})
        pod = self.objects[path]
        status = {"phase": "Running", "podIP": "10.0.0.5"} if self.starts else {"phase": "Failed"}
        sender = self.objects.get(path.replace("receiver", "sender"))
        if sender is not None:
            assert sender["metadata"]["annotations"] == {"kubernetes.io/egress-bandwidth": "8000000"}
            assert "10.0.0.5" in sender["spec"]["containers"][0]["command"]
            terminated = {"terminated": {"message": self.message}}
            status = {"phase": "Succeeded", "containerStatuses": [{"name": "main", "state": terminated}]}
        return web.json_response({**pod, "status": status})


async def measured(server, tmp_path):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {"server": f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"},
            }
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    api = await KubeApi.connect(Cluster(kubeconfig=str(tmp_path / "config")))
    try:
        return (await egress.measure(api, "image", 5))[0]
    finally:
        await api.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("message", "result", "words"),
    [
        (ENFORCED, "ok", "enforces kubernetes.io/egress-bandwidth: measured 7.9 Mbit/s of 8 Mbit/s"),
        (json.dumps({"enforced": False, "rate": 10**9, "bytes": 1 << 30}), "warn", "does not enforce"),
        ("{}", "warn", "reported no rate"),
        ("Traceback", "warn", "reported no rate"),
    ],
)
async def test_a_measurement(message, result, words, tmp_path):
    server = Server(message)
    matches = await measured(server, tmp_path)
    assert matches.result == result
    assert words in matches.what
    assert len(server.deleted) == 1
    assert server.deleted[0].startswith("/api/v1/namespaces/weightlock-doctor-")


async def test_a_pod_that_does_not_run_is_reported(tmp_path):
    server = Server(starts=False)
    matches = await measured(server, tmp_path)
    assert (matches.result, "did not run" in matches.what) == ("warn", True)
    assert len(server.deleted) == 1
