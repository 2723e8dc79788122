"""What is said of an object that is not as it should be: where it differs, and who wrote it last."""

from datetime import UTC, datetime

import pytest

from webhook.api.crds import definitions
from webhook.core.integrity.drift import DEFINITION_DEFAULTS, difference, last_writer

DEFAULTS = {"failurePolicy": ("Fail",), "objectSelector": ({},)}
WANTED = {"name": "w", "rules": [{"resources": ["pods"]}], "timeoutSeconds": 10}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WANTED, None),
        ({**WANTED, "failurePolicy": "Fail", "objectSelector": {}}, None),
        ({**WANTED, "caBundle": "Zm9v"}, None),
        ({**WANTED, "timeoutSeconds": 1}, "timeoutSeconds is 1, expected 10"),
        ({**WANTED, "failurePolicy": "Ignore"}, "failurePolicy is Ignore, expected none"),
        ({**WANTED, "rules": []}, "rules is [], expected [{'resources': ['pods']}]"),
        ({**WANTED, "rules": [{"resources": ["jobs"]}]}, "rules[0].resources[0] is jobs, expected pods"),
        ({"name": "w", "rules": WANTED["rules"]}, "timeoutSeconds is missing"),
        ({**WANTED, "name": "x" * 100}, f"name is {'x' * 60}…, expected w"),
        (None, " is missing"),
    ],
)
def test_the_first_difference_is_named(found, words):
    assert difference(WANTED, found, DEFAULTS, ignored=("caBundle",)) == words


def test_a_definition_that_was_loosened_deep_inside_is_found():
    for expected in definitions():
        spec = expected["spec"]
        assert difference(spec, {**spec, "conversion": {"strategy": "None"}}, DEFINITION_DEFAULTS) is None
        (version,) = spec["versions"]
        schema = {**version["schema"]["openAPIV3Schema"], "x-kubernetes-preserve-unknown-fields": True}
        loosened = {**spec, "versions": [{**version, "schema": {"openAPIV3Schema": schema}}]}
        path = "versions[0].schema.openAPIV3Schema.x-kubernetes-preserve-unknown-fields"
        assert difference(spec, loosened, DEFINITION_DEFAULTS) == f"{path} is True, expected none"
        hooked = {**spec, "conversion": {"strategy": "Webhook"}}
        assert difference(spec, hooked, DEFINITION_DEFAULTS).startswith("conversion is ")


def entry(manager, time, **fields):
    return {"manager": manager, "operation": "Update", "time": time, **fields}


def test_the_last_writer_is_the_one_of_the_latest_entry():
    entries = [
        entry("helm", "2026-11-02T09:00:00Z"),
        entry("kubectl-edit", "2026-11-02T10:00:00Z", subresource="status"),
        entry("odd", "yesterday"),
        "nonsense",
    ]
    writer = last_writer({"metadata": {"managedFields": entries}})
    assert str(writer) == "kubectl-edit (Update on status) at 2026-11-02T10:00:00Z"


def test_a_write_before_the_change_is_not_the_change():
    document = {"metadata": {"managedFields": [entry("helm", "2026-11-02T09:00:00Z")]}}
    assert last_writer(document, datetime(2026, 11, 2, 9, 0, 0, 900000, tzinfo=UTC)) is not None
    assert last_writer(document, datetime(2026, 11, 2, 9, 0, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize("metadata", [None, {}, {"managedFields": []}, {"managedFields": "x"}])
def test_an_object_that_does_not_say_has_no_writer(metadata):
    assert last_writer({"metadata": metadata}) is None
