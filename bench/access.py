"""What grants cost: one verdict's look-up, one change, the memory, as requests and approvals grow."""

import time
import tracemalloc
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.modelweights import ModelWeights
from webhook.core.access import GrantIndex, Signer, Verifier
from webhook.core.kube.time import format_time

START = datetime(2026, 11, 2, tzinfo=UTC)
SIZES = (100, 1_000, 10_000)
API = "weightlock.dev/v1alpha1"


def model():
    """The one protected model."""
    spec = {
        "sensitivity": "frontier",
        "volumes": [{"nfs": {"server": "s", "path": "/p"}}],
        "access": {"approvals": 2, "approvers": {"groups": ["approvers"]}},
    }
    return ModelWeights.model_validate(
        {"apiVersion": API, "kind": "ModelWeights", "metadata": {"name": "atlas"}, "spec": spec}
    )


def written(kind, name, minutes, spec):
    """An access object as the API server stores it."""
    created = format_time(START + timedelta(minutes=minutes))
    return kind.model_validate(
        {
            "apiVersion": API,
            "kind": kind.__name__,
            "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created},
            "spec": {**spec, "stampedAt": created},
        }
    )


def request(number, size):
    """A request; ten a minute, for 2,000 service accounts."""
    account = number % 2000
    spec = {
        "model": "atlas",
        "subject": {"kind": "ServiceAccount", "namespace": f"ns{account % 100}", "name": f"sa{account}"},
        "namespaces": [f"ns{account % 100}"],
        "duration": "8h",
        "reason": "bench",
        "requester": {"username": f"person{number % 300}", "groups": ["a", "b"]},
    }
    return written(AccessRequest, f"r{number}", number * 400 / size, spec)


def approval(number, size):
    """Three approvals for each request."""
    of = number // 3
    spec = {
        "request": {"name": f"r{of}", "uid": f"uid-r{of}"},
        "decision": "Approve",
        "approver": {"username": f"approver{number % 50}", "groups": ["approvers", "x"]},
    }
    return written(AccessApproval, f"a{number}", of * 400 / size + 1, spec)


def best(action, rounds, repeats):
    """The best of several averages, in microseconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(rounds):
            action()
        times.append((time.perf_counter() - begun) / rounds)
    return min(times) * 1e6


def main():
    """Print a line for each size."""
    print("requests  approvals   look-up        one change     index in memory")
    now = START + timedelta(minutes=405)
    for size in SIZES:
        requests = [request(number, size) for number in range(size)]
        approvals = [approval(number, size) for number in range(3 * size)]
        tracemalloc.start()
        index = GrantIndex.build(requests, approvals, [model()])
        megabytes = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        account = ("ns7", "sa7")
        matches = len(index.for_subject("", account, "ns7", now))
        look = best(lambda: index.for_subject("", account, "ns7", now), 2000, 5)  # noqa: B023
        extra = approval(10**6, 10**9)
        change = best(lambda: index.with_changes([extra]), 20, 5)  # noqa: B023
        print(f"{size:8}  {3 * size:9}   {look:5.1f} µs ({matches})   {change:9.0f} µs   {megabytes:8.1f} MB")
    key = Ed25519PrivateKey.generate()
    signer, verifier = Signer(key), Verifier.of([key.public_key()])
    unsigned = approval(1, 10)
    signed = unsigned.model_copy(
        update={"spec": unsigned.spec.model_copy(update={"signature": signer.sign(unsigned)})}
    )
    print(
        f"one signature checked: {best(lambda: verifier.fault(signed), 200, 5):.0f} µs, once for each object"
    )
