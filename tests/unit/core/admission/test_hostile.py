"""Hostile documents: huge, deep, odd. Each is evaluated or denied, none crashes, and none is admitted unevaluated."""

import orjson
import pytest

from webhook.core.admission.provider import FetchedData
from webhook.core.admission.validate import validate
from webhook.core.kube.review import BadReviewError, UnsafeReviewError, parse_review

RULES = [
    {"expression": "object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))"},
    {"expression": "object.spec.containers.map(c, c.name).size() < 1000000"},
    {"expression": "weights.size() == 0 && devices.size() == 0"},
]
CONTAINER = {"name": "c", "image": "registry.example.com/x:1"}


def body(pod):
    request = {
        "uid": "1f0c",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "research",
        "name": "p",
        "operation": "CREATE",
        "userInfo": {"username": "mallory"},
        "object": {"apiVersion": "v1", "kind": "Pod", **pod},
    }
    return orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})


def spec(**fields):
    return {"metadata": {"name": "p", "namespace": "research"}, "spec": {"containers": [CONTAINER], **fields}}


def nested(depth, inner="1"):
    return body(spec(x="@")).replace(b'"@"', b'{"a":' * depth + inner.encode() + b"}" * depth)


JUDGED = {
    "5,000 containers": body(
        spec(containers=[{**CONTAINER, "name": f"c{number}"} for number in range(5_000)])
    ),
    "1,900 containers": body(
        spec(containers=[{**CONTAINER, "name": f"c{number}"} for number in range(1_900)])
    ),
    "3 MB in one label": body({**spec(), "metadata": {"name": "p", "labels": {"a": "x" * 2_900_000}}}),
    "2 MB of environment": body(
        spec(
            containers=[{**CONTAINER, "env": [{"name": f"E{n}", "value": "x" * 1_000} for n in range(1_990)]}]
        )
    ),
    "30,000 variables": body(
        spec(
            initContainers=[
                {**CONTAINER, "name": f"i{n}", "env": [{"name": f"E{m}", "value": "1"} for m in range(50)]}
                for n in range(600)
            ]
        )
    ),
    "1,990 volumes": body(
        spec(
            volumes=[{"name": f"v{n}", "persistentVolumeClaim": {"claimName": f"c{n}"}} for n in range(1_990)]
        )
    ),
    "nested 900 deep": nested(900),
    "an integer of 64 bits": body(spec(x=2**64 - 1)),
    "an integer beyond 64 bits": nested(1, "123456789012345678901234567890"),
    "a name of every plane": body(spec(x="\U0010ffff\u202e\ufffe")),
}
REFUSED = {
    "a NUL": body(spec(x="a\0b")),
    "a NUL in a key": body(spec(**{"a\0": 1})),
    "a NUL in the annotations": body({**spec(), "metadata": {"annotations": {"a": "\0"}}}),
}
NO_REVIEW = {
    "nested 5,000 deep": nested(5_000),
    "half a surrogate pair": body(spec(x="@")).replace(b'"@"', b'"\\ud800"'),
    "infinity": nested(1, "1e999"),
    "not a number": nested(1, "NaN"),
    "5 MB": body(spec(x="x" * 5_000_000)),
}


@pytest.mark.parametrize("review", JUDGED.values(), ids=JUDGED)
def test_hostile_documents_are_evaluated(review, snapshot_of, policy_of, atlas, now):
    snapshot = snapshot_of(atlas, policy_of(validations=RULES))
    verdict = validate(parse_review(review), snapshot, FetchedData(), now)
    assert [policy for policy, _, _ in verdict.timings] == ["probe"]
    if any(result == "error" for _, result, _ in verdict.timings):
        assert not verdict.allowed


@pytest.mark.parametrize("review", REFUSED.values(), ids=REFUSED)
def test_refused_with_its_uid(review):
    with pytest.raises(UnsafeReviewError) as caught:
        parse_review(review)
    assert caught.value.uid == "1f0c"


@pytest.mark.parametrize("review", NO_REVIEW.values(), ids=NO_REVIEW)
def test_no_review_at_all(review):
    with pytest.raises((BadReviewError, UnsafeReviewError)):
        parse_review(review)
