"""What others pay while one requester sends objects that are as large and as costly as permitted.

Small reviews are sent at a fixed rate over one kept connection, alone and beside clients that send a JobSet of 1.4 MB
or a pod with thousands of references as fast as they are answered. The ratio of the 99th percentiles is the figure.
"""

import contextlib
import http.client
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson

from bench.documents import pod, review

SECONDS, RATE, ROUNDS, SENDERS = 5.0, 100, 3, 2
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research", "labels": {}}}


def large(kind, group, resource, spec):
    """A review that creates an object."""
    kinds = {"group": group, "version": "v1"}
    request = {
        "uid": "large",
        "kind": {**kinds, "kind": kind},
        "resource": {**kinds, "resource": resource},
        "namespace": "research",
        "name": "x",
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["researchers"]},
        "object": {
            "apiVersion": f"{group}/v1" if group else "v1",
            "kind": kind,
            "metadata": {"name": "x", "namespace": "research"},
            "spec": spec,
        },
    }
    return orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})


def jobset():
    """Hundreds of templates, 1.4 MB."""
    containers = [{"name": f"c{number}", "image": "registry.example.com/x:1"} for number in range(80)]
    template = {"spec": {"template": {"spec": {"containers": containers}}}}
    jobs = [{"name": f"j{number}", "template": template} for number in range(320)]
    return large("JobSet", "jobset.x-k8s.io", "jobsets", {"replicatedJobs": jobs})


def references():
    """A pod with 40 containers that refer to 1,900 ConfigMaps each, 2.7 MB."""
    containers = [
        {
            "name": f"c{number}",
            "image": "registry.example.com/x:1",
            "envFrom": [{"configMapRef": {"name": f"c{number}-{other}"}} for other in range(1900)],
        }
        for number in range(40)
    ]
    return large("Pod", "", "pods", {"containers": containers})


@contextlib.contextmanager
def serving(directory):
    """``weightlock serve`` with the shipped policies; yields the port and the CA."""
    (directory / "state").mkdir()
    (directory / "state" / "namespace.json").write_text(json.dumps(NAMESPACE))
    command = [sys.executable, "-m", "webhook.cli.main", "serve", "--state-dir", str(directory / "state")]
    command += ["--listen", "127.0.0.1:0", "--write-ca", str(directory / "ca.crt")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        for _ in range(600):
            ready = [line for line in (directory / "log").read_text().splitlines() if '"ready"' in line]
            if ready:
                break
            time.sleep(0.05)
        yield int(json.loads(ready[0])["address"].rpartition(":")[2]), directory / "ca.crt"
    finally:
        process.terminate()
        process.wait(20)


def send(connection, body):
    """Seconds until a review is answered."""
    begun = time.perf_counter()
    connection.request("POST", "/validate?timeout=10s", body, {"Content-Type": "application/json"})
    connection.getresponse().read()
    return time.perf_counter() - begun


def measured(port, ca, others):
    """Seconds of each small review, while each of ``others`` is sent again and again; how many of them were."""
    context = ssl.create_default_context(cafile=str(ca))
    stop, requests = threading.Event(), [0]

    def flood(body):
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
        while not stop.is_set():
            send(connection, body)
            requests[0] += 1

    threads = [threading.Thread(target=flood, args=(body,)) for body in others for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    small, times = review(pod(2_000)), []
    send(connection, small)
    begun = time.perf_counter()
    while (now := time.perf_counter()) - begun < SECONDS:
        times.append(send(connection, small))
        time.sleep(max(0.0, 1 / RATE - (time.perf_counter() - now)))
    stop.set()
    for thread in threads:
        thread.join()
    return times, requests[0]


def main():
    """Print the table."""
    print("| small reviews | p50, ms | p99, ms | p99 beside / alone | large ones |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as (port, ca):
        for title, bodies in (("JobSets of 1.4 MB", [jobset()]), ("pods of 2.7 MB", [references()])):
            ratios = []
            for _ in range(ROUNDS):
                rows = []
                for label, others in (("alone", []), (f"beside {title}", bodies)):
                    times, count = measured(port, ca, others)
                    cuts = statistics.quantiles(times, n=100)
                    rows.append((label, cuts[49] * 1e3, cuts[98] * 1e3, count))
                ratios.append(rows[1][2] / rows[0][2])
                for label, middle, high, count in rows:
                    print(f"| {label} | {middle:.2f} | {high:.2f} | | {count} |", flush=True)
            print(
                f"| {title}: median of {ROUNDS} rounds | | | {statistics.median(ratios):.2f} | |", flush=True
            )
