"""Argo CD and Flux see no drift: the injection changes pods, and no field of their applied manifests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from harness.installed import Installed

SERVER_SIDE = ("--server-side", "--field-manager=argocd-controller")
SPEC = {"containers": [{"name": "main", "image": "registry.example.com/none:1"}]}
LABELS = {"app": "web"}


def manifests(namespace: str) -> dict[str, dict[str, Any]]:
    """A workload, as usual in a repository, and a bare pod, which the injection changes."""
    metadata = {"name": "web", "namespace": namespace, "labels": LABELS}
    template = {"metadata": {"labels": LABELS}, "spec": SPEC}
    workload = {"selector": {"matchLabels": LABELS}, "template": template, "replicas": 1}
    return {
        "deployment": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": workload},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC},
    }


@pytest.mark.parametrize("arguments", [SERVER_SIDE, ()], ids=["server-side", "client-side"])
@pytest.mark.parametrize("kind", ["deployment", "pod"])
def test_an_applied_manifest_shows_no_drift(
    weightlock: Installed, namespace: str, tmp_path: Path, kind: str, arguments: tuple[str, ...]
) -> None:
    document = manifests(namespace)[kind]
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(document))
    kubectl = weightlock.cluster.kubectl
    kubectl("apply", *arguments, "-f", str(file)).ok()
    get = ("get", kind, "web", "-n", namespace, "-o", "json", "--show-managed-fields")
    live = json.loads(kubectl(*get).ok().stdout)
    variables = [entry["name"] for entry in _containers(live)[0].get("env", [])]
    assert ("NVIDIA_VISIBLE_DEVICES" in variables) is (kind == "pod")
    # What a GitOps tool compares: a dry run of the same manifest, and the fields of its own.
    kubectl("diff", *arguments, "-f", str(file)).ok()
    kubectl("apply", *arguments, "-f", str(file)).ok()
    again = json.loads(kubectl(*get).ok().stdout)
    assert again["metadata"].get("generation") == live["metadata"].get("generation")
    assert again["spec"] == live["spec"]
    owned = [
        entry["fieldsV1"]
        for entry in again["metadata"]["managedFields"]
        if entry["operation"] == ("Apply" if arguments else "Update") and "subresource" not in entry
    ]
    if arguments:
        assert "NVIDIA_VISIBLE_DEVICES" not in json.dumps(owned)
    else:
        applied = again["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        assert json.loads(applied)["spec"] == document["spec"]


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"]
    containers: list[dict[str, Any]] = spec.get("template", {}).get("spec", spec)["containers"]
    return containers
