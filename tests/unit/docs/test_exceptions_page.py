"""The node agents of docs/exceptions.md: each is denied without its roles and runs with them."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, review

PAGE = Path(__file__).resolve().parents[3] / "docs" / "exceptions.md"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"```yaml\n# (settings|roles|manifest)\n(.*?)```", re.DOTALL)
CONTROLLER = "system:serviceaccount:kube-system:daemon-set-controller"
# A protected model, so that storage of unknown content counts as weights.
MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {"sensitivity": "frontier", "volumes": [{"persistentVolumeClaim": {"names": ["atlas"]}}]},
}


def sections():
    parts = SECTION.split(PAGE.read_text())[1:]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = {kind: list(yaml.safe_load_all(body)) for kind, body in BLOCK.findall(text)}
        if "manifest" in blocks:
            yield pytest.param(blocks, id=title)


AGENTS = list(sections())


@cache
def policies():
    return tuple(read_path(shipped_policies()))


@cache
def compiled():
    """A provider that lends its compiled policies."""
    return ManifestProvider(policies(), Settings())


def verdicts(blocks, roles):
    """Of the DaemonSet by an admin without rights of Weightlock, and of its pod by the controller."""
    (settings,) = blocks.get("settings", [{}])
    documents = [MODEL, *(blocks["roles"] if roles else ())]
    manifests = [*policies(), *(Manifest("page", document) for document in documents)]
    provider = ManifestProvider(manifests, Settings.model_validate(settings), like=compiled())
    (manifest,) = blocks["manifest"]
    namespace = manifest["metadata"]["namespace"]
    yield review(Manifest("page", manifest), Requester("admin", namespace=namespace), provider).verdict
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x", "uid": "x", "controller": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": namespace, "ownerReferences": [owner]},
        "spec": manifest["spec"]["template"]["spec"],
    }
    yield review(Manifest("page", pod), Requester(CONTROLLER, namespace=namespace), provider).verdict


@pytest.mark.parametrize("blocks", AGENTS)
def test_an_agent_is_denied_without_its_roles(blocks):
    for verdict in verdicts(blocks, roles=False):
        assert not verdict.allowed
        assert not any(finding.unevaluable for finding in verdict.denials)
        assert all("escapes.weightlock.dev" in f.fix for f in verdict.denials if f.code in ("WL113", "WL202"))


@pytest.mark.parametrize("blocks", AGENTS)
def test_an_agent_runs_with_its_roles(blocks):
    for verdict in verdicts(blocks, roles=True):
        assert verdict.denials == ()


@pytest.mark.parametrize("blocks", AGENTS)
def test_no_role_names_more_than_the_agent_needs(blocks):
    """Without any one of its names, the agent is denied. An entry for the root covers all other paths."""
    entries = {entry["name"]: entry["path"] for entry in blocks.get("settings", [{}])[0].get("nodePaths", ())}
    role = next(item for item in blocks["roles"] if item["kind"] == "Role")
    (rule,) = role["rules"]
    for name in rule["resourceNames"]:
        if "/" in entries.values() and entries.get(name, "/") != "/":
            continue
        rest = [other for other in rule["resourceNames"] if other != name]
        narrower = {**role, "rules": [{**rule, "resourceNames": rest}] if rest else []}
        others = [item for item in blocks["roles"] if item is not role]
        assert not all(
            verdict.allowed for verdict in verdicts({**blocks, "roles": [narrower, *others]}, True)
        ), name


def test_at_least_twenty_agents():
    assert len(AGENTS) >= 20
