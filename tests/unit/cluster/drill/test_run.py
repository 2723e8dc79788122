"""A drill against an API server that decides dry runs with the shipped policies, and stores everything else."""

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime

import pytest
import yaml
from aiohttp import web

from webhook.api.config import Cluster, Settings
from webhook.cluster.client.api import KubeApi
from webhook.cluster.controller.drills import DrillWatch
from webhook.cluster.controller.stats import ControllerStats
from webhook.cluster.drill import record
from webhook.cluster.drill.run import Plan, SetupError, run_with
from webhook.core.admission.verdict import to_response
from webhook.core.kube.objects import key_of
from webhook.core.kube.review import REVIEW_API_VERSION
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.drill import drill_cases
from webhook.offline.provider import ManifestProvider
from webhook.offline.redteam import corpus_directory
from webhook.offline.review import Requester, as_review, review

CASES = tuple(drill_cases(corpus_directory(), shipped_policies()))
POLICIES = list(read_path(shipped_policies()))
SYSTEM = "/api/v1/namespaces/weightlock-system/configmaps/weightlock-drill"


class Server:
    """The objects by path, and the state that decides. ``covers`` is which paths the webhook is asked about."""

    def __init__(self, *, actions=None):
        documents = [yaml.safe_load(yaml.safe_dump(manifest.document)) for manifest in POLICIES]
        for document in documents:
            changed = (actions or {}).get(document["metadata"]["name"])
            if changed:
                document["spec"]["validationActions"] = changed
        self.state = ManifestProvider([Manifest("policies", document) for document in documents], Settings())
        self.users = set()
        self.objects, self.tried, self.numbers = {}, [], itertools.count(1)
        self.covers = lambda _path: True
        self.refuse = {}
        self.slow = 0.0

    async def answer(self, request):
        path, method = request.path, request.method
        if method == "GET":
            if path in self.objects:
                return web.json_response(self.objects[path])
            listing = (
                {"items": [], "metadata": {}} if path.rpartition("/")[2] in ("csidrivers", "nodes") else None
            )
            return web.json_response(listing) if listing else _status(404, "not found")
        body = await request.json()
        if request.query.get("dryRun") == "All":
            self.tried.append(path)
            self.users.add(request.headers.get("Impersonate-User", ""))
            await asyncio.sleep(self.slow)
            return self.decide(path, body)
        if method == "DELETE":
            if path in self.refuse:
                return _status(403, self.refuse[path])
            matches = self.objects.get(path)
            assert body["preconditions"]["uid"] == matches["metadata"]["uid"]
            inside = f"/namespaces/{path.rpartition('/')[2]}/"
            for saved in [key for key in self.objects if key == path or inside in key]:
                self._forget(self.objects.pop(saved))
            return web.json_response({})
        if method == "PATCH":
            self.objects[path] = {
                **self.objects.get(path, {}),
                "data": {**self.objects[path]["data"], **body["data"]},
            }
            return web.json_response(self.objects[path])
        place = f"{path}/{body['metadata']['name']}"
        if place in self.objects:
            return _status(409, "already exists")
        body["metadata"]["uid"] = f"uid-{next(self.numbers)}"
        self.objects[place] = body
        self.state.put(body)
        return web.json_response(body, status=201)

    def _forget(self, document):
        self.state.remove(key_of(document))

    def decide(self, path, body):
        if not self.covers(path):
            if path.endswith("/pods"):
                return _status(403, "exceeded quota: nothing-runs")
            return web.json_response(body, status=201)
        namespace = path.split("/namespaces/")[-1].split("/")[0] if "/namespaces/" in path else ""
        document = body
        if path.endswith("/token"):
            document = {
                "apiVersion": REVIEW_API_VERSION,
                "kind": "AdmissionReview",
                "request": {
                    "uid": "t",
                    "kind": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
                    "resource": {"group": "", "version": "v1", "resource": "serviceaccounts"},
                    "subResource": "token",
                    "name": "default",
                    "namespace": namespace,
                    "operation": "CREATE",
                    "userInfo": {"username": "driller"},
                    "object": body,
                    "dryRun": True,
                },
            }
        elif "name" not in body["metadata"]:
            document = {**body, "metadata": {**body["metadata"], "name": "generated"}}
        who = Requester("driller", ("system:authenticated",), namespace)
        if document["kind"] != "AdmissionReview":
            document = as_review(document, who, self.state.snapshot())
            document["request"]["dryRun"] = True
        verdict = review(Manifest("attack", document), who, self.state, datetime.now(UTC)).verdict
        if verdict.allowed:
            return web.json_response(body, status=201)
        causes = [{"reason": cause.reason, "message": cause.message} for cause in to_response(verdict).causes]
        return _status(403, "admission webhook denied the request", causes)


def _status(code, message, causes=()):
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response({**body, "details": {"causes": list(causes)}}, status=code)


@contextlib.asynccontextmanager
async def connected(server, tmp_path):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    api = await KubeApi.connect(Cluster(kubeconfig=str(tmp_path / "config")))
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def plan(**changes):
    values = {
        "cases": CASES, "namespace": "", "model": "", "release": "", "release_namespace": "weightlock-system",
        "version": "0", "limit": 25, "seed": "x", "seconds": 60.0,
    }  # fmt: skip
    return Plan(**{**values, **changes})


async def drilled(server, tmp_path, **changes):
    async with connected(server, tmp_path) as api:
        return await run_with(api, plan(**changes), "abcd")


async def test_every_control_holds_and_nothing_is_left_behind(tmp_path):
    server = Server()
    drill = await drilled(server, tmp_path)
    assert (drill.result, drill.problems) == ("passed", ()), drill.as_json()
    assert {"WL101", "WL311", "WL525"} <= {control.code for control in drill.controls}
    assert server.objects == {}
    assert server.users == {"", "system:serviceaccount:weightlock-drill-abcd:attacker"}
    # The attack on the drill's weights is repeated while the drill waits for the webhook.
    assert len(server.tried) == 26


async def test_the_whole_corpus_is_stopped(tmp_path):
    """A case that needs more than the drill's own model is left out: it would turn every drill red."""
    drill = await drilled(Server(), tmp_path, limit=1000)
    assert drill.lost == (), [control.detail for control in drill.lost]
    assert len(drill.attempts) > 200


@pytest.mark.parametrize(
    ("server", "losses"),
    [
        (Server(actions={"weights-need-grant": ["Warn"]}), {"WL101"}),
        (Server(actions={"broker-token-guard": ["Audit"]}), {"WL311"}),
    ],
    ids=["weights", "tokens"],
)
async def test_a_policy_that_does_not_deny_turns_the_drill_red(server, losses, tmp_path, monkeypatch):
    monkeypatch.setattr("webhook.cluster.drill.run._SETTLE_SECONDS", 0.2)
    drill = await drilled(server, tmp_path)
    assert drill.result == "failed"
    assert losses <= {control.code for control in drill.lost}
    assert "WL525" not in {control.code for control in drill.lost}
    assert server.objects == {}


async def test_a_removed_rule_turns_the_drill_red(tmp_path, monkeypatch):
    monkeypatch.setattr("webhook.cluster.drill.run._SETTLE_SECONDS", 0.2)
    server = Server()
    server.covers = lambda path: not path.endswith("/pods")
    drill = await drilled(server, tmp_path)
    assert {"WL101", "WL525"} <= {control.code for control in drill.lost}
    assert "exceeded quota" in next(control.detail for control in drill.lost if control.code == "WL101")


async def test_a_drill_that_takes_too_long_is_not_completed_and_cleans_up(tmp_path):
    server = Server()
    server.slow = 5
    drill = await drilled(server, tmp_path, seconds=0.5)
    assert drill.result == "incomplete"
    assert drill.problems == ("the drill did not end within 0.5 s",)
    assert server.objects == {}


async def test_objects_that_cannot_be_deleted_are_reported(tmp_path):
    server = Server()
    server.refuse["/apis/weightlock.dev/v1alpha1/modelweights/weightlock-drill-abcd"] = "under change control"
    drill = await drilled(server, tmp_path)
    assert drill.result == "incomplete"
    assert "under change control" in drill.problems[0]


async def test_a_model_of_another_owner_is_never_touched(tmp_path):
    server = Server()
    model = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "atlas", "uid": "u"},
        "spec": {"sensitivity": "frontier", "volumes": [{"hostPath": {"path": "/w"}}]},
    }
    path = "/apis/weightlock.dev/v1alpha1/modelweights/atlas"
    server.objects[path] = model
    with pytest.raises(SetupError, match="is not a drill's own"):
        await drilled(server, tmp_path, model="atlas")
    assert server.objects == {path: model}


async def test_the_controller_logs_a_drill_once(tmp_path):
    server = Server()
    server.objects[SYSTEM] = {"metadata": {"name": "weightlock-drill"}, "data": {}}
    logged = []
    stats = ControllerStats()
    stats.record = lambda kind, data, subject: logged.append((kind, subject, data["result"]))
    async with connected(server, tmp_path) as api:
        watch = DrillWatch(api, SYSTEM, 86400, stats)
        await watch.reconcile()
        assert (watch.ended, watch.lost, logged) == (None, None, [])
        drill = await run_with(api, plan(limit=5), "abcd")
        await record.write(api, SYSTEM, drill)
        watch._due = 0
        await watch.reconcile()
        assert (watch.lost, watch.complete) == (0, True)
        assert watch.ended <= datetime.now(UTC).timestamp()
        assert ("drill", "drills", "passed") in logged
        count = len(logged)
        watch._due = 0
        await watch.reconcile()
        # A new leader reads the mark.
        await DrillWatch(api, SYSTEM, 86400, stats).reconcile()
        assert len(logged) == count
