"""The background scan over a cluster that is only simulated: time, CPU and memory as pods grow, unpaced.

Pods are made page by page as an API server would send them and parsed from bytes; the policies are those that ship.
A tenth of the pods reads weights without a grant, a fifth asks for GPUs, one in twenty has no right to. Each size
runs in a process of its own, so that its peak is its own. A real scan is paced, and waits between pages.
"""

import asyncio
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson

from bench.documents import pod
from webhook.api.config import Reports, Settings
from webhook.cluster.events import Events
from webhook.cluster.reports.scanner import Scanner
from webhook.core.reports.documents import APIS
from webhook.manifests.reader import Manifest, read_path
from webhook.offline.provider import ManifestProvider

ROOT = Path(__file__).resolve().parents[1]
SIZES = (1_000, 10_000, 100_000)
A_NAMESPACE = 500
POD_BYTES = 4_000
MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas-70b"},
    "spec": {"sensitivity": "frontier", "volumes": [{"persistentVolumeClaim": {"names": ["atlas-*"]}}]},
}


class Simulated:
    """An API server that generates the requested objects and discards writes."""

    def __init__(self, pods):
        self.names = [f"team-{number:04}" for number in range(max(1, pods // A_NAMESPACE))]
        self.each = pods // len(self.names)
        self.written = self.bytes = self.largest = self.events = 0
        self.whole = False
        self._kinds = [self._template(kind) for kind in ("plain", "gpu", "stray", "weights")]

    async def get(self, path, query=None, **_):
        return await self.request("GET", path, query)

    async def request(self, method, path, query=None, body=None, **_):
        await asyncio.sleep(0)
        if path.endswith("/pods"):
            return self._page(path.split("/")[4], query)
        if path == f"/apis/{APIS[0].api_version}":
            return {"resources": [{"name": APIS[0].resource}, {"name": APIS[0].cluster_resource}]}
        if method == "PATCH":
            size = len(orjson.dumps(body))
            self.written, self.bytes, self.largest = (
                self.written + 1,
                self.bytes + size,
                max(self.largest, size),
            )
            self.whole = self.whole or "namespace" not in body["metadata"]
        self.events += path.endswith("/events")
        return {"metadata": {}, "items": []}

    def _page(self, namespace, query):
        begin = int(query.get("continue", "0"))
        end = min(self.each, begin + int(query["limit"]))
        items = b",".join(
            self._kinds[_kind(number)]
            .replace(b"NAMESPACE", namespace.encode())
            .replace(b"NAME", b"pod-%06d" % number)
            for number in range(begin, end)
        )
        more = b'{"continue":"%d"}' % end if end < self.each else b"{}"
        return orjson.loads(b'{"metadata":%s,"items":[%s]}' % (more, items))

    @staticmethod
    def _template(kind):
        document = pod(POD_BYTES)
        document["metadata"] |= {"name": "NAME", "namespace": "NAMESPACE", "uid": "NAMESPACE-NAME"}
        document["spec"]["serviceAccountName"] = "stranger" if kind == "stray" else "trainer"
        container = document["spec"]["containers"][0]
        if kind in ("gpu", "stray"):
            container["resources"]["limits"]["nvidia.com/gpu"] = "1"
        if kind == "weights":
            claim = {"claimName": "atlas-weights", "readOnly": True}
            document["spec"]["volumes"].append({"name": "weights", "persistentVolumeClaim": claim})
            container["volumeMounts"].append({"name": "weights", "mountPath": "/weights", "readOnly": True})
        return orjson.dumps(document)


def _kind(number):
    return 3 if number % 10 == 0 else 2 if number % 20 == 1 else 1 if number % 5 == 1 else 0


def world(api):
    """A source with the shipped policies, and in each namespace a claim on the weights and an entitled account."""
    rbac = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["weightlock.dev"], "resources": ["accelerators"], "verbs": ["use"]}
    documents = [MODEL]
    for name in api.names:
        place = {"namespace": name}
        documents += [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "atlas-weights", **place},
                "spec": {},
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "Role",
                "metadata": {"name": "gpus", **place},
                "rules": [rule],
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "gpus", **place},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "gpus"},
                "subjects": [{"kind": "ServiceAccount", "name": "trainer", "namespace": name}],
            },
        ]
    manifests = [Manifest("bench", document) for document in documents]
    source = ManifestProvider([*manifests, *read_path(ROOT / "policies")], Settings(), now=datetime.now(UTC))
    source.api = api
    return source


async def scan(pods):
    """Scan everything once; what was measured, as a line of JSON."""
    api = Simulated(pods)
    scanner = Scanner(world(api), Events(api), Reports(enabled=True, resources_per_second=10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    task = asyncio.create_task(scanner.run())
    while not api.whole:
        await asyncio.sleep(0.05)
        if task.done():
            task.result()
    matches = {
        "pods": scanner.evaluated,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "before": before / 1024,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "reports": api.written,
        "largest": api.largest,
        "events": api.events,
        "failing": scanner.total().outcomes["fail"],
    }
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return matches


def main():
    """Measure each size in a process of its own, and print."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        print(orjson.dumps(asyncio.run(scan(int(sys.argv[2])))).decode())
        return
    for pods in SIZES:
        command = [sys.executable, "-m", "bench.scan", "--one", str(pods)]
        matches = orjson.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
        print(
            f"{matches['pods']:7,} pods: {matches['seconds']:6.1f} s,"
            f" {matches['cpu'] / matches['pods'] * 1e6:5.0f} µs of CPU each;"
            f" peak {matches['peak']:4.0f} MiB ({matches['peak'] - matches['before']:+.0f} by scanning);"
            f" {matches['reports']:3} reports, the largest {matches['largest'] / 1024:.0f} KiB;"
            f" {matches['failing']:,} results fail, {matches['events']} Events",
            flush=True,
        )


if __name__ == "__main__":
    main()
