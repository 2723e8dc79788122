"""A drill on the real API server: green, then red after a control was lost, and nothing is left behind."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import manifests
from harness.cluster import run
from harness.installed import Installed
from harness.waiting import eventually
from harness.weightlock import COMMAND

VALIDATING = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{manifests.NAME}"


@pytest.fixture(scope="module")
def weightlock(installed_weightlock: Installed) -> Iterator[Installed]:
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    yield installed_weightlock
    installed_weightlock.remove_webhooks()
    installed_weightlock.add_webhooks()


def drill(weightlock: Installed, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command with all rights: exit code, JSON and stderr."""
    kubeconfig = str(weightlock.cluster.kubeconfig())
    words = (
        "drill",
        "--kubeconfig",
        kubeconfig,
        "--release",
        "",
        "--limit",
        "40",
        "--seed",
        "e2e",
        "-o",
        "json",
    )
    result = run([COMMAND, *words, *arguments], seconds=120)
    return result.code, json.loads(result.stdout) if result.stdout else {}, result.stderr


def left_behind(weightlock: Installed) -> list[str]:
    """The drill's own objects that exist. Without a namespace controller, a deleted namespace only terminates."""
    admin = weightlock.cluster.client()
    items = [
        *admin.get("/apis/weightlock.dev/v1alpha1/modelweights").ok()["items"],
        *admin.get("/api/v1/namespaces").ok()["items"],
    ]
    return [
        item["metadata"]["name"]
        for item in items
        if item["metadata"]["name"].startswith("weightlock-drill-")
        and "deletionTimestamp" not in item["metadata"]
    ]


def control(document: dict[str, Any], code: str) -> dict[str, Any]:
    return next(item for item in document["controls"] if item["code"] == code)


def test_every_control_holds_and_then_a_rule_is_removed(weightlock: Installed) -> None:
    code, document, output = drill(weightlock)
    assert (code, document["result"]) == (0, "passed"), f"{output} {json.dumps(document)[:3000]}"
    assert {"WL101", "WL113", "WL201", "WL202", "WL311", "WL525"} <= {
        item["code"] for item in document["controls"]
    }
    assert {item["state"] for item in document["attacks"]} <= {"stopped", "other"}
    assert left_behind(weightlock) == []

    admin = weightlock.cluster.client()
    configuration = admin.get(VALIDATING).ok()
    rules = configuration["webhooks"][0]["rules"]
    without = [rule for rule in rules if "pods" not in rule["resources"]]
    assert without != rules
    change = [{"op": "replace", "path": "/webhooks/0/rules", "value": without}]
    admin.patch(VALIDATING, change, "json").ok()

    def red() -> bool:
        code, document, _ = drill(weightlock)
        return code == 1 and not control(document, "WL101")["holds"] and document["result"] == "failed"

    eventually(red, "the drill reports the lost rule", seconds=60)
    assert left_behind(weightlock) == []
