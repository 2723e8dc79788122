"""What a large cluster costs: memory and CPU for each object that is held, each change that is followed, each decision.

All of it in process, on documents as an API server sends them. `docs/scaling.md` holds the table that
``python -m bench scale --write`` makes, and what follows from it for 5,000 nodes.
"""

import asyncio
import gc
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from bench import load
from bench.access import START, approval, request
from bench.budget import ask_directory, settled
from bench.documents import pod, review
from webhook.api.config import Settings
from webhook.cluster.cache import PODS, ObjectCache, slim_pod
from webhook.cluster.client.api import parse
from webhook.cluster.client.kinds import KNOWN
from webhook.cluster.controller.pods import PodsWithWeights
from webhook.cluster.controller.reconcile import Reconciler, View
from webhook.cluster.controller.watches import holds_weights
from webhook.core.access.status import approval_status, request_status
from webhook.core.admission.mutate import mutate
from webhook.core.admission.snapshot import APPROVALS, REQUESTS, SnapshotBuilder
from webhook.core.admission.validate import validate
from webhook.manifests.reader import read_path
from webhook.manifests.shipped import shipped_policies

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scaling.md"
TABLE = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)
PLAN = re.compile(r"(<!-- planned -->\n).*?(<!-- /planned -->)", re.DOTALL)
CLUSTER = {
    "words": "5,000 nodes, 100,000 pods, 40,000 claims, 40,000 volumes, 40,000 resource claims, 2,000 namespaces",
    "held": {
        "PersistentVolumeClaim": 40_000,
        "PersistentVolume": 40_000,
        "ResourceClaim": 40_000,
        "Namespace": 2_000,
    },
    "creates": 1_000,
    # A pod is bound, gets its addresses, starts, is ready, ends and is deleted: each is a change of its status.
    "changes": 8,
}
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MANY, EVENTS = 20_000, 2_000
UID = "1f0c7a52-3f5e-4d0b-9a3e-{:012d}"


def metadata(number, **more):
    """Metadata as the API server stores it, managed fields included."""
    manager = {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    fields = {"f:spec": {"f:accessModes": {}, "f:resources": {"f:requests": {".": {}, "f:storage": {}}}}}
    return {
        "name": f"object-{number}",
        "uid": UID.format(number),
        "resourceVersion": str(1_000_000 + number),
        "creationTimestamp": "2026-11-01T08:00:00Z",
        "labels": {"app": f"app-{number % 200}", "team": f"team-{number % 50}"},
        "managedFields": [{**manager, "time": "2026-11-01T08:00:00Z", "fieldsV1": fields}] * 2,
        **more,
    }


def claim(number):
    """A PersistentVolumeClaim that is bound."""
    spec = {
        "accessModes": ["ReadOnlyMany"],
        "resources": {"requests": {"storage": "2Ti"}},
        "volumeName": f"pvc-{UID.format(number)}",
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
    }
    status = {"phase": "Bound", "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "2Ti"}}
    where = {"namespace": f"team-{number % 500}", "finalizers": ["kubernetes.io/pvc-protection"]}
    return {"metadata": metadata(number, **where), "spec": spec, "status": status}


def volume(number):
    """A PersistentVolume of a CSI driver."""
    handle = {
        "volumeHandle": f"projects/p/zones/z/disks/{UID.format(number)}",
        "driver": "pd.csi.example.com",
    }
    attributes = {"storage.kubernetes.io/csiProvisionerIdentity": "1730000000000-8081-pd.csi.example.com"}
    reference = {
        "kind": "PersistentVolumeClaim",
        "namespace": f"team-{number % 500}",
        "name": f"object-{number}",
    }
    spec = {
        "capacity": {"storage": "2Ti"},
        "accessModes": ["ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
        "csi": {**handle, "volumeAttributes": attributes},
        "claimRef": {**reference, "uid": UID.format(number), "apiVersion": "v1"},
    }
    return {"metadata": metadata(number, name=f"pvc-{UID.format(number)}"), "spec": spec}


def resource_claim(number):
    """A ResourceClaim made for one pod."""
    exactly = {"deviceClassName": "gpu.example.com", "count": 8, "allocationMode": "ExactCount"}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": f"train-{number}", "uid": UID.format(number)}
    return {
        "metadata": metadata(number, namespace=f"team-{number % 500}", ownerReferences=[owner]),
        "spec": {"devices": {"requests": [{"name": "gpus", "exactly": exactly}]}},
    }


def namespace(number):
    """A Namespace."""
    return {"metadata": metadata(number), "spec": {"finalizers": ["kubernetes"]}}


def model(number):
    """A ModelWeights."""
    matches = {"namespaces": [f"team-{number % 500}"], "names": [f"model-{number}-*"]}
    spec = {
        "sensitivity": "restricted",
        "volumes": [{"persistentVolumeClaim": matches}, {"csi": {"driver": "pd.csi.example.com"}}],
        "access": {"approvals": 2, "approvers": {"groups": ["weights-approvers"]}, "maxDuration": "12h"},
    }
    spec["volumes"][1]["csi"]["volumeHandles"] = [f"projects/p/zones/z/disks/model-{number}-*"]
    return {"metadata": metadata(number), "spec": spec}


HELD = {
    "PersistentVolumeClaim": ("PersistentVolumeClaim", claim, MANY),
    "PersistentVolume": ("PersistentVolume", volume, MANY),
    "ResourceClaim": ("ResourceClaim.resource.k8s.io", resource_claim, MANY),
    "Namespace": ("Namespace", namespace, MANY),
}


def resident():
    """Bytes of memory that the process holds (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def builder_of_shipped():
    """A builder with the shipped policies, whose snapshot has been taken once."""
    builder = SnapshotBuilder(Settings(), complete=False, assumed_time=NOW)
    for manifest in read_path(shipped_policies()):
        builder.put(manifest.document)
    builder.snapshot()
    return builder


def taken(builder, kind, lines, first=False):
    """CPU seconds to take watch events, each followed by a snapshot unless they are a ``first`` list."""
    begun = time.process_time()
    for line in lines:
        builder.put(kind.stripped(parse(line)["object"]))
        if not first:
            builder.snapshot()
    builder.snapshot()
    return time.process_time() - begun


def object_costs():
    """For each kind: bytes an object, microseconds to take one from a list, and from a watch."""
    result = {}
    for name, (key, make, count) in HELD.items():
        kind = KNOWN[key]
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        lines = [orjson.dumps({"type": "ADDED", "object": {**head, **make(n)}}) for n in range(count)]
        builder = builder_of_shipped()
        before = resident()
        listing = taken(builder, kind, lines, first=True)
        size = resident() - before
        again = lines[: min(EVENTS, count)]
        result[name] = {
            "count": count,
            "bytes": size / count,
            "listed": listing / count * 1e6,
            "followed": taken(builder, kind, again) / len(again) * 1e6,
        }
    return result


def edited():
    """Milliseconds that nothing else is done while a ModelWeights that was edited is taken in, by what is held."""
    result = {}
    kinds = KNOWN["PersistentVolume"], KNOWN["ModelWeights.weightlock.dev"]
    for models, volumes in ((100, 1_000), (1_000, MANY)):
        builder = builder_of_shipped()
        for kind, make, count in zip(kinds, (volume, model), (volumes, models), strict=True):
            for number in range(count):
                builder.put({**make(number), "apiVersion": kind.api_version, "kind": kind.kind})
        builder.snapshot()
        times = []
        for number in range(5):
            document = {**model(number), "apiVersion": kinds[1].api_version, "kind": kinds[1].kind}
            document["spec"]["sensitivity"] = "frontier"
            begun = time.process_time()
            builder.put(document)
            builder.snapshot()
            times.append((time.process_time() - begun) * 1e3)
        result[f"{models:,} ModelWeights and {volumes:,} volumes"] = statistics.median(times)
    return result


def rounds(count=10_000):
    """The controller's round, in milliseconds: so many requests and twice as many approvals, all of them ended."""
    builder = builder_of_shipped()
    now = START + timedelta(days=30)
    output = [*(request(n, count) for n in range(count)), *(approval(n, count) for n in range(2 * count))]
    for resource in output:
        builder.put(resource.model_dump(by_alias=True, exclude_none=True))
    state = builder.snapshot()
    for document in list(state.objects.each(REQUESTS)):
        document["status"] = request_status(state.access, document["metadata"]["name"], {}, now)
    for document in list(state.objects.each(APPROVALS)):
        document["status"] = approval_status(state.access, document["metadata"]["name"])
    steps, view = Reconciler(None, None, None), View.of(state)
    times = []
    for _ in range(6):
        begun = time.process_time()
        asyncio.run(steps.write_statuses(view, now))
        times.append((time.process_time() - begun) * 1e3)
    return {"first": times[0], "later": statistics.median(times[1:])}


def decisions():
    """Microseconds of CPU for the two reviews of a pod, under the shipped policies."""
    result = {}
    ask, state = ask_directory()
    for name, document in (
        ("a pod of 2 KB", pod(2_000)),
        ("a pod of 20 KB", pod(20_000)),
    ):
        body = review(document)
        runs = [settled(step, body, ask, state) for step in (mutate, validate)]
        rounds = []
        for _ in range(7):
            begun = time.process_time()
            for _ in range(100):
                for run in runs:
                    run()
            rounds.append((time.process_time() - begun) / 100 * 1e6)
        result[name] = statistics.median(rounds)
    return result


def controller(pods=20_000, share=0.05):
    """The controller's part: a change of a pod, a pod that is held, one look at those that hold weights."""
    ask, state = ask_directory()
    del ask
    remaining = ObjectCache(holds_weights, slim_pod)
    agent = {"name": "weightlock-agent", "image": "weightlock", "restartPolicy": "Always"}
    head = {"apiVersion": "v1", "kind": "Pod"}
    lines = []
    for number in range(pods):
        document = {**pod(4_000), **head, "status": {"phase": "Running"}}
        document["metadata"] = metadata(number, namespace="research", name=f"train-{number}")
        if number < pods * share:
            document["spec"] = {**document["spec"], "initContainers": [agent]}
        lines.append(orjson.dumps({"type": "MODIFIED", "object": document}))
    before, begun = resident(), time.process_time()
    for line in lines:
        remaining.put(PODS.stripped(parse(line)["object"]))
    followed = (time.process_time() - begun) / pods * 1e6
    size = (resident() - before) / len(remaining.objects)
    result, looks = PodsWithWeights(remaining), []
    for _ in range(6):
        begun = time.process_time()
        result.evaluate(state)
        looks.append((time.process_time() - begun) * 1e3)
    return {
        "followed": followed,
        "bytes": size,
        "holders": len(remaining.objects),
        "first": looks[0],
        "later": statistics.median(looks[1:]),
    }


def table(figures):
    """The Markdown of all figures."""
    lines = [
        "| of the webhook and the broker | memory an object | CPU to read it from a list | CPU to follow a change |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, item in figures["held"].items():
        lines.append(
            f"| {name} (measured with {item['count']:,}) | {item['bytes'] / 1024:.1f} KiB | {item['listed']:.0f} µs "
            f"| {item['followed']:.0f} µs |"
        )
    lines += ["", "| a decision, both reviews, shipped policies | CPU |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.0f} µs |" for name, value in figures["decisions"].items()]
    lines += ["", "| an edit of a ModelWeights holds up all else | for |", "| --- | ---: |"]
    lines += [f"| with {name} | {value:.0f} ms |" for name, value in figures["edited"].items()]
    item, messages = figures["controller"], figures["rounds"]
    lines += [
        "",
        "| of the controller | |",
        "| --- | ---: |",
        f"| CPU to follow a change of a pod of 4 KB | {item['followed']:.0f} µs |",
        f"| memory of a pod that holds weights | {item['bytes'] / 1024:.1f} KiB |",
        f"| a round (each second), {item['holders']:,} pods that hold weights: the first | {item['first']:.0f} ms |",
        f"| later ones | {item['later']:.1f} ms |",
        f"| a round, 10,000 requests and 20,000 approvals that have ended: the first | {messages['first']:.0f} ms |",
        f"| later ones | {messages['later']:.1f} ms |",
        "",
        f"Python {platform.python_version()}, {platform.machine()}; `python -m bench scale --write`.",
    ]
    return "\n".join(lines)


def plan(figures):
    """What a cluster of `CLUSTER` needs, from the figures; Markdown."""
    items = figures["held"]
    memory = sum(items[name]["bytes"] * count for name, count in CLUSTER["held"].items()) / 2**20
    listing = sum(items[name]["listed"] * count for name, count in CLUSTER["held"].items()) / 1e6
    pod_cpu = figures["decisions"]["a pod of 2 KB"] + 2 * figures["transport"]
    item, rate = figures["controller"], CLUSTER["creates"]
    pods = rate * CLUSTER["changes"] * item["followed"] / 1e6
    lines = [
        f"| {CLUSTER['words']} | |",
        "| --- | ---: |",
        f"| CPU of one pod's two reviews, TLS included | {pod_cpu / 1e3:.2f} ms |",
        f"| cores of all webhook replicas together, at {rate:,} pods a second | {rate * pod_cpu / 1e6:.2f} |",
        f"| replicas, each at half of a core | {math.ceil(2 * rate * pod_cpu / 1e6)} |",
        f"| memory of each replica, over {figures['base'] / 2**20:.0f} MiB for the program | {memory:.0f} MiB |",
        f"| CPU time until a new replica is ready | {listing:.1f} s |",
        f"| core share of the controller for the changes of pods, {CLUSTER['changes']} a pod | {pods:.2f} |",
    ]
    return "\n".join(lines)


def main():
    """Measure, print, and with ``--write`` put the tables into the document."""
    figures = {
        "base": resident(),
        "transport": load.main()["levels"][-1]["echo"]["cpu"],
        "held": object_costs(),
        "edited": edited(),
        "decisions": decisions(),
        "controller": controller(),
        "rounds": rounds(),
    }
    text, needs = table(figures), plan(figures)
    print(text, needs, sep="\n\n")
    if "--write" in sys.argv:
        page = TABLE.sub(lambda result: f"{result[1]}{text}\n{result[2]}", PAGE.read_text())
        PAGE.write_text(PLAN.sub(lambda result: f"{result[1]}{needs}\n{result[2]}", page))
    if "--json" in sys.argv:
        print(json.dumps(figures))
    return figures
