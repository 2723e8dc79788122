"""One request to one verdict, with everything core has behind it."""

import jsonpatch
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.api.config import Settings
from webhook.cel import Bindings
from webhook.cel.authz import AccessCheck, Decision
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.validate import internal_error, invalid_review, validate
from webhook.core.admission.verdict import to_response
from webhook.core.injection.sidecar import AGENT
from webhook.core.kube.objects import ObjectKey
from webhook.core.kube.review import UnsafeReviewError

NEED_GRANT = {
    "code": "WL101",
    "validations": [
        {
            "expression": "weights.all(w, grants.exists(g, g.model == w.model))",
            "message": "no grant",
        }
    ],
}
GRANT = """
apiVersion: weightlock.dev/v1alpha1
kind: AccessRequest
metadata: {name: r, uid: u-1}
spec:
  model: atlas-70b
  subject: {kind: ServiceAccount, namespace: research, name: trainer}
  namespaces: [research]
  duration: 8h
  reason: evals
  requester: {username: alice}
---
apiVersion: weightlock.dev/v1alpha1
kind: AccessApproval
metadata: {name: a}
spec: {request: {name: r, uid: u-1}, decision: Approve, approver: {username: bob, groups: [weights-approvers]}}
"""


def codes(verdict):
    assert not isinstance(verdict, RequiredData), verdict
    return [finding.code for finding in verdict.denials]


def admit(request, snapshot, now, replace):
    """Mutate, patch, validate: the verdict and the final object."""
    mutated = mutate(request, snapshot, FetchedData(), now)
    final = jsonpatch.apply_patch(request.object, list(mutated.patch))
    return validate(replace(final), snapshot, FetchedData(), now), final


def test_weights_without_a_grant_are_denied(snapshot_of, policy_of, request_of, pod_of, atlas, now):
    snapshot = snapshot_of(atlas, policy_of(**NEED_GRANT))
    verdict, _ = admit(request_of(pod_of(claim="atlas-weights")), snapshot, now, request_of)
    assert codes(verdict) == ["WL101"]


def test_weights_with_a_grant_get_the_sidecar(snapshot_of, policy_of, request_of, pod_of, atlas, now):
    snapshot = snapshot_of(atlas, GRANT, policy_of(**NEED_GRANT))
    verdict, final = admit(
        request_of(pod_of(claim="atlas-weights", serviceAccountName="trainer")), snapshot, now, request_of
    )
    assert verdict.allowed
    assert final["spec"]["initContainers"][0]["name"] == AGENT


def test_a_grant_of_another_namespace_or_after_its_end_is_none(
    snapshot_of, policy_of, request_of, pod_of, atlas, now
):
    from datetime import timedelta

    snapshot = snapshot_of(atlas, GRANT, policy_of(**NEED_GRANT))
    request = request_of(pod_of(claim="atlas-weights", serviceAccountName="trainer"))
    late = now + timedelta(hours=8)
    assert "WL101" in codes(validate(request, snapshot, FetchedData(), late))
    assert "WL101" not in codes(validate(request, snapshot, FetchedData(), late - timedelta(seconds=1)))


def test_a_pod_that_was_never_mutated_is_denied(snapshot_of, request_of, pod_of, atlas, now):
    snapshot = snapshot_of(atlas)
    assert codes(validate(request_of(pod_of(claim="atlas-weights")), snapshot, FetchedData(), now)) == [
        "WL301"
    ]


@pytest.mark.parametrize("field", ["containers", "initContainers", "ephemeralContainers"])
def test_a_pod_without_weights_cannot_use_the_names_of_the_sidecar(
    snapshot_of, request_of, pod_of, now, field
):
    """The check of a pod without a sidecar reads the name of every container and volume."""
    pod = pod_of()
    pod["spec"][field] = [*pod["spec"].get(field, []), {"name": AGENT, "image": "x"}]
    assert codes(validate(request_of(pod), snapshot_of(), FetchedData(), now)) == ["WL302"]
    pod = pod_of()
    pod["spec"]["volumes"] = [{"name": "weightlock-key", "emptyDir": {}}]
    assert codes(validate(request_of(pod), snapshot_of(), FetchedData(), now)) == ["WL302"]


@pytest.mark.parametrize(
    "spec",
    [
        {"os": "windows"},
        {"nodeSelector": []},
        {"containers": [{"name": "a", "volumeMounts": {}}]},
        {"containers": [{"name": 1}]},
        {"volumes": [{"name": "v"}, {"name": "v"}]},
        {"serviceAccountName": "{x}"},
        {"serviceAccount": 1},
    ],
)
def test_a_malformed_pod_without_weights_is_denied(snapshot_of, request_of, pod_of, now, spec):
    """The shape of a pod is checked also where nothing else applies to it."""
    pod = pod_of()
    pod["spec"] |= spec
    assert codes(validate(request_of(pod), snapshot_of(), FetchedData(), now)) == ["WL502"]


def warned(verdict):
    return [finding.code for finding in verdict.warnings]


@pytest.mark.parametrize(
    ("context", "expected"), [({}, ["WL304"]), ({"fsGroup": 2000}, []), ({"runAsUser": 7}, [])]
)
def test_containers_that_cannot_read_the_key_cause_a_warning(
    snapshot_of, request_of, pod_of, atlas, now, context, expected
):
    pod = pod_of(claim="atlas-weights", securityContext=context)
    verdict, _ = admit(request_of(pod), snapshot_of(atlas), now, request_of)
    assert verdict.allowed
    assert warned(verdict) == expected
    assert all(len(text) <= 120 and "…" not in text for text in to_response(verdict).warnings)


def test_the_author_of_a_template_is_warned_about_denials_of_its_pods(
    snapshot_of, policy_of, request_of, pod_of, atlas, now
):
    template = pod_of(claim="atlas-weights", serviceAccountName="trainer")
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "research"},
        "spec": {"template": {"metadata": {}, "spec": template["spec"]}},
    }
    snapshot = snapshot_of(
        atlas, policy_of(**{**NEED_GRANT, "validations": [{"expression": "weights.size() >= 0"}]})
    )
    assert warned(validate(request_of(document), snapshot, FetchedData(), now)) == ["WL304"]
    template["spec"]["securityContext"] = {"fsGroup": 1}
    assert warned(validate(request_of(document), snapshot, FetchedData(), now)) == []


def test_plaintext_that_has_no_volume_to_come_from_is_denied(snapshot_of, request_of, pod_of, atlas, now):
    model = next(document for document in yaml.safe_load_all(atlas) if document["kind"] == "ModelWeights")
    model["spec"] |= {
        "delivery": "plaintext",
        "volumes": [{"image": {"reference": "example.com/models/atlas*"}}],
    }
    pod = pod_of()
    pod["spec"]["containers"][0]["image"] = "example.com/models/atlas:1"
    verdict, final = admit(request_of(pod), snapshot_of(model), now, request_of)
    assert codes(verdict) == ["WL303"]
    assert "initContainers" not in final["spec"]


def test_a_plain_pod_goes_through_as_it_is(snapshot_of, request_of, pod_of, atlas, now):
    assert validate(request_of(pod_of()), snapshot_of(atlas), FetchedData(), now).allowed


def test_reserved_names_are_ours(snapshot_of, request_of, pod_of, atlas, now):
    pod = pod_of(volumes=[{"name": "weightlock-token", "emptyDir": {}}])
    assert codes(validate(request_of(pod), snapshot_of(atlas), FetchedData(), now)) == ["WL302"]


@pytest.mark.parametrize(
    "spec",
    ["text", {"containers": "main"}, {"containers": [1]}, {"containers": [{"name": "a"}], "volumes": {}}],
)
def test_an_object_that_cannot_be_evaluated_is_denied(snapshot_of, policy_of, request_of, now, atlas, spec):
    snapshot = snapshot_of(atlas, policy_of(**NEED_GRANT))
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "research"},
        "spec": spec,
    }
    request = request_of(document)
    assert codes(validate(request, snapshot, FetchedData(), now)) == ["WL502"]
    assert mutate(request, snapshot, FetchedData(), now).patch == ()


def test_exempt_namespaces_are_skipped_and_the_audit_log_records_it(
    snapshot_of, policy_of, request_of, pod_of, now
):
    pod = pod_of()
    pod["metadata"]["namespace"] = "kube-system"
    verdict = validate(
        request_of(pod), snapshot_of(policy_of(validations=[{"expression": "false"}])), FetchedData(), now
    )
    assert verdict.allowed
    assert verdict.audit_annotations[0][0] == "exempt"


def test_no_namespace_label_makes_an_exemption(snapshot_of, policy_of, request_of, pod_of, now):
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "research", "labels": {"kubernetes.io/metadata.name": "kube-system"}},
    }
    snapshot = snapshot_of(namespace, policy_of(validations=[{"expression": "false"}]))
    assert codes(validate(request_of(pod_of()), snapshot, FetchedData(), now)) == ["WL101"]


ASKS = {
    "validations": [
        {
            "expression": "authorizer.group('').resource('serviceaccounts').namespace('research')"
            ".name('trainer').check('use').allowed()",
            "message": "may not",
        }
    ]
}


@pytest.mark.parametrize(("allowed", "expected"), [(True, []), (False, ["WL101"])])
def test_missing_access_reviews_are_requested_and_then_decide(
    snapshot_of, policy_of, request_of, pod_of, now, allowed, expected
):
    snapshot = snapshot_of(policy_of(**ASKS))
    request = request_of(pod_of())
    needs = validate(request, snapshot, FetchedData(), now)
    assert isinstance(needs, RequiredData)
    (question,) = needs.questions
    assert (question.user, question.verb, question.resource, question.name) == (
        "alice",
        "use",
        "serviceaccounts",
        "trainer",
    )
    existing = FetchedData(decisions={question: Decision(allowed)})
    assert codes(validate(request, snapshot, existing, now)) == expected


def test_uncached_objects_are_requested(snapshot_of, request_of, pod_of, atlas, now):
    snapshot = snapshot_of(atlas, complete=False)
    request = request_of(pod_of(claim="unheard-of"))
    claim = ObjectKey("PersistentVolumeClaim", "research", "unheard-of")
    for step in (mutate, validate):
        needs = step(request, snapshot, FetchedData(), now)
        assert isinstance(needs, RequiredData)
        assert claim in needs.objects


def test_access_reviews_and_objects_are_requested_together(
    snapshot_of, policy_of, request_of, pod_of, atlas, now
):
    snapshot = snapshot_of(atlas, policy_of(**ASKS), complete=False)
    namespaced = FetchedData(objects={ObjectKey("Namespace", "", "research"): None})
    needs = validate(request_of(pod_of()), snapshot, namespaced, now)
    assert isinstance(needs, RequiredData)
    assert {type(question) for question in needs.questions} == {AccessCheck}


def test_a_pod_that_loses_its_grant_can_still_be_cleaned_up(
    snapshot_of, policy_of, request_of, pod_of, atlas, now
):
    snapshot = snapshot_of(atlas, policy_of(**NEED_GRANT))
    old = pod_of(claim="atlas-weights")
    new = {**old, "metadata": {**old["metadata"], "finalizers": [], "labels": {"a": "b"}}}
    assert validate(request_of(new, operation="UPDATE", oldObject=old), snapshot, FetchedData(), now).allowed


def test_an_interactive_way_into_a_pod_sees_the_facts_of_that_pod(
    snapshot_of, policy_of, request_of, pod_of, atlas, now
):
    rule = {"validations": [{"expression": "weights.size() == 0", "message": "no exec"}]}
    snapshot = snapshot_of(atlas, pod_of(claim="atlas-weights"), pod_of("plain"), policy_of(**rule))
    options = {"apiVersion": "v1", "kind": "PodExecOptions"}
    fields = {"operation": "CONNECT", "resource": "pods", "subResource": "exec", "namespace": "research"}
    assert codes(validate(request_of(options, name="train-7", **fields), snapshot, FetchedData(), now)) == [
        "WL101"
    ]
    assert validate(request_of(options, name="plain", **fields), snapshot, FetchedData(), now).allowed


def test_every_template_of_a_workload_is_evaluated(snapshot_of, policy_of, request_of, pod_of, atlas, now):
    template = {"metadata": {}, "spec": pod_of(claim="atlas-weights")["spec"]}
    job = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "j", "namespace": "research"},
        "spec": {
            "replicatedJobs": [
                {"name": "a", "template": {"spec": {"template": {"spec": pod_of()["spec"]}}}},
                {"name": "b", "template": {"spec": {"template": template}}},
            ]
        },
    }
    verdict = validate(request_of(job), snapshot_of(atlas, policy_of(**NEED_GRANT)), FetchedData(), now)
    assert [finding.path for finding in verdict.denials] == ["spec.replicatedJobs[1].template.spec.template"]


def test_a_review_that_cannot_be_read_safely_is_denied():
    verdict = invalid_review(UnsafeReviewError("u", "document holds a NUL character"))
    assert (verdict.uid, codes(verdict)) == ("u", ["WL501"])


def test_a_fault_of_ours_denies_and_says_so():
    verdict = internal_error("u", "WL902", "something broke")
    assert codes(verdict) == ["WL902"]
    assert verdict.denials[0].unevaluable


def test_without_assets_and_device_hiding_a_pod_is_not_patched(snapshot_of, request_of, pod_of, now):
    quiet = Settings.model_validate({"injection": {"hideDevices": False}})
    assert mutate(request_of(pod_of()), snapshot_of(settings=quiet), FetchedData(), now).patch == ()


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
claims = st.fixed_dictionaries({"claimName": st.sampled_from(["atlas-weights", "x"]) | junk})
volumes = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["w", "v"]) | junk},
        optional={
            "persistentVolumeClaim": st.fixed_dictionaries(
                {"claimName": st.sampled_from(["atlas-weights", "x"]) | junk}
            )
            | junk,
            "hostPath": st.fixed_dictionaries({"path": st.text(max_size=9)}) | junk,
            "csi": junk,
            "ephemeral": junk,
        },
    )
    | junk,
    max_size=3,
)
containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(min_size=1, max_size=4) | junk},
        optional={
            "volumeMounts": junk,
            "env": junk,
            "resources": junk,
            "securityContext": junk,
            "envFrom": junk,
        },
    )
    | junk,
    max_size=3,
)
metadata = st.fixed_dictionaries(
    {"namespace": st.just("research")},
    optional={"annotations": junk, "ownerReferences": junk, "labels": junk},
)
pods = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Pod")},
    optional={
        "metadata": metadata,
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": containers | junk,
                "initContainers": containers | junk,
                "ephemeralContainers": junk,
                "volumes": volumes | junk,
                "resourceClaims": junk,
                "securityContext": junk,
                "serviceAccountName": junk,
            },
        )
        | junk,
    },
)


@settings(max_examples=300)
@given(pods)
def test_malformed_pods_never_crash_and_are_never_admitted_by_an_error(
    snapshot_of_fuzz, request_of_fuzz, pod
):
    snapshot, now = snapshot_of_fuzz
    request = request_of_fuzz(pod, namespace="research")
    mutated = mutate(request, snapshot, FetchedData(), now)
    assert not isinstance(mutated, RequiredData)
    verdict = validate(request, snapshot, FetchedData(), now)
    assert not isinstance(verdict, RequiredData)
    if any(result == "error" for _, result, _ in verdict.timings):
        assert not verdict.allowed


@pytest.mark.parametrize("place", ["namespace", "params"])
def test_a_nul_in_objects_beyond_the_request_cannot_hide_values(
    snapshot_of, policy_of, request_of, pod_of, now, place
):
    annotations = {"zone": "open\0shut" if place == "namespace" else "open"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "research", "annotations": annotations},
    }
    params = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "p", "namespace": "research"},
        "data": {"zone": "open\0shut" if place == "params" else "open"},
    }
    policy = policy_of(
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        paramRef={"name": "p", "parameterNotFoundAction": "Deny"},
        validations=[{"expression": "params.data.zone == 'open'"}],
    )
    verdict = validate(request_of(pod_of()), snapshot_of(namespace, params, policy), FetchedData(), now)
    assert codes(verdict) == ["WL502"]


FIELDS = [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}]


@pytest.mark.parametrize(
    ("expression", "denied"),
    [
        ("object.metadata.managedFields.all(f, f.manager != 'kubectl')", True),
        ("!has(object.metadata.managedFields)", True),
        ("object.metadata.size() == 3", False),
        ("pod.metadata == object.metadata && has(pod.metadata.managedFields)", False),
        ("object.metadata.name == 'p' && pod.metadata.name == 'p' && object == pod", False),
    ],
)
def test_a_policy_that_reads_managed_fields_finds_them_beside_any_other_policy(
    snapshot_of, policy_of, request_of, pod_of, now, expression, denied
):
    pod = pod_of()
    pod["metadata"] = {"name": "p", "namespace": "research", "managedFields": FIELDS}
    other = policy_of("other", validations=[{"expression": "object.metadata.name == 'p'"}])
    reader = policy_of("reader", validations=[{"expression": expression}])
    verdict = validate(request_of(pod), snapshot_of(reader, other), FetchedData(), now)
    assert ("WL101" in codes(verdict)) is denied


def test_managed_fields_reach_the_engine_only_where_a_policy_could_see_them(
    snapshot_of, policy_of, request_of, pod_of, now, monkeypatch
):
    seen = []

    def bindings(data, **others):
        seen.append(
            ["managedFields" in (data[name] or {})["metadata"] for name in ("object", "oldObject", "pod")]
        )
        assert data["pod"] is data["object"]
        return Bindings(data, **others)

    monkeypatch.setattr("webhook.core.admission.validate.Bindings", bindings)
    pod = pod_of()
    pod["metadata"]["managedFields"] = FIELDS
    request = request_of(pod, operation="UPDATE", oldObject={**pod, "spec": {"containers": []}})
    blind = policy_of("blind", validations=[{"expression": "object.spec.size() > 0"}])
    curious = policy_of("curious", validations=[{"expression": "object == object"}])
    validate(request, snapshot_of(blind), FetchedData(), now)
    validate(request, snapshot_of(blind, curious), FetchedData(), now)
    assert seen == [[False] * 3, [True] * 3]
