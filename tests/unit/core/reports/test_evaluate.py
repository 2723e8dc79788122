"""One thing that runs, evaluated as its creation would be."""

import pytest

from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.replay import account_of, creation_of
from webhook.core.reports.evaluate import evaluate_running
from webhook.core.reports.results import Resource

MODEL = """
apiVersion: weightlock.dev/v1alpha1
kind: ModelWeights
metadata: {name: atlas}
spec: {sensitivity: frontier, volumes: [{hostPath: {path: /mnt/atlas}}]}
"""
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}}


def pod(**spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train", "namespace": "research", "uid": "u"},
        "spec": {"containers": [{"name": "main", "image": "i"}], **spec},
    }


def evaluation(document, snapshot, now):
    metadata = document["metadata"]
    username, groups = account_of(document, snapshot.workloads)
    request = creation_of(document, "pods", "scan-u", username, groups)
    return evaluate_running(
        request, Resource("research", metadata["name"], "Pod"), snapshot, FetchedData(), now
    )


READS = {
    "containers": [{"name": "main", "image": "i", "volumeMounts": [{"name": "w", "mountPath": "/w"}]}],
    "volumes": [{"name": "w", "hostPath": {"path": "/mnt/atlas"}}],
}


def test_a_compliant_pod_has_no_results(snapshot_of, policy_of, now):
    snapshot = snapshot_of(NAMESPACE, policy_of(validations=[{"expression": "true"}]))
    verdict, results = evaluation(pod(), snapshot, now)
    assert results == []
    assert verdict.timings == (("probe", "pass", None),)


def test_a_broken_rule_is_a_result_with_the_severity_of_the_weights(snapshot_of, policy_of, now):
    invalid = policy_of(
        validations=[{"expression": "false", "message": "no"}], code="WL501", validationActions=["Audit"]
    )
    _, results = evaluation(pod(**READS), snapshot_of(NAMESPACE, MODEL, invalid), now)
    matches = {item.code: (item.outcome, item.severity, item.actions) for item in results}
    assert matches["WL501"] == ("fail", "critical", ("Audit",))
    # It never came through admission, or the sidecar would be there.
    assert matches["WL301"] == ("fail", "critical", ("Deny",))


def test_missing_objects_are_requested(snapshot_of, policy_of, now):
    snapshot = snapshot_of(
        policy_of(validations=[{"expression": "namespaceObject.metadata.name == 'x'"}]), complete=False
    )
    outcome = evaluation(pod(), snapshot, now)
    assert isinstance(outcome, RequiredData)
    assert {key.name for key in outcome.objects} == {"research"}


@pytest.mark.parametrize("odd", ["a\0b", 2**64, "\ud800", ["x"] * 2001], ids=["nul", "int", "text", "list"])
def test_a_pod_that_policies_cannot_read_safely_fails(snapshot_of, now, odd):
    _, results = evaluation(pod(hostname=odd), snapshot_of(NAMESPACE), now)
    assert [(item.code, item.outcome) for item in results] == [("WL501", "fail")]


def test_a_malformed_object_is_a_failure_without_a_raised_severity(snapshot_of, policy_of, now):
    snapshot = snapshot_of(NAMESPACE, MODEL, policy_of(validations=[{"expression": "true"}]))
    _, results = evaluation(pod(volumes="none"), snapshot, now)
    assert [(item.code, item.severity) for item in results] == [("WL502", "medium")]
