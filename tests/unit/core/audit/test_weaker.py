"""Which changes of a ModelWeights or a policy protect less than before."""

import copy

import pytest

from webhook.api.modelweights import AccessRules, ModelWeights, ModelWeightsSpec
from webhook.core.audit import weaker
from webhook.core.audit.weaker import weaker_model, weaker_policy

DIGEST = "sha256:" + "1" * 64
VOLUME = {"nfs": {"server": "nfs.example.com", "path": "/atlas"}}
OTHER = {"nfs": {"server": "nfs.example.com", "path": "/borea"}}
EGRESS = {"size": "810Gi", "minimumTime": "30d", "perPod": "2M"}
BASE = {
    "sensitivity": "restricted",
    "volumes": [VOLUME],
    "access": {
        "approvals": 2,
        "approvers": {"groups": ["leads"], "users": []},
        "rules": [{"group": "security", "count": 1}],
        "maxDuration": "12h",
        "onExpiry": "evict",
        "memoryImages": "forbidden",
    },
    "minGeneration": 3,
    "manifest": {"digest": DIGEST},
    "attestation": {"required": True, "rule": "object.overall"},
    "exclusiveDevices": True,
    "egress": EGRESS,
}
WEAKER = {
    "sensitivity": {"sensitivity": "internal"},
    "volumes": {"volumes": [OTHER]},
    "approvals": {"access": {"approvals": 1}},
    "approvers": {"access": {"approvers": {"groups": ["leads", "interns"], "users": []}}},
    "rules": {"access": {"rules": []}},
    "maxDuration": {"access": {"maxDuration": "13h"}},
    "onExpiry": {"access": {"onExpiry": "wipe"}},
    "memoryImages": {"access": {"memoryImages": "storeOnly"}},
    "delivery": {"delivery": "plaintext"},
    "minGeneration": {"minGeneration": 2},
    "manifest": {"manifest": {"digest": ""}},
    "attestation": {"attestation": {"required": True, "rule": "true"}},
    "exclusiveDevices": {"exclusiveDevices": False},
    "egress": {"egress": None},
}
NOT_WEAKER = {
    "more approvals": {"access": {"approvals": 3}},
    "fewer approvers": {"access": {"approvers": {"groups": [], "users": []}}},
    "another rule": {
        "access": {"rules": [{"group": "security", "count": 1}, {"group": "legal", "count": 1}]}
    },
    "a shorter duration": {"access": {"maxDuration": "60m"}},
    "another volume": {"volumes": [VOLUME, OTHER]},
    "another owner": {"owner": "team-1"},
    "a release of the model": {"manifest": {"digest": "sha256:" + "2" * 64}, "minGeneration": 4},
    "a higher sensitivity": {"sensitivity": "frontier"},
    "more time": {"egress": {**EGRESS, "minimumTime": "720h", "perPod": "1M"}},
}


def spec(change):
    content = copy.deepcopy(BASE)
    content.update({key: value for key, value in change.items() if key != "access"})
    content["access"].update(change.get("access", {}))
    document = {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "ModelWeights", "metadata": {"name": "m"}, "spec": content,
    }  # fmt: skip
    return ModelWeights.model_validate(document).spec.model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize("part", WEAKER)
def test_a_weaker_model_names_the_field(part):
    assert weaker_model(spec({}), spec(WEAKER[part])) == [part]


@pytest.mark.parametrize("change", NOT_WEAKER)
def test_a_stricter_or_neutral_change_names_no_field(change):
    assert weaker_model(spec({}), spec(NOT_WEAKER[change])) == []


def test_a_smaller_budget_is_weaker():
    assert weaker_model(spec({}), spec({"egress": {**EGRESS, "minimumTime": "29d"}})) == ["egress"]
    assert weaker_model(spec({}), spec({"egress": {**EGRESS, "size": "1Ti"}})) == ["egress"]


def test_a_field_without_a_known_direction_is_weaker():
    assert weaker_model({"new": 1}, {"new": 2}) == ["new"]


def test_each_field_of_the_api_has_a_known_direction():
    fields = {field.alias or name for name, field in ModelWeightsSpec.model_fields.items()}
    assert fields - {"access"} == set(weaker._SPEC)
    assert {field.alias or name for name, field in AccessRules.model_fields.items()} == set(weaker._ACCESS)


POLICY = {
    "actions": ["Deny"],
    "broken": "",
    "failsClosed": True,
    "conditions": [["a", "x"]],
    "rules": ["object.a", "object.b"],
    "constraints": "c",
    "binding": "b",
}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"actions": ["Warn"]}, ["actions"]),
        ({"broken": "line 1"}, ["broken"]),
        ({"failsClosed": False}, ["failurePolicy"]),
        ({"conditions": [["a", "x"], ["b", "y"]]}, ["matchConditions"]),
        ({"conditions": [["a", "false"]]}, ["matchConditions"]),
        ({"conditions": []}, []),
        ({"binding": "other"}, ["match"]),
        ({"rules": ["object.a"]}, ["rules"]),
        ({"rules": ["object.a", "true"]}, ["rules"]),
        ({"rules": ["object.a", "object.c"]}, []),
        ({"actions": ["Deny", "Audit"]}, []),
    ],
)
def test_a_weaker_policy_names_the_part(change, parts):
    assert weaker_policy(POLICY, {**POLICY, **change}) == parts


def test_a_policy_that_only_warned_protects_nothing():
    assert weaker_policy({**POLICY, "actions": ["Warn"]}, {**POLICY, "actions": ["Warn"], "rules": []}) == []
