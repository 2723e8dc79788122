"""The matchConditions of the chart's webhook, as an API server evaluates them: the requests that each keeps from
Weightlock, and similar requests that the API server sends.

No process listens at the webhook's address: requests sent to Weightlock fail, and all others succeed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from harness.controlplane import ControlPlane, Options
from harness.release import CHART, NAME, NAMESPACE
from harness.rest import Answer, Client
from harness.waiting import eventually

TOKENS = "/api/v1/namespaces/default/serviceaccounts/default/token"
SECRETS = "/api/v1/namespaces/default/secrets"
TYPES = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NODES = ("system:nodes", "system:masters")


@dataclass(frozen=True)
class World:
    """A cluster whose API server calls an absent webhook, and the conditions under which it does."""

    cluster: ControlPlane
    conditions: tuple[str, ...]

    def client(self, groups: tuple[str, ...] = ("system:masters",)) -> Client:
        return self.cluster.client("somebody", groups)


@pytest.fixture(scope="module")
def world(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[World]:
    cluster = new_control_plane(Options(controllers=False))
    for group in ("weightlock.dev", "example.com", "weightlock.dev.example.com"):
        cluster.apply(definition(group))
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"},
    }
    cluster.apply(account)
    for name, labels in LABELS.items():
        cluster.new_namespace(name, labels=labels)
    values = ("--set", "webhook.url=https://127.0.0.1:1", "--show-only", "templates/webhooks.yaml")
    rendered = cluster.helm("template", NAME, str(CHART), "--namespace", NAMESPACE, *values).ok().stdout
    (matches,) = [
        document
        for document in yaml.safe_load_all(rendered)
        if document and document["kind"] == "ValidatingWebhookConfiguration"
    ]
    cluster.apply(matches)
    (webhook,) = matches["webhooks"]
    produced = World(cluster, tuple(condition["name"] for condition in webhook["matchConditions"]))
    eventually(lambda: is_sent(token(produced, ("system:masters",))), "the API server asks")
    yield produced
    cluster.stop()


def definition(group: str) -> dict[str, Any]:
    names = {"plural": "toys", "singular": "toy", "kind": "Toy", "listKind": "ToyList"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**head, "metadata": {"name": f"toys.{group}"}, "spec": spec}


def is_sent(answer: Answer) -> bool:
    """Whether the API server tried to call the webhook; AssertionError if it denied for another reason."""
    if answer.status < 300:
        return False
    assert 'failed calling webhook "validate.weightlock.dev"' in answer.message, answer.message
    return True


def token(world: World, groups: tuple[str, ...]) -> Answer:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return world.client(groups).post(TOKENS, body, dryRun="All")


def claim_of_a_node(world: World) -> Answer:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}
    path = "/api/v1/namespaces/default/persistentvolumeclaims"
    return world.client(NODES).post(path, body, dryRun="All")


LABELS: Mapping[str, Mapping[str, str]] = {
    "plain": {"team": "x"},
    "alike": {"notweightlock.dev/x": "1", "team": "weightlock.dev"},
    "ours": {"weightlock.dev/holds-weights": "true"},
    "below": {"pool.weightlock.dev/x": "1"},
}


def change_of_namespace(world: World, prefix: str) -> Answer:
    items = world.client().get("/api/v1/namespaces").ok()["items"]
    (name,) = [
        item["metadata"]["name"] for item in items if item["metadata"]["name"].startswith(f"{prefix}-")
    ]
    change = {"metadata": {"labels": dict.fromkeys(LABELS[prefix])}}
    return world.client().patch(f"/api/v1/namespaces/{name}", change, dryRun="All")


def secret(world: World, kind: str, **annotations: str) -> Answer:
    annotations = annotations or {"kubernetes.io/service-account.name": "default"}
    metadata = {"name": "s", "annotations": annotations}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind}
    return world.client().post(SECRETS, body, dryRun="All")


def change_of_type(world: World, group: str) -> Answer:
    change = {"metadata": {"annotations": {"changed": "yes"}}}
    return world.client().patch(f"{TYPES}/toys.{group}", change, dryRun="All")


def removal_of_type(world: World, group: str) -> Answer:
    return world.client().delete(f"{TYPES}/toys.{group}", dryRun="All")


CASES: dict[str, dict[str, tuple[Callable[[World], Answer], bool]]] = {
    "tokens-but-those-for-kubelets": {
        "a kubelet's token": (lambda world: token(world, NODES), False),
        "anybody else's": (lambda world: token(world, ("system:masters",)), True),
        "what else a kubelet writes": (claim_of_a_node, True),
    },
    "namespaces-with-labels-of-weightlock": {
        "no label of ours": (lambda world: change_of_namespace(world, "plain"), False),
        "a label that looks like ours": (lambda world: change_of_namespace(world, "alike"), False),
        "a label of ours that goes": (lambda world: change_of_namespace(world, "ours"), True),
        "a label below ours that goes": (lambda world: change_of_namespace(world, "below"), True),
    },
    "secrets-for-tokens-and-copies": {
        "a Secret": (lambda world: secret(world, "Opaque"), False),
        "a Secret with a path": (lambda world: secret(world, "Opaque", note='{"a": "b/c"}'), False),
        "a Secret that a controller fills": (lambda world: secret(world, "Opaque", of="ml/keys"), True),
        "a Secret for a token": (lambda world: secret(world, "kubernetes.io/service-account-token"), True),
    },
    "definitions-of-weightlock": {
        "another's type": (lambda world: change_of_type(world, "example.com"), False),
        "another's, named alike": (lambda world: removal_of_type(world, "weightlock.dev.example.com"), False),
        "a type of ours": (lambda world: change_of_type(world, "weightlock.dev"), True),
        "a type of ours that goes": (lambda world: removal_of_type(world, "weightlock.dev"), True),
    },
}
FLAT = [(case, look, wanted) for cases in CASES.values() for case, (look, wanted) in cases.items()]


def test_every_condition_has_its_cases(world: World) -> None:
    assert tuple(CASES) == world.conditions


@pytest.mark.parametrize(("case", "look", "wanted"), FLAT, ids=[case for case, _, _ in FLAT])
def test_which_requests_the_api_server_sends(
    world: World, case: str, look: Callable[[World], Answer], wanted: bool
) -> None:
    assert is_sent(look(world)) is wanted, case
