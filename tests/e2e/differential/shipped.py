"""The shipped policies as native ones: those that `weightlock policy export --vap` gives, and three that it cannot.

The three read Weightlock's own variables. For the creation of a pod or a NetworkPolicy, in a namespace that holds
weights, those stand for something native CEL can say as well, so that the rest of each policy can be compared.
"""

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from harness.programs import ROOT

from webhook.api.policy import WeightPolicy
from webhook.core.policies.compiler import compile_policy
from webhook.core.policies.export import export

POLICIES = ROOT / "policies"
SAMPLES = ROOT / "examples" / "samples"
POD_POLICIES = ("baseline-containers", "restricted-containers")
NETWORK_POLICY = "egress-allow-list"
REWORDED = (*POD_POLICIES, NETWORK_POLICY)
EXPORTED = ("egress-deny-by-default", "guard-weightlock", "no-node-proxy")
STAND_INS = {
    "pod": "object",
    "weights": "[]",
    "workload": "dyn({'kind': 'Pod', 'name': request.name, 'namespace': request.namespace})",
    "workload.partial": "false",
    "escapes": "[]",
}
PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
# Not where a text speaks of them.
_OURS = re.compile(r"(?<![\w.'/-])(pod|workload[.]partial|workload|escapes(?=\.)|weights(?=\.))(?![\w'/-])")

Document = dict[str, Any]

SHELTER = "differential-weights"
DENY_EGRESS = {"podSelector": {}, "policyTypes": ["Egress"]}


def network_policy(name: str, spec: Document) -> Document:
    """A NetworkPolicy in the namespace that holds weights."""
    metadata = {"name": name, "namespace": SHELTER}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


# A namespace that holds weights, and what the policies ask of it.
STATE: tuple[Document, ...] = (
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": SHELTER, "labels": {"weightlock.dev/holds-weights": "true"}},
    },
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weightlock-system"}},
    network_policy("default-deny-egress", DENY_EGRESS),
)
NETWORK_POLICIES: tuple[Document, ...] = (
    network_policy("closed", DENY_EGRESS),
    network_policy("open", {**DENY_EGRESS, "egress": [{}]}),
    network_policy("internet", {**DENY_EGRESS, "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}),
    network_policy("pods", {**DENY_EGRESS, "egress": [{"to": [{"podSelector": {}}]}]}),
    network_policy("ingress", {"podSelector": {}, "policyTypes": ["Ingress"]}),
    network_policy("anywhere", {**DENY_EGRESS, "egress": [{"to": [{"namespaceSelector": {}}]}]}),
)


def documents(name: str) -> list[Document]:
    """What a shipped policy's file holds: the policy, and the params that come with it."""
    return [document for document in yaml.safe_load_all((POLICIES / f"{name}.yaml").read_text()) if document]


def native(document: Document) -> tuple[Document, ...]:
    """A WeightPolicy as ValidatingAdmissionPolicy and binding; empty where it cannot be said natively."""
    policy = WeightPolicy.model_validate(document)
    return export(policy, compile_policy(policy.metadata.name, policy.spec, policy.spec)).manifests


def reworded(document: Document) -> Document:
    """A policy of `REWORDED` in native CEL. A policy about pods covers only their creation."""
    changed: Document = _in_native_words(copy.deepcopy(document))
    if document["metadata"]["name"] in POD_POLICIES:
        changed["spec"]["matchConstraints"] = {"resourceRules": [PODS]}
    return changed


def pods() -> Iterator[Document]:
    """The pods of the pod-security corpus, where there is one, and of the samples; each has a name of its own."""
    corpus = Path(os.environ.get("WEIGHTLOCK_CORPORA", "/nonexistent")) / "pod-security"
    for number, file in enumerate(sorted([*corpus.rglob("*.yaml"), *SAMPLES.glob("*.yaml")])):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document["kind"] == "Pod":
                metadata = {
                    key: it for key, it in document["metadata"].items() if key in ("labels", "annotations")
                }
                name = {"name": f"shipped-{number}", "namespace": SHELTER}
                spec = {**document["spec"], "serviceAccountName": "default"}
                yield {**document, "metadata": {**metadata, **name}, "spec": spec}


def _in_native_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _OURS.sub(lambda matches: STAND_INS[matches[0]], it)
            if isinstance(it, str) and key.lower().endswith(("expression", "fix"))
            else _in_native_words(it)
            for key, it in value.items()
        }
    return [_in_native_words(item) for item in value] if isinstance(value, list) else value
