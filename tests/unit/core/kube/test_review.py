import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.kube.review import (
    MAX_REVIEW_BYTES,
    AdmissionResponse,
    BadReviewError,
    Cause,
    UnsafeReviewError,
    causes_of,
    parse_review,
    render_review,
)


def review(**fields):
    request = {
        "uid": "705ab4f5",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["a"], "extra": {"mfa": ["yes"]}},
        "object": {"kind": "Pod"},
        **fields,
    }
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {key: value for key, value in request.items() if value is not ...},
    }


def test_an_admission_review_of_the_api_server_is_parsed():
    request = parse_review(orjson.dumps(review(namespace="research", subResource="exec", dryRun=True)))
    assert (request.uid, request.operation, request.namespace, request.subresource) == (
        "705ab4f5",
        "CREATE",
        "research",
        "exec",
    )
    assert request.user.username == "alice"
    assert request.user.extra == {"mfa": ("yes",)}
    assert request.dry_run
    assert request.object == {"kind": "Pod"}
    assert request.old_object is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"uid": ...}, "request.uid"),
        ({"uid": 7}, "request.uid must be a string"),
        ({"uid": ""}, "request.uid"),
        ({"uid": "x" * 300}, "request.uid"),
        ({"operation": "PATCH"}, "request.operation"),
        ({"operation": ...}, "request.operation"),
        ({"kind": ...}, "request.kind is missing"),
        ({"resource": {"group": "", "version": "v1"}}, "request.resource must name"),
        ({"userInfo": []}, "request.userInfo must be an object"),
        ({"userInfo": {"groups": [1]}}, "request.userInfo.groups"),
        ({"userInfo": {"extra": {"a": "b"}}}, "request.userInfo.extra"),
        ({"object": "pod"}, "request.object must be an object"),
        ({"namespace": 3}, "request.namespace must be a string"),
    ],
)
def test_an_invalid_review_is_reported_in_one_line(fields, says):
    with pytest.raises(BadReviewError) as caught:
        parse_review(orjson.dumps(review(**fields)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"kind":"AdmissionReview"}'])
def test_no_review_is_the_callers_error(body):
    with pytest.raises(BadReviewError):
        parse_review(body)


def test_other_versions_are_refused():
    document = review()
    document["apiVersion"] = "admission.k8s.io/v1beta1"
    with pytest.raises(BadReviewError, match=r"admission\.k8s\.io/v1"):
        parse_review(orjson.dumps(document))


def test_a_body_over_the_limit_is_not_parsed():
    with pytest.raises(BadReviewError, match="larger than"):
        parse_review(b" " * (MAX_REVIEW_BYTES + 1))


def test_a_nul_is_refused_with_the_uid_so_that_the_denial_can_echo_it():
    with pytest.raises(UnsafeReviewError) as caught:
        parse_review(orjson.dumps(review(object={"kind": "Pod", "metadata": {"name": "a\0b"}})))
    assert caught.value.uid == "705ab4f5"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_request_is_read_or_refused_but_never_crashes(request_value):
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request_value}
    with pytest.raises((BadReviewError, UnsafeReviewError)):
        parse_review(orjson.dumps(body))


def test_renders_a_denial_with_status():
    answer = orjson.loads(render_review(AdmissionResponse("u", allowed=False, message="no [WL101]")))
    assert answer["response"] == {
        "uid": "u",
        "allowed": False,
        "status": {"status": "Failure", "code": 403, "reason": "Forbidden", "message": "no [WL101]"},
    }


def test_only_an_allowed_response_has_a_patch():
    patch = ({"op": "add", "path": "/a", "value": 1},)
    answer = orjson.loads(render_review(AdmissionResponse("u", allowed=True, patch=patch)))["response"]
    assert answer["patchType"] == "JSONPatch"
    assert orjson.loads(base64.b64decode(answer["patch"])) == list(patch)
    assert (
        "patch"
        not in orjson.loads(render_review(AdmissionResponse("u", allowed=False, patch=patch)))["response"]
    )
    assert "patchType" not in orjson.loads(render_review(AdmissionResponse("u", allowed=True)))["response"]


def test_a_denial_carries_its_causes_and_when_a_retry_can_help():
    causes = (Cause("WL101", "no grant\nFix: request one", "spec.template"), Cause("WL201", "no entitlement"))
    denied = AdmissionResponse("u", allowed=False, message="m", causes=causes, retry_after_seconds=5)
    status = orjson.loads(render_review(denied))["response"]["status"]
    assert status["details"] == {
        "causes": [
            {"reason": "WL101", "message": "no grant\nFix: request one", "field": "spec.template"},
            {"reason": "WL201", "message": "no entitlement", "field": ""},
        ],
        "retryAfterSeconds": 5,
    }
    assert causes_of(status) == causes
    assert (
        "details"
        not in orjson.loads(render_review(AdmissionResponse("u", allowed=False)))["response"]["status"]
    )


@pytest.mark.parametrize("details", [None, {}, {"causes": 1}, {"causes": [1, None]}])
def test_causes_of_another_shape_are_ignored(details):
    assert causes_of({"details": details}) == ()
