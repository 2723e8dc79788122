import pytest
from pydantic import ValidationError

from webhook.api.modelweights import ModelWeights, VolumeMatch

WHOLE = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas-70b", "managedFields": []},
    "spec": {"sensitivity": "frontier", "volumes": [{"hostPath": {"path": "/mnt/atlas"}}]},
}


def test_defaults_are_the_careful_ones():
    spec = ModelWeights.model_validate(WHOLE).spec
    assert spec.access.approvals == 2
    assert spec.access.max_duration == "12h"
    assert spec.access.on_expiry == "wipe"
    assert spec.delivery == "key"


@pytest.mark.parametrize("volume", [{}, {"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/"}}])
def test_a_volume_is_recognised_in_exactly_one_way(volume):
    with pytest.raises(ValidationError, match="exactly one"):
        VolumeMatch.model_validate(volume)


@pytest.mark.parametrize(
    "change",
    [
        {"volumes": []},
        {"volumes": [{"hostpath": {"path": "/a"}}]},
        {"sensitivity": "secret"},
        {"access": {"approvals": -1}},
        {"access": {"maxDuration": "soon"}},
        {"unheardOf": 1},
    ],
)
def test_mistakes_are_errors_where_they_are_written(change):
    with pytest.raises(ValidationError):
        ModelWeights.model_validate({**WHOLE, "spec": {**WHOLE["spec"], **change}})


def with_keys(*ids):
    keys = [{"id": key_id, "kms": "vault://transit/atlas", "wrapped": "QUFB"} for key_id in ids]
    return {**WHOLE, "spec": {**WHOLE["spec"], "keys": keys}}


@pytest.mark.parametrize("key_id", ["2026-11", "k", "a.b_c-d", "x" * 253])
def test_key_ids_that_are_file_names(key_id):
    assert ModelWeights.model_validate(with_keys(key_id)).spec.keys[0].id == key_id


@pytest.mark.parametrize("key_id", ["", ".", "..", "a/b", "-a", "a-", "a b", "a\n", "é", "x" * 254])
def test_key_ids_that_are_not_file_names(key_id):
    with pytest.raises(ValidationError):
        ModelWeights.model_validate(with_keys(key_id))


def test_key_ids_are_unique():
    with pytest.raises(ValidationError, match="each id must be unique"):
        ModelWeights.model_validate(with_keys("a", "b", "a"))


@pytest.mark.parametrize(
    "pins",
    [
        {"minGeneration": -1},
        {"minGeneration": 2**53},
        {"manifest": {"digest": "sha256:zz"}},
        {"manifest": {"signers": ["short"]}},
        {"manifest": {"signers": ["A" * 42 + "B="]}},
        {"manifest": {"signer": "A" * 43 + "="}},
    ],
)
def test_pins_that_are_malformed(pins):
    with pytest.raises(ValidationError):
        ModelWeights.model_validate({**WHOLE, "spec": {**WHOLE["spec"], **pins}})
