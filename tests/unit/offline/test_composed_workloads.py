"""Workloads that are composed of several objects, with the shipped policies: attacks are denied, ordinary use is not.

``composed/shared.yaml`` has objects of alice, who is allowed to use the service account ``server`` with its grant.
``attacks.yaml`` and ``benign.yaml`` have one request each: ``o`` is a new object, or ``from`` one of the shared objects
that ``patch`` changes. ``u`` is the user, ``ns`` the namespace, and ``cluster`` marks a cluster-scoped object.
"""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.manifests.reader import Manifest
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, review

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from test_write_patterns import NOW, POLICIES, STATE  # noqa: E402 - the path to it is set just above

SHARED = list(yaml.safe_load_all((HERE / "composed" / "shared.yaml").read_text()))
ATTACKS = {case["n"]: case for case in yaml.safe_load((HERE / "composed" / "attacks.yaml").read_text())}
BENIGN = {case["n"]: case for case in yaml.safe_load((HERE / "composed" / "benign.yaml").read_text())}


@pytest.fixture(scope="module")
def provider():
    manifests = [*POLICIES, *(Manifest("state", document) for document in (*STATE, *SHARED))]
    return ManifestProvider(manifests, Settings(), now=NOW)


def changed(document, path, value):
    """Set one field; a number in the path is an index."""
    *steps, last = path.split(".")
    for step in steps:
        document = document[int(step)] if isinstance(document, list) else document.setdefault(step, {})
    document[int(last) if isinstance(document, list) else last] = value


def decide(case, user, provider):
    if "from" in case:
        kind, name = case["from"].split("/")
        old = next(one for one in SHARED if (one["kind"], one["metadata"]["name"]) == (kind, name))
        document = deepcopy(old)
        for path, value in case["patch"].items():
            changed(document, path, value)
    else:
        old, document = None, deepcopy(case["o"])
    group, _, version = document["apiVersion"].rpartition("/")
    request = {
        "uid": "u",
        "kind": {"group": group, "version": version, "kind": document["kind"]},
        "resource": {"group": group, "version": version, "resource": f"{document['kind'].lower()}s"},
        "operation": "UPDATE" if old else "CREATE",
        "name": document["metadata"].get("name", ""),
        "userInfo": {"username": case.get("u", user), "groups": ["system:authenticated"]},
        "object": document,
        "oldObject": old,
    }
    if not case.get("cluster"):
        request["namespace"] = document["metadata"].setdefault("namespace", case.get("ns", "ml"))
    recorded = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return review(Manifest("test", recorded), Requester(), provider, NOW).verdict


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_denied(name, provider):
    verdict = decide(ATTACKS[name], "mallory", provider)
    assert not verdict.allowed
    codes = {finding.code for finding in verdict.denials}
    # A denial for another reason would hide that the evaluation missed the account or the weights.
    assert codes <= {"WL101", "WL103", "WL111", "WL113", "WL141"}, codes


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_use_is_admitted(name, provider):
    verdict = decide(BENIGN[name], "alice", provider)
    assert verdict.allowed, [finding.message for finding in verdict.denials]
