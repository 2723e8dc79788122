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
