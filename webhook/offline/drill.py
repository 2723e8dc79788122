"""The cases of the attack corpus that a drill can use: those that a cluster with only the drill's model must stop.

The corpus has models, claims, secrets and accounts of its own, and a drill has one model. Each case is therefore
reviewed offline first, with the shipped policies and the drill's state. A case that this review does not stop with the
expected codes needs something that the drill lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.config import Settings
from webhook.core.drills.attacks import Case, model
from webhook.manifests.reader import TEST_STATE_SUFFIX, Manifest, ManifestError, read_path
from webhook.offline.policytest import Suite
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, as_review, review

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMESPACE = "weightlock-drill"


def drill_cases(corpus: Path, policies: Path) -> Iterator[Case]:
    """Yield the usable cases of a corpus. Raises `ManifestError`."""
    state = [
        Manifest("drill", model(_NAMESPACE, _NAMESPACE)),
        Manifest(
            "drill",
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": _NAMESPACE, "labels": {"kubernetes.io/metadata.name": _NAMESPACE}},
            },
        ),
    ]
    provider = ManifestProvider([*read_path(policies), *state], Settings())
    requester = Requester(_NAMESPACE, ("system:authenticated",), _NAMESPACE)
    for case in creations(corpus):
        metadata = {**(case.document.get("metadata") or {}), "namespace": _NAMESPACE}
        document = {**case.document, "metadata": metadata}
        try:
            dry_run = as_review(document, requester, provider.snapshot())
            # Some decisions are left to the real creation, such as that on an object which does not exist yet.
            dry_run["request"]["dryRun"] = True
            verdict = review(Manifest(case.name, dry_run), requester, provider).verdict
        except (ManifestError, ValueError):
            continue
        if case.codes and set(case.codes) <= {finding.code for finding in verdict.denials}:
            yield case


def creations(corpus: Path) -> Iterator[Case]:
    """Yield the attacks of a corpus that create one object and name no other state. Raises `ManifestError`."""
    if not corpus.is_dir():
        raise ManifestError(f"{corpus}: no such directory")
    files = [file for file in sorted(corpus.glob("*.yaml")) if not file.name.endswith(TEST_STATE_SUFFIX)]
    if not files:
        raise ManifestError(f"{corpus}: no *.yaml files")
    for file in files:
        for case in Suite(file, ()).cases:
            needs = (case.who, case.resource, case.state, case.namespace is not None, case.change)
            if case.operation == "CREATE" and not any(needs) and not case.expect.allowed and case.object:
                yield Case(file.stem, case.name, case.object, tuple(case.expect.codes or ()))
