"""Other injectors, called before and after Weightlock: a mesh, and an injector that changes Weightlock's sidecar."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.controlplane import ControlPlane
from harness.stranger import Patch, Request, StrangerWebhook
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.keylab import KeyLab

AGENT = "weightlock-agent"


@dataclass(frozen=True)
class Mesh:
    """An injector like a service mesh's: a native sidecar, a container and a volume, all first or all last.

    ``stubborn`` moves its sidecar to its own place at each call, as Istio's injector does.
    """

    place: str
    stubborn: bool

    def __call__(self, request: Request) -> Patch:
        spec = request["object"]["spec"]
        names = [container["name"] for container in spec.get("initContainers", [])]
        patch: Patch = []
        if "mesh-proxy" in names:
            expected = names[0 if self.place == "first" else -1] == "mesh-proxy"
            if expected or not self.stubborn:
                return []
            patch.append({"op": "remove", "path": f"/spec/initContainers/{names.index('mesh-proxy')}"})
        else:
            patch += [self._container(spec), self._volume()]
        sidecar = {**self._like(spec, "mesh-proxy"), "restartPolicy": "Always"}
        if not names:
            return [*patch, {"op": "add", "path": "/spec/initContainers", "value": [sidecar]}]
        where = "0" if self.place == "first" else "-"
        return [*patch, {"op": "add", "path": f"/spec/initContainers/{where}", "value": sidecar}]

    def _container(self, spec: dict[str, Any]) -> dict[str, Any]:
        where = "0" if self.place == "first" else "-"
        return {"op": "add", "path": f"/spec/containers/{where}", "value": self._like(spec, "mesh-metrics")}

    def _volume(self) -> dict[str, Any]:
        where = "0" if self.place == "first" else "-"
        return {"op": "add", "path": f"/spec/volumes/{where}", "value": {"name": "mesh", "emptyDir": {}}}

    @staticmethod
    def _like(spec: dict[str, Any], name: str) -> dict[str, Any]:
        model = next(container for container in spec["containers"] if "image" in container)
        mounts = [{"name": "mesh", "mountPath": "/mesh"}]
        return {
            "name": name,
            "image": model["image"],
            "securityContext": model["securityContext"],
            "volumeMounts": mounts,
        }


def meddle(request: Request) -> Patch:
    """Add a variable to every container of whatever kind, ours included."""
    patch: Patch = []
    for field in ("initContainers", "containers"):
        for index, container in enumerate(request["object"]["spec"].get(field, [])):
            if not any(entry["name"] == "HTTPS_PROXY" for entry in container.get("env", [])):
                value = [*container.get("env", []), {"name": "HTTPS_PROXY", "value": "http://proxy.evil"}]
                patch.append({"op": "add", "path": f"/spec/{field}/{index}/env", "value": value})
    return patch


@contextmanager
def other_injector(lab: KeyLab, name: str, answer: Any, reinvocation: str) -> Iterator[StrangerWebhook]:
    """Another webhook for the lab's namespace, once the API server asks it."""
    if not isinstance(lab.cluster, ControlPlane):
        pytest.skip("the other webhook runs beside a control plane of ours")
    labels = {"metadata": {"labels": {"stranger": name}}}
    lab.cluster.client().patch(f"/api/v1/namespaces/{lab.namespace}", labels).ok()
    with StrangerWebhook(lab.cluster, name, answer, reinvocation) as stranger:
        pods = f"/api/v1/namespaces/{lab.namespace}/pods"

        def is_called() -> bool:
            lab.cluster.client("alice").post(pods, lab.pod("probe"), dryRun="All")
            return bool(stranger.requests)

        eventually(is_called, "the API server asks the other webhook", seconds=30)
        yield stranger


@pytest.mark.parametrize("reinvocation", ["Never", "IfNeeded"])
@pytest.mark.parametrize("name", ["a-mesh", "z-mesh"])
def test_a_mesh_and_weightlock_agree_in_any_order(lab: KeyLab, name: str, reinvocation: str) -> None:
    lab.granted()
    with other_injector(lab, name, Mesh("first", stubborn=False), reinvocation) as stranger:
        for place in ("first", "last"):
            for stubborn in (False, True):
                stranger.answer = Mesh(place, stubborn)
                pod = lab.running_pod(f"{place}-{str(stubborn).lower()}")
                spec = pod["spec"]
                starting = [container["name"] for container in spec["initContainers"]]
                assert sorted(starting) == ["mesh-proxy", AGENT], (place, stubborn)
                assert {container["name"] for container in spec["containers"]} >= {"mesh-metrics", "main"}
                (metrics,) = [c for c in spec["containers"] if c["name"] == "mesh-metrics"]
                assert not [m for m in metrics["volumeMounts"] if m["name"].startswith("weightlock-")]
                # The broker demands that injecting the living pod again changes nothing.
                keys, _ = lab.client(lab.token(pod)).release(lab.model)
                assert list(keys) == ["k1"]


def test_changes_to_the_sidecar_by_another_injector_are_reverted_or_denied(lab: KeyLab) -> None:
    lab.granted()
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"
    with other_injector(lab, "a-meddler", meddle, "IfNeeded"):
        pod = lab.running_pod("put-right")
        (agent,) = pod["spec"]["initContainers"]
        assert "env" not in agent
        assert pod["spec"]["containers"][0]["env"][0]["name"] == "HTTPS_PROXY"
        lab.client(lab.token(pod)).release(lab.model)
    with other_injector(lab, "z-meddler", meddle, "IfNeeded"):
        denied = lab.cluster.client("alice").post(pods, lab.pod("denied"))
        print(denied.message)
        assert denied.status == 403
        assert "its key sidecar is missing or modified [WL301]" in denied.message
        assert "another mutating webhook modifies pods after Weightlock" in denied.message
