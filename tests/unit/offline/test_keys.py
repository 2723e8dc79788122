"""A state directory that holds the signing key's public half believes signed access objects only."""

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook.api.config import Settings
from webhook.manifests.reader import ManifestError
from webhook.offline.provider import DirectoryProvider

REQUEST = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "AccessRequest",
    "metadata": {"name": "r", "uid": "u"},
    "spec": {
        "model": "atlas",
        "subject": {"kind": "User", "name": "alice"},
        "namespaces": ["research"],
        "duration": "8h",
        "reason": "evals",
        "requester": {"username": "alice"},
    },
}
MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {
        "sensitivity": "internal",
        "volumes": [{"hostPath": {"path": "/w"}}],
        "access": {"approvals": 0},
    },
}


def key_map(data):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "weightlock-signing-keys"},
        "data": data,
    }


def public_key():
    return (
        Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def problems(tmp_path, *documents):
    (tmp_path / "state.yaml").write_text(yaml.safe_dump_all(documents))
    return [item.name for item in DirectoryProvider([tmp_path], Settings()).snapshot().access.problems]


def test_without_a_key_the_objects_count_as_admitted(tmp_path):
    assert problems(tmp_path, MODEL, REQUEST) == []


def test_with_a_key_an_unsigned_object_is_ignored(tmp_path):
    assert problems(tmp_path, MODEL, REQUEST, key_map({"old": public_key(), "new": public_key()})) == ["r"]


@pytest.mark.parametrize(
    "data", [None, {}, {"key": ""}, {"key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}]
)
def test_a_key_that_cannot_be_read_is_an_error_and_not_an_open_lock(tmp_path, data):
    with pytest.raises(ManifestError, match="weightlock-signing-keys"):
        problems(tmp_path, REQUEST, key_map(data))
