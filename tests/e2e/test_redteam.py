"""The attack corpus on a real API server, as far as a case needs no other objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.installed import Installed

CORPUS = Path(__file__).resolve().parents[1] / "redteam"
RESOURCES = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
}
NEEDS_OTHERS = ("state", "operation", "who", "namespace", "resource")
# Fields that refer to objects which do not exist here, and the image of the corpus' model.
REFERENCES = (
    "serviceAccountName",
    "persistentVolumeClaim",
    "runtimeClassName",
    "resourceClaimName",
    "models/atlas",
    # Only a model on CSI storage makes a driver without an entry a doubt.
    "flexVolume",
)


def cases() -> Iterator[Any]:
    """Creations that need no other object and no account of their own."""
    for file in sorted(CORPUS.glob("*.yaml")):
        if file.name.endswith(".state.yaml"):
            continue
        corpus = yaml.safe_load(file.read_text())
        if any(isinstance(item, dict) for item in corpus.get("state", ())):
            # Its models and objects are its own.
            continue
        for case in corpus["cases"]:
            document = case.get("object") or {}
            text = yaml.safe_dump(document)
            if any(key in case for key in NEEDS_OTHERS) or document.get("kind") not in RESOURCES:
                continue
            if not any(reference in text for reference in REFERENCES):
                yield pytest.param(case, id=f"{file.stem}: {case['name']}")


CASES = list(cases())


@pytest.fixture(scope="module")
def place(installed_weightlock: Installed) -> Iterator[tuple[Installed, str]]:
    """Weightlock, and a namespace in which mallory may edit."""
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    namespace = installed_weightlock.cluster.new_namespace("redteam")
    installed_weightlock.cluster.let_edit("mallory", namespace)
    yield installed_weightlock, namespace
    installed_weightlock.cluster.delete_namespace(namespace)


def test_most_of_the_corpus_is_tried() -> None:
    assert len(CASES) > 250


@pytest.mark.parametrize("case", CASES)
def test_a_case(place: tuple[Installed, str], case: dict[str, Any]) -> None:
    """Objects that the API server itself rejects (400, 422) never reach a validating webhook."""
    weightlock, namespace = place
    document = case["object"]
    document = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
    path = RESOURCES[document["kind"]].format(namespace)
    answer = weightlock.cluster.client("mallory").post(path, document, dryRun="All")
    if answer.status in (400, 422):
        return
    expected = case["expect"]
    if expected["allowed"]:
        assert answer.status == 201, answer.message
    else:
        assert answer.status == 403, answer.message
        assert any(f"[{code}]" in answer.message for code in expected["codes"]), answer.message
