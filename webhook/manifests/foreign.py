"""Policies that Weightlock does not evaluate: a policy directory may contain them, and a user must know.

A policy of another engine that is skipped silently looks like protection. Each one is named with its engine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from webhook.core.kube.fields import Document
    from webhook.manifests.reader import Manifest

_OWN_GROUP = "weightlock.dev"
_NATIVE_GROUP = "admissionregistration.k8s.io"
_NATIVE = frozenset({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})
_ENGINES = {
    "kyverno.io": "Kyverno",
    "gatekeeper.sh": "Gatekeeper",
    "kubewarden.io": "Kubewarden",
    "jspolicy.com": "jsPolicy",
    "open-cluster-management.io": "Open Cluster Management",
    "openpolicyagent.org": "Open Policy Agent",
    _NATIVE_GROUP: "the API server",
}
_POLICY_KIND = re.compile(
    r"(?!.*(?:Network|Authorization|Security|Disruption))\w*(?:Policy|PolicyBinding|Constraint\w*)"
)
_FILES = {".rego": "Open Policy Agent", ".cue": "CUE", ".wasm": "Kubewarden", ".polar": "Oso"}


def foreign_policies(manifests: Iterable[Manifest]) -> Iterator[str]:
    """Yield one sentence for each policy that is not evaluated, with its place."""
    manifests = list(manifests)
    bound = {
        str((manifest.document.get("spec") or {}).get("policyName"))
        for manifest in manifests
        if manifest.document.get("kind") == "ValidatingAdmissionPolicyBinding"
    }
    for manifest in manifests:
        reason = _reason(manifest.document, bound)
        if reason:
            yield f"{manifest.source}: {reason}"


def foreign_files(directory: Path) -> Iterator[str]:
    """Yield one sentence for each file of another engine below a directory."""
    if directory.is_dir():
        for file in sorted(directory.rglob("*")):
            if file.suffix in _FILES and file.is_file():
                yield f"{file}: a policy of {_FILES[file.suffix]}, which Weightlock does not evaluate"


def _reason(document: Document, bound: set[str]) -> str:
    kind, group = str(document.get("kind", "")), str(document.get("apiVersion", "")).rpartition("/")[0]
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    if group == _OWN_GROUP:
        return ""
    if group == _NATIVE_GROUP and kind in _NATIVE:
        if kind == "ValidatingAdmissionPolicy" and name not in bound:
            return f"ValidatingAdmissionPolicy {name} has no binding, so it is not evaluated"
        return ""
    engine = next(
        (title for domain, title in _ENGINES.items() if group == domain or group.endswith(f".{domain}")), ""
    )
    if not engine and _POLICY_KIND.fullmatch(kind) is None:
        return ""
    owner = f"a policy of {engine}" if engine else f"a policy of group {group or 'core'}"
    return f"{kind} {name} is {owner}, which Weightlock does not evaluate"
