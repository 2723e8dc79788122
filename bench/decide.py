"""One verdict in process: parse, facts, policies, answer. Beside it the floor, which is parsing and writing alone.

Each figure is the median of several rounds in which the two sides alternate, so that noise hits both.
"""

import statistics
import time
from datetime import UTC, datetime

import orjson

from bench.documents import elsewhere, pod, policy, review
from webhook.api.config import Settings
from webhook.core.admission.provider import FetchedData
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.admission.validate import validate
from webhook.core.admission.verdict import Verdict, to_response
from webhook.core.kube.review import parse_review, render_review

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROUNDS = 15
MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas-70b"},
    "spec": {
        "sensitivity": "frontier",
        "volumes": [{"persistentVolumeClaim": {"namespaces": ["research"], "names": ["atlas-*"]}}],
    },
}


def snapshot(policies, objects=0, models=1):
    """A snapshot of so many policies, claims and models."""
    builder = SnapshotBuilder(Settings(), complete=True, assumed_time=NOW)
    builder.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research", "labels": {}}})
    for document in policies:
        builder.put(document)
    for number in range(models):
        builder.put({**MODEL, "metadata": {"name": f"atlas-{number}"}})
    for number in range(objects):
        name = {"name": f"claim-{number}", "namespace": f"team-{number % 100}"}
        builder.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": name, "spec": {}})
    return builder.snapshot()


def answer(body, state):
    """What the webhook does between its sockets."""
    verdict = validate(parse_review(body), state, FetchedData(), NOW)
    assert isinstance(verdict, Verdict), verdict
    assert verdict.allowed, verdict.denials
    return render_review(to_response(verdict))


def floor(body):
    """The least any webhook in this language does."""
    return orjson.dumps(orjson.loads(body))


def microseconds(step, count):
    """CPU time of one call, in microseconds."""
    began = time.process_time_ns()
    for _ in range(count):
        step()
    return (time.process_time_ns() - began) / count / 1000


def alternate(*steps, count=150):
    """The median microseconds of each step, measured in turns."""
    for step in steps:
        step()
    rounds = [[microseconds(step, count) for step in steps] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def main():
    """Measure and print."""
    few = [policy(number) for number in range(20)]
    for size in (2_000, 20_000):
        body = review(pod(size))
        state, single = snapshot(few), snapshot([policy(0)])
        whole, least, facts_only = alternate(
            lambda body=body, state=state: answer(body, state),
            lambda body=body: floor(body),
            lambda body=body, state=single: answer(body, state),
        )
        print(
            f"{len(body):6} bytes, 20 policies: {whole:7.0f} µs  floor {least:6.0f} µs  ratio {whole / least:5.1f}"
            f"   1 policy {facts_only:6.0f} µs, each further one {(whole - facts_only) / 19:5.1f} µs"
        )
    body = review(pod(2_000))
    base = snapshot(few)
    for label, state in (
        ("100 policies that do not match", snapshot([*few, *map(elsewhere, range(80))])),
        ("500 policies that do not match", snapshot([*few, *map(elsewhere, range(480))])),
        ("1,000 claims", snapshot(few, objects=1_000)),
        ("100,000 claims", snapshot(few, objects=100_000)),
        ("1,000 models", snapshot(few, models=1_000)),
    ):
        more, plain = alternate(lambda state=state: answer(body, state), lambda: answer(body, base))
        print(f"{label:32} {more:7.0f} µs  ratio to without {more / plain:5.2f}")
    began = time.process_time()
    snapshot([policy(number) for number in range(500)])
    print(f"500 policies compiled in {time.process_time() - began:.2f} s of CPU")


if __name__ == "__main__":
    main()
