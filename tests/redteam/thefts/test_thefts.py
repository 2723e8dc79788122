"""Scripted thefts: each raises its named alert within a minute, after four weeks of a benign cluster.

The entries come from the real components where they run without a cluster: the webhook's review of real objects, the
broker, the observer of policies and models, and the heads of logs on disk. The others are built by the same builders.
"""

from __future__ import annotations

import base64
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.app.audit import BrokerLog
from webhook.app.detection import shipped_or
from webhook.audit.heads import Heads
from webhook.audit.keys import generate, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
from webhook.core.audit.entries import envelope, timestamp, validate_entry
from webhook.core.audit.observe import Observer
from webhook.core.detection.engine import Engine
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, evaluate, request_of
from webhook.server.audit import _data as verdict_data

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
for place in (HERE, ROOT / "tests" / "support"):
    sys.path.insert(0, str(place))
from keyworld import World as KeyWorld  # noqa: E402
from month import APPROVERS, START, Month, verdict  # noqa: E402

# The benign past: four weeks, with a fiftieth of the Jobs that read no model.
DAYS, SCALE = 28, 0.02
# A Tuesday at 11 h, after the past.
THEFT = START + timedelta(days=DAYS + 1, hours=11)


def replay(month):
    """Return the engine and the alerts above ``informational`` after a month."""
    engine, alerts = Engine(shipped_or("")), []
    for origin, index, document in month.entries():
        alerts += engine.feed(document, origin, index)
    return engine, [alert for alert in alerts if alert.level != "informational"]


@pytest.fixture(scope="session")
def past():
    """The month, and the stored state of an engine that saw it."""
    month = Month(seed=1, days=DAYS, plain=SCALE)
    engine, alerts = replay(month)
    return month, engine.dump(), alerts


class Scene:
    """One theft: an engine with the benign past, and the events so far."""

    def __init__(self, past, tmp_path):
        self.month, state, _ = past
        self.engine = Engine(shipped_or(""))
        self.engine.load(state)
        self.now, self.alerts, self.count, self.home = THEFT, [], 0, tmp_path
        self.team = self.month.teams[0]
        self.model = self.team.models[0]
        self.day_team = next(team for team in self.month.teams if not team.nights and team.first_hour < 12)

    def wait(self, **duration):
        self.now += timedelta(**duration)

    def log(self, kind, data, origin="broker"):
        self.count += 1
        document = envelope(
            kind, f"cluster/{origin}/{origin}-1", f"t-{self.count}", timestamp(self.now), data
        )
        validate_entry(document)
        self._feed(document, origin)

    def audit(self, **event):
        self.count += 1
        document = {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": f"t-{self.count}",
            "stage": "ResponseComplete", "requestReceivedTimestamp": timestamp(self.now), **event,
        }  # fmt: skip
        self._feed(document, "audit.log")

    def _feed(self, document, origin):
        # The loop evaluates an entry within its interval and settling time, both seconds.
        self.alerts += [(alert, self.now) for alert in self.engine.feed(document, origin, self.count)]

    def grant(self, team=None, model=None, subject=None, user="mallory@example.com", log=True):
        self.count += 1
        name = f"theft-{self.count}"
        team, model = team or self.team, model or self.model
        account = {"kind": "ServiceAccount", "namespace": team.namespace, "name": "train"}
        data = {
            "request": name, "requestUid": name, "state": "active", "model": model, "subject": subject or account,
            "requester": {"username": user}, "begins": timestamp(self.now),
            "expires": timestamp(self.now + timedelta(hours=12)), "approvers": APPROVERS[:2],
        }  # fmt: skip
        if log:
            self.log("grant", data, "controller")
        return name

    def release(self, grant, team=None, model=None, images=None, subject="ServiceAccount", **pod):
        """A release as the broker's log builds it."""
        team, model = team or self.team, model or self.model
        pool = self.month.pools[list(MODELS).index(model) % 4]
        event = {
            "event": "key.release", "result": "released", "model": model, "namespace": team.namespace,
            "pod": f"job-{self.count}", "uid": f"u-{self.count}", "node": pool[1], "zone": "eu-1a",
            "serviceAccount": "train", "credential": f"JTI={self.count}", "grant": grant, "subject": subject,
            "images": images or [f"registry.example.com/team-{team.number}/train@sha256:1"], "keys": ["1"],
            "seconds": 900, **pod,
        }  # fmt: skip
        self.log("release", release_data(event))

    def vote(self, requester, approver, seconds=900, request=""):
        self.count += 1
        data = {
            "name": f"v-{self.count}", "request": request or f"r-{self.count}", "decision": "Approve",
            "model": self.model,
            "requester": {"username": requester}, "approver": {"username": approver}, "seconds": seconds,
        }  # fmt: skip
        self.log("approval", data, "controller")

    def request(self, model, user="mallory@example.com"):
        data = {
            "name": "r-theft", "uid": "r-theft", "model": model, "subject": {"kind": "User", "name": user},
            "requester": {"username": user}, "seconds": 3600,
        }  # fmt: skip
        self.log("request", data, "controller")

    def review(self, document, user, groups=(), extra=()):
        """Review an object by the webhook's own evaluation, and log its verdict."""
        provider = ManifestProvider([*state(), *(Manifest("extra", each) for each in extra)], Settings())
        request = request_of(Manifest("theft", document), Requester(user, tuple(groups)), provider)
        done = evaluate(request, provider, self.now)
        decision = "allowed" if done.verdict.allowed else "denied"
        self.log("verdict", verdict_data(done.request, done.verdict, "validate", decision, 0.001), "webhook")
        return done.verdict


from month import MODELS  # noqa: E402


class _Writer:
    """Builds the entry of a release without a file."""

    def entry(self, kind, data, subject=""):
        return {"data": envelope(kind, "x", "x", timestamp(THEFT), data)["data"], "subject": subject}


def release_data(event):
    log = BrokerLog.__new__(BrokerLog)
    log._writer = _Writer()
    return log._entry(event)["data"]


def state():
    if not hasattr(state, "cached"):
        state.cached = [*read_path(ROOT / "examples" / "state"), *read_path(shipped_policies())]
    return state.cached


STORE = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "storage"},
        "rules": [
            {"apiGroups": ["weightlock.dev"], "resources": ["modelweights"], "verbs": ["store"]},
            {"apiGroups": ["weightlock.dev"], "resources": ["escapes"], "verbs": ["use"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "storage"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "storage"},
        "subjects": [
            {"kind": "User", "name": "mallory@example.com", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "ServiceAccount", "name": "trainer", "namespace": "research"},
        ],
    },
]  # fmt: skip


def insider_with_a_grant(scene):
    grant = scene.grant()
    for _ in range(200):
        scene.wait(seconds=15)
        scene.release(grant)


async def stolen_token(scene):
    """The real broker, and a client that sends a released nonce again."""
    world = await KeyWorld(scene.home, datetime(2026, 11, 23, 12, tzinfo=UTC)).wrap()
    broker = world.broker()
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest
    from webhook.keys.broker.refusal import RefusedError

    key = base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=key)).nonce
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=key)
    await broker.release("good", request)
    with pytest.raises(RefusedError):
        await broker.release("good", request)
    await broker.close()
    for event in world.events:
        scene.log("release", release_data(event))


def colluding_approvers(scene):
    for _ in range(7):
        scene.wait(hours=20)
        scene.vote("mallory@example.com", "eve@example.com")


def rubber_stamps(scene):
    for _ in range(3):
        scene.wait(hours=3)
        scene.vote("mallory@example.com", APPROVERS[3], seconds=4)


def approvals_in_a_ring(scene):
    users = ["ann@example.com", "ben@example.com", "cat@example.com"]
    for user, approver in zip(users, [*users[1:], users[0]], strict=True):
        for _ in range(3):
            scene.wait(hours=2)
            scene.vote(user, approver)


def approvals_in_a_large_ring(scene):
    users = [f"{name}@example.com" for name in ("ann", "ben", "cat", "dan", "eve", "fay")]
    for _ in range(3):
        for user, approver in zip(users, [*users[1:], users[0]], strict=True):
            scene.wait(hours=2)
            scene.vote(user, approver)


def slow_drip_over_weeks(scene):
    """A copy in parts by a quiet team: a pod every half hour of each day, within the usual hours."""
    team = min((each for each in scene.month.teams if not each.nights), key=lambda each: each.share)
    for _ in range(14):
        grant = scene.grant(team, team.models[0])
        for _ in range(14):
            scene.wait(minutes=25)
            scene.release(grant, team, team.models[0])
        scene.wait(minutes=24 * 60 - 14 * 25)


def disabled_webhook(scene):
    name = {
        "kind": "ValidatingWebhookConfiguration",
        "name": "weightlock",
        "detail": "is missing",
        "writer": "mallory",
    }
    scene.log("restored", name, "controller")
    scene.wait(seconds=1)
    pod = {"kind": "Pod", "name": "thief", "detail": "created while webhook configurations differed"}
    scene.log("drift", {**pod, "pods": ["research/thief"]}, "controller")


def cloned_volume(scene):
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "photos-2", "namespace": "research"},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}},
            "dataSource": {"kind": "PersistentVolumeClaim", "name": "atlas-70b"},
        },
    }  # fmt: skip
    assert scene.review(claim, "mallory@example.com", extra=STORE).allowed


def snapshot_of_a_volume(scene):
    snapshot = {
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "daily", "namespace": "research"},
        "spec": {"source": {"persistentVolumeClaimName": "atlas-70b"}},
    }  # fmt: skip
    assert scene.review(snapshot, "mallory@example.com", extra=STORE).allowed


def poisoned_template(scene):
    grant = scene.grant()
    scene.release(grant, images=["docker.io/mallory/train@sha256:9"])


def borrowed_service_account(scene):
    grant = scene.grant(subject={"kind": "User", "name": "mallory@example.com"})
    scene.release(grant, subject="User", serviceAccount="backup")


def rogue_zone(scene):
    scene.release(scene.grant(), node="gpu-9-9", zone="us-9z")


def rogue_node(scene):
    scene.release(scene.grant(), node="laptop-of-mallory")


def theft_at_night(scene):
    grant = scene.grant(scene.day_team, scene.day_team.models[0])
    scene.wait(hours=16)
    scene.release(grant, scene.day_team, scene.day_team.models[0])


def probing_for_a_gap(scene):
    """Real samples, denied for different reasons, and then a clone that passes."""
    samples = ROOT / "examples" / "samples"
    codes = set()
    for name in sorted(path.name for path in samples.glob("*.yaml")):
        for document in yaml.safe_load_all((samples / name).read_text()):
            scene.wait(minutes=1)
            rejection = scene.review(document, "mallory@example.com")
            codes |= {finding.code for finding in rejection.denials}
    assert len(codes) >= 5
    cloned_volume(scene)


def observe_model(scene, change, before=lambda spec: None):
    """The real observer of the controller, before and after a change of a model, and a request for it."""
    observer = Observer(access=False)
    for step in (before, change):
        documents = [each.document for each in read_path(ROOT / "examples" / "state" / "models.yaml")]
        step(documents[0]["spec"])
        provider = ManifestProvider([Manifest("m", each) for each in documents], Settings())
        for each in observer.changes(provider.snapshot(), scene.now):
            scene.log(each.kind, each.data, "controller")
    scene.wait(hours=1)
    scene.request("atlas-70b")


def observe_policy(scene, change):
    observer = Observer(access=False)
    file = ROOT / "policies" / "weights-need-grant.yaml"
    for step in (lambda policy: None, change):
        documents = list(yaml.safe_load_all(file.read_text()))
        step(documents[0])
        provider = ManifestProvider([Manifest("p", each) for each in documents], Settings())
        for each in observer.changes(provider.snapshot(), scene.now):
            scene.log(each.kind, each.data, "webhook")
    scene.wait(minutes=5)
    scene.request("atlas-70b")


def weakened_model(scene):
    observe_model(scene, lambda spec: spec["access"].update(approvals=1))


def weakened_policy(scene):
    observe_policy(scene, lambda policy: policy["spec"].update(validationActions=["Warn"]))


def checkpoint_through_the_kubelet(scene):
    scene.audit(
        verb="create", user={"username": "mallory"},
        requestURI="/api/v1/nodes/gpu-1/proxy/checkpoint/research/train/main",
        objectRef={"resource": "nodes", "subresource": "proxy", "name": "gpu-1"},
    )  # fmt: skip


def shell_by_get(scene):
    scene.audit(
        verb="get", user={"username": "mallory"}, requestURI="/api/v1/namespaces/research/pods/train/exec?command=sh",
        objectRef={"resource": "pods", "subresource": "exec", "namespace": "research", "name": "train"},
    )  # fmt: skip


def command_through_the_kubelet(scene):
    scene.audit(
        verb="create", user={"username": "mallory"}, requestURI="/api/v1/nodes/gpu-1/proxy/run/research/train/main",
        objectRef={"resource": "nodes", "subresource": "proxy", "name": "gpu-1"},
    )  # fmt: skip


def impersonated_trainer(scene):
    scene.audit(
        verb="create", user={"username": "mallory"}, objectRef={"resource": "pods", "namespace": "research"},
        impersonatedUser={"username": "system:serviceaccount:research:trainer"},
    )  # fmt: skip


def break_glass_without_an_incident(scene):
    data = {
        "request": "bg", "state": "active", "model": "atlas-70b", "subject": {"kind": "User", "name": "mallory"},
        "begins": timestamp(scene.now), "expires": timestamp(scene.now + timedelta(hours=1)),
    }  # fmt: skip
    scene.log("breakglass", data, "controller")


def drip_over_many_accounts(scene):
    """A copy in parts, in which each account reads less than ten times."""
    model = min(scene.month.releases, key=scene.month.releases.__getitem__)
    usual = scene.month.releases[model] // 4
    grant = scene.grant(model=model)
    for number in range(5 * usual):
        scene.wait(minutes=7 * 24 * 60 // (5 * usual))
        scene.release(grant, model=model, serviceAccount=f"batch-{number // 8}")


def two_colluding_approvers(scene):
    """Each request needs two approvals, and the same two users give them."""
    for number in range(7):
        scene.wait(hours=20)
        scene.vote("mallory@example.com", "eve@example.com", request=f"c-{number}")
        scene.vote("mallory@example.com", "dan@example.com", request=f"c-{number}")


def ring_of_busy_approvers(scene):
    """Approvers of the whole cluster who approve each other's requests."""
    leads = APPROVERS[:3]
    for lead, approver in zip(leads, [*leads[1:], leads[0]], strict=True):
        for _ in range(3):
            scene.wait(hours=2)
            scene.vote(lead, approver)


def plaintext_delivery(scene):
    observe_model(scene, lambda spec: spec.update(delivery="plaintext"))


def second_group_of_approvers(scene):
    observe_model(scene, lambda spec: spec["access"]["approvers"]["groups"].append("interns"))


def larger_egress_budget(scene):
    observe_model(
        scene,
        lambda spec: spec.update(egress={"size": "810Gi", "minimumTime": "1h", "perPod": "1G"}),
        lambda spec: spec.update(egress={"size": "810Gi", "minimumTime": "30d", "perPod": "2M"}),
    )


def policy_with_an_exception_for_a_namespace(scene):
    def change(policy):
        policy["spec"]["matchConditions"] = [
            {"name": "not-ours", "expression": "request.namespace != 'research'"}
        ]

    observe_policy(scene, change)


def grants_in_reserve(scene):
    names = [scene.grant() for _ in range(3)]
    scene.wait(hours=12)
    for name in names:
        data = {
            "request": name, "requestUid": name, "state": "ended", "model": scene.model, "approvers": APPROVERS[:2],
            "subject": {"kind": "User", "name": "mallory@example.com"}, "begins": timestamp(scene.now),
            "requester": {"username": "mallory@example.com"}, "expires": timestamp(scene.now),
        }  # fmt: skip
        scene.log("grant", data, "controller")


def theft_at_the_weekend_night(scene):
    grant = scene.grant(scene.day_team, scene.day_team.models[0])
    scene.wait(days=4, hours=14)
    scene.release(grant, scene.day_team, scene.day_team.models[0])


def foreign_token(scene):
    event = {
        "event": "key.release", "result": "refused", "model": scene.model, "namespace": "team-0", "pod": "p",
        "uid": "u", "serviceAccount": "train", "code": "WL323", "message": "the token is not bound to a pod",
    }  # fmt: skip
    scene.log("release", release_data(event))


def rolled_back_log(scene):
    """The owner of the volume restores an older copy of a replica's log."""
    signer = signer_of(generate(), "cluster/broker/b-2", "test")
    place = scene.home / "logs" / "broker" / "b-2"

    def run():
        writer = LogWriter(Directory(place, fsync=False), signer, limit=10, interval=0.01, version="test")
        writer.open()
        writer.close()

    run()
    shutil.copytree(place, scene.home / "copy")
    run()
    heads = Heads(scene.home / "logs", "cluster/controller/c-1", lambda origin: signer.keys)
    for data in heads.changes():
        scene.log("log", data, "controller")
    shutil.rmtree(place)
    shutil.copytree(scene.home / "copy", place)
    for data in heads.changes():
        scene.log("log", data, "controller")


def killed_replica(scene):
    """A real log whose writer is gone, found by the real heads."""
    key = generate()
    signer = signer_of(key, "cluster/broker/b-1", "test")
    place = scene.home / "logs" / "broker" / "b-1"
    writer = LogWriter(Directory(place, fsync=False), signer, limit=10, interval=0.01, version="test")
    writer.open()
    writer.close()
    # The stop entry is missing if the process was killed: write a start again, and release the lock only.
    writer = LogWriter(Directory(place, fsync=False), signer, limit=10, interval=0.01, version="test")
    writer.open()
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while writer.size < 3 and datetime.now(UTC) < deadline:
        pass
    writer._storage.unlock()
    heads = Heads(scene.home / "logs", "cluster/controller/c-1", lambda origin: signer.keys)
    for data in heads.changes():
        scene.log("log", data, "controller")
    writer.close()


def forged_grant(scene):
    scene.release("written-to-etcd", subject="ServiceAccount")


def exception_for_a_host_path(scene):
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tool", "namespace": "research"},
        "spec": {
            "serviceAccountName": "trainer",
            "containers": [{"name": "main", "image": "registry.example.com/tool@sha256:" + "4f" * 32,
                            "volumeMounts": [{"name": "host", "mountPath": "/host"}]}],
            "volumes": [{"name": "host", "hostPath": {"path": "/var/lib/kubelet"}}],
        },
    }  # fmt: skip
    scene.log(
        "verdict", verdict("mallory", "pods", "research", "tool", escapes=escapes_of(scene, pod)), "webhook"
    )


def escapes_of(scene, pod):
    """The escapes that the real evaluation reports for a pod."""
    provider = ManifestProvider([*state(), *(Manifest("extra", each) for each in STORE)], Settings())
    request = request_of(Manifest("theft", pod), Requester("mallory@example.com", ()), provider)
    return list(evaluate(request, provider, scene.now).verdict.reach.escapes)


def key_harvest(scene):
    for model in MODELS[:3]:
        event = {
            "event": "key.release", "result": "refused", "model": model, "namespace": "team-0", "pod": "p", "uid": "u",
            "serviceAccount": "train", "code": "WL325", "message": "the pod does not read this model",
        }  # fmt: skip
        scene.wait(seconds=5)
        scene.log("release", release_data(event))


THEFTS = {
    insider_with_a_grant: "release-burst",
    stolen_token: "token-replay",
    colluding_approvers: "exclusive-approver",
    rubber_stamps: "rubber-stamp",
    approvals_in_a_ring: "approval-ring",
    approvals_in_a_large_ring: "approval-ring",
    slow_drip_over_weeks: "slow-drip",
    disabled_webhook: "pod-during-drift",
    cloned_volume: "copy-of-model",
    snapshot_of_a_volume: "copy-of-model",
    poisoned_template: "new-image",
    borrowed_service_account: "first-read-by-account",
    rogue_zone: "release-in-new-zone",
    rogue_node: "release-on-new-node",
    theft_at_night: "use-outside-hours",
    probing_for_a_gap: "probing",
    weakened_model: "weakened-model-requested",
    weakened_policy: "weakened-policy-requested",
    checkpoint_through_the_kubelet: "kubelet-checkpoint",
    shell_by_get: "exec-by-get",
    command_through_the_kubelet: "node-proxy",
    impersonated_trainer: "impersonation",
    break_glass_without_an_incident: "break-glass",
    killed_replica: "silent-log",
    forged_grant: "release-without-grant",
    exception_for_a_host_path: "new-escape-exception",
    key_harvest: "denied-releases",
    drip_over_many_accounts: "slow-drip-model",
    two_colluding_approvers: "exclusive-approver",
    ring_of_busy_approvers: "approval-ring",
    plaintext_delivery: "weakened-model-requested",
    second_group_of_approvers: "weakened-model-requested",
    larger_egress_budget: "weakened-model-requested",
    policy_with_an_exception_for_a_namespace: "weakened-policy-requested",
    grants_in_reserve: "unused-grants",
    theft_at_the_weekend_night: "use-outside-hours",
    foreign_token: "foreign-token",
    rolled_back_log: "silent-log",
}


@pytest.mark.parametrize("theft", THEFTS, ids=lambda theft: theft.__name__)
async def test_a_theft_raises_its_alert_within_a_minute(theft, past, tmp_path):
    scene = Scene(past, tmp_path)
    done = theft(scene)
    if done is not None:
        await done
    by_name = [(alert, seen) for alert, seen in scene.alerts if alert.rule == THEFTS[theft]]
    assert by_name, [alert.rule for alert, _ in scene.alerts]
    alert, seen = by_name[0]
    assert alert.level != "informational"
    assert seen.timestamp() - max(ref.time for ref in alert.refs) <= 60
    assert alert.baseline
    validate_entry(envelope("detection", "c", "1", timestamp(seen), alert.data()))


def test_a_benign_month_raises_at_most_one_alert_a_week(past):
    _, _, alerts = past
    assert len(alerts) <= DAYS / 7, [(alert.rule, alert.baseline) for alert in alerts]


@pytest.mark.parametrize("seed", [2, 3])
def test_a_benign_month_of_another_cluster_raises_at_most_one_alert_a_week(seed):
    """The rules are not tuned to one month: other teams have other habits."""
    _, alerts = replay(Month(seed=seed, days=DAYS, plain=SCALE))
    assert len(alerts) <= DAYS / 7, [(alert.rule, alert.baseline) for alert in alerts]


def test_the_state_of_a_month_fits_in_an_object(past):
    _, packed, _ = past
    assert len(packed) < 900 * 1024
