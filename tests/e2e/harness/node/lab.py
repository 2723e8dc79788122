"""A namespace whose weights are sealed on the node's disk, and pods there that read them."""

import hashlib
import json
import os
from typing import Any

from harness.lab import RESTRICTED, Lab
from harness.node import sample
from harness.node.outside import Node
from harness.waiting import eventually

CONTENT = {"config.json": b'{"layers": 2}', "shards/model.bin": os.urandom(3_000_000)}
DIGEST = hashlib.sha256(CONTENT["shards/model.bin"]).hexdigest()
AGENT = "weightlock-agent"

# The training script: reads the weights through the library, once or until the key is gone.
READ = """
import hashlib, weightlock
with weightlock.open_weights("/weights") as weights:
    print(hashlib.sha256(weights.read("shards/model.bin")).hexdigest(), flush=True)
"""
READ_PLAIN = """
import hashlib, pathlib
(file,) = pathlib.Path("/var/run/weightlock/weights").glob("*/shards/model.bin")
print(hashlib.sha256(file.read_bytes()).hexdigest(), flush=True)
"""
READ_UNTIL_WIPED = """
import hashlib, sys, time, weightlock
count = 0
while True:
    try:
        with weightlock.open_weights("/weights") as weights:
            weights.read("shards/model.bin")
    except Exception as error:
        print(f"WIPED {time.time()} after {count} reads: {type(error).__name__}", flush=True)
        sys.exit(0)
    count += 1
    if count == 1:
        print("READING", flush=True)
    time.sleep(0.2)
"""
READ_FOREVER = READ_UNTIL_WIPED.replace("sys.exit(0)", "time.sleep(1)")


class NodeLab(Lab):
    """A lab on a real node: one volume of the node's disk with sealed weights."""

    def __init__(
        self,
        node: Node,
        namespace: str,
        *,
        spec: dict[str, Any] | None = None,
        kms: sample.Kms | None = None,
        **access: Any,
    ) -> None:
        super().__init__(node, namespace, **access)
        self.node = node
        self.spec = spec or {}
        self.sealed, self.keys = sample.seal(node, self.model, CONTENT, kms=kms)

    def storage(self) -> list[dict[str, Any]]:
        volume = sample.volume(self.node, self.model, self.namespace, "weights", self.sealed)
        return [*volume, *sample.may_mount(self.namespace)]

    def weights(self, **access: Any) -> dict[str, Any]:
        document = super().weights(**access)
        document["spec"] |= {"delivery": "key", "keys": self.keys, **self.spec}
        return document

    def pod(self, name: str = "train", script: str = READ) -> dict[str, Any]:
        document = super().pod(name)
        (container,) = document["spec"]["containers"]
        container |= {"image": self.node.image, "command": ["python", "-c", script]}
        return document

    @staticmethod
    def plain_pod(node: Node, namespace: str, name: str, script: str) -> dict[str, Any]:
        """Return a pod of the default service account without weights."""
        container = {
            "name": "main",
            "image": node.image,
            "command": ["python", "-c", script],
            "securityContext": RESTRICTED,
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
        }

    def job(self, name: str, script: str = READ) -> dict[str, Any]:
        """Return a Job whose pod reads the weights."""
        template = {"spec": self.pod(script=script)["spec"]}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"template": template, "backoffLimit": 0},
        }

    def grant(self, duration: str = "10m") -> dict[str, Any]:
        """Request access as alice, approve it as bob and carol, wait until admission knows it."""
        request = self.ask(duration=duration)
        for approver in ("bob", "carol")[: self.access["approvals"]]:
            self.decide(request, approver)
        eventually(self.is_admitted, "the pod is admitted", seconds=15)
        return request

    def decide(self, request: dict[str, Any], approver: str) -> None:
        """Approve a request, as soon as it is signed if the controller signs."""
        eventually(lambda: self.vote(request, approver).ok(), f"{approver} approves", every=0.3)

    def start(self, name: str = "train", script: str = READ) -> None:
        """Create a pod as alice."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        self.node.client("alice").post(path, self.pod(name, script)).ok()

    def status(self, name: str = "train") -> dict[str, Any]:
        """Return the status of a pod."""
        found = self.node.client().get(f"/api/v1/namespaces/{self.namespace}/pods/{name}").ok()
        return dict(found["status"])

    def logs(self, name: str = "train", container: str = "main") -> str:
        """Return what a container wrote, as far as it has started."""
        return self.node.kubectl("-n", self.namespace, "logs", name, "-c", container).stdout

    def wait_phase(self, phase: str, name: str = "train", seconds: float = 60.0) -> None:
        """Wait until a pod has a phase. Raises AssertionError with its status and logs."""
        try:
            eventually(
                lambda: self.status(name)["phase"] == phase, f"{name} is {phase}", seconds=seconds, every=0.2
            )
        except AssertionError as problem:
            status = json.dumps(self.status(name), indent=1)
            logs = f"{self.logs(name)}\n{self.logs(name, AGENT)}"
            raise AssertionError(f"{problem}\n{status}\n{logs}\n{self.events()}") from None

    def wait_log(self, text: str, name: str = "train", container: str = "main", seconds: float = 60.0) -> str:
        """Wait until a container has written a text; return its log."""

        def found() -> str:
            log = self.logs(name, container)
            return log if text in log else ""

        try:
            return eventually(found, f"{text!r} in the log of {name}", seconds=seconds, every=0.3)
        except AssertionError as problem:
            status = json.dumps(self.status(name), indent=1)
            raise AssertionError(f"{problem}\n{status}\n{self.logs(name, AGENT)}\n{self.events()}") from None

    def events(self) -> str:
        """Return the events of the namespace."""
        return self.node.kubectl("-n", self.namespace, "get", "events").stdout

    def processes(self, name: str, words: str) -> list[int]:
        """Return the ids of a pod's processes whose command line has these words, in the node's namespace."""
        pod = self.node.client().get(f"/api/v1/namespaces/{self.namespace}/pods/{name}").ok()
        found: list[dict[str, Any]] = self.node.control("processes", pod["metadata"]["uid"])
        return [process["pid"] for process in found if words in process["command"]]
