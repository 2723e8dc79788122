"""Weightlock's own objects, refused where they are written if they could not be loaded."""

import pytest

from webhook.core.admission.provider import FetchedData
from webhook.core.admission.validate import validate

MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {"sensitivity": "frontier", "volumes": [{"hostPath": {"path": "/mnt/atlas"}}]},
}


@pytest.fixture
def refusals(snapshot_of, request_of, now):
    """What is refused about writing one object."""

    def judge(document, resource, **fields):
        request = request_of(document, resource=resource, **fields)
        return validate(request, snapshot_of(), FetchedData(), now).denials

    return judge


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_a_policy_that_does_not_compile_is_refused_with_its_place(refusals, policy_of, operation):
    document = policy_of(validations=[{"expression": "object.spec.\n  nope("}])
    (finding,) = refusals(document, "weightpolicies", operation=operation)
    assert finding.code == "WL504"
    assert "spec.validations[0].expression" in finding.message
    assert "<input>:2:" in finding.message


def test_a_policy_of_the_wrong_shape_is_refused(refusals, policy_of):
    (finding,) = refusals(policy_of(validation=[]), "weightpolicies")
    assert finding.code == "WL504"
    assert "spec.validation" in finding.message


@pytest.mark.parametrize("constraints", [None, {}, {"resourceRules": []}])
def test_a_policy_that_would_judge_nothing_is_refused(refusals, policy_of, constraints):
    document = policy_of(validations=[{"expression": "true"}], matchConstraints=constraints)
    (finding,) = refusals(document, "weightpolicies")
    assert finding.code == "WL504"
    assert "resourceRules" in finding.message


def test_an_asset_that_would_protect_nothing_is_refused(refusals):
    (finding,) = refusals({**MODEL, "spec": {"sensitivity": "frontier", "volumes": []}}, "modelweights")
    assert finding.code == "WL503"


def test_good_ones_and_other_kinds_go_through(refusals, policy_of):
    assert refusals(MODEL, "modelweights") == ()
    assert refusals(policy_of(validations=[{"expression": "true"}]), "weightpolicies") == ()
    assert refusals({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, "configmaps") == ()


def test_a_broken_one_can_still_be_deleted(refusals):
    assert refusals(None, "modelweights", operation="DELETE", oldObject={**MODEL, "spec": {}}) == ()


def _provenance(rule, **manifest):
    spec = {**MODEL["spec"], "provenance": {"rule": rule}, "manifest": manifest}
    return {**MODEL, "spec": spec}


SIGNERS = {"signers": ["A" * 43 + "="]}


def test_a_provenance_rule_that_does_not_compile_is_denied(refusals):
    (finding,) = refusals(_provenance("object.signature.", **SIGNERS), "modelweights")
    assert finding.code == "WL503"
    assert "spec.provenance.rule does not compile" in finding.message


def test_provenance_without_signers_of_the_manifest_is_denied(refusals):
    (finding,) = refusals(_provenance("true"), "modelweights")
    assert finding.code == "WL503"
    assert "manifest.signers" in finding.message


def test_a_good_provenance_rule_is_admitted(refusals):
    assert refusals(_provenance("object.signature.kind == 'key'", **SIGNERS), "modelweights") == ()
