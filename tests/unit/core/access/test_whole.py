"""Access in whole verdicts: waivers turn a denial into a warning, and change control admits approved changes."""

import pytest
import yaml

from webhook.api.config import Settings
from webhook.core.access.change import digest_of
from webhook.core.admission.provider import FetchedData
from webhook.core.admission.validate import validate

SETTINGS = Settings.model_validate(
    {
        "access": {
            "waivers": {"rules": {"approvals": 1, "approvers": {"groups": ["security"]}}},
            "changeControl": {"enabled": True},
        }
    }
)
NO = {"code": "WL201", "validations": [{"expression": "pod == null", "message": "no pods"}]}


def access(spec, name="w"):
    request = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessRequest",
        "metadata": {"name": name, "uid": f"u-{name}"},
        "spec": {"duration": "1h", "reason": "x", "requester": {"username": "alice"}, **spec},
    }
    approver = {"username": "bob", "groups": ["security", "weights-approvers"]}
    approval = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessApproval",
        "metadata": {"name": f"a-{name}"},
        "spec": {"request": {"name": name, "uid": f"u-{name}"}, "decision": "Approve", "approver": approver},
    }
    return request, approval


@pytest.mark.parametrize(
    ("labels", "code", "denied"),
    [
        ({"app": "trial"}, "WL201", []),
        ({"app": "other"}, "WL201", ["WL201"]),
        ({"app": "trial"}, "WL202", ["WL201"]),
    ],
    ids=["covered", "other labels", "other policy"],
)
def test_a_waiver_warns_where_the_policy_would_deny(
    snapshot_of, policy_of, request_of, pod_of, now, labels, code, denied
):
    waiver = {"code": code, "namespace": "research", "podSelector": {"matchLabels": {"app": "trial"}}}
    pod = pod_of()
    pod["metadata"]["labels"] = labels
    verdict = validate(
        request_of(pod),
        snapshot_of(policy_of(**NO), *access({"waiver": waiver}), settings=SETTINGS),
        FetchedData(),
        now,
    )
    assert [finding.code for finding in verdict.denials] == denied
    assert [finding.message for finding in verdict.warnings] == ([] if denied else ["waived by w: no pods"])


def test_a_policy_that_cannot_be_evaluated_is_not_waived(snapshot_of, policy_of, request_of, pod_of, now):
    invalid = {"code": "WL201", "validations": [{"expression": "object.spec.nothing.here == 1"}]}
    waiver = {"code": "WL901", "namespace": "research", "podSelector": {}}
    every = SETTINGS.model_copy(
        update={
            "access": SETTINGS.access.model_copy(
                update={"waivers": SETTINGS.access.waivers.model_copy(update={"codes": ["*"]})}
            )
        }
    )
    snapshot = snapshot_of(policy_of(**invalid), *access({"waiver": waiver}), settings=every)
    assert not validate(request_of(pod_of()), snapshot, FetchedData(), now).allowed


def test_a_model_is_weakened_only_with_approval(snapshot_of, request_of, atlas, now):
    old = next(yaml.safe_load_all(atlas))
    new = {**old, "spec": {**old["spec"], "access": {"approvals": 0}}}
    change = {"kind": "ModelWeights", "name": "atlas-70b", "digest": digest_of(new)}
    request = request_of(new, oldObject=old, operation="UPDATE", resource="modelweights")
    rejection = validate(request, snapshot_of(atlas, settings=SETTINGS), FetchedData(), now)
    assert [finding.code for finding in rejection.denials] == ["WL431"]
    assert "--change" in rejection.denials[0].fix
    approved = snapshot_of(atlas, *access({"change": change}), settings=SETTINGS)
    assert validate(request, approved, FetchedData(), now).allowed
