"""The broker before it serves: what its configuration must contain. Each missing part is one sentence."""

from __future__ import annotations

import pytest
import yaml

from webhook.app import broker
from webhook.app.errors import UsageError
from webhook.cli.main import main

WEBHOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "weightlock"},
    "webhooks": [],
}

MUTATING = {**WEBHOOK, "kind": "MutatingWebhookConfiguration"}


@pytest.fixture
def config(tmp_path):
    """A function that writes a configuration with some parts changed; None removes one."""
    (tmp_path / "challenge").write_bytes(b"k" * 32)
    (tmp_path / "webhooks.yaml").write_text(yaml.safe_dump_all([WEBHOOK, MUTATING]))

    def write(tls=None, **settings):
        whole = {
            "tls": {"certificate": "/tls/crt", "key": "/tls/key"} if tls is None else tls,
            "broker": {
                "challengeKey": f"{tmp_path}/challenge",
                "webhooks": f"{tmp_path}/webhooks.yaml",
                **settings,
            },
        }
        path = tmp_path / "broker.yaml"
        path.write_text(yaml.safe_dump(whole))
        return path

    return write


def test_a_whole_configuration(config):
    loaded = broker.load_config(config(leaseSeconds=120))
    assert (loaded.broker.lease_seconds, loaded.broker.production) == (120, True)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"tls": {}}, "tls.certificate is needed by the broker"),
        ({"tls": {"certificate": "/c"}}, "tls.key is needed by the broker"),
        ({"challengeKey": ""}, "broker.challengeKey is needed by the broker"),
        ({"webhooks": ""}, "broker.webhooks is needed by the broker"),
        ({"surprise": 1}, "surprise"),
        ({"leaseSeconds": 1}, "leaseSeconds"),
        ({"challengeKey": "/nonexistent"}, "/nonexistent: No such file"),
        ({"webhooks": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_missing_or_invalid_settings_are_errors(config, change, output):
    with pytest.raises(UsageError, match=output):
        broker.run(config(**change))


def test_a_challenge_key_that_is_too_short(config, tmp_path):
    (tmp_path / "challenge").write_bytes(b"k" * 31)
    with pytest.raises(UsageError, match="32 random bytes or more"):
        broker.run(config())


@pytest.mark.parametrize(
    ("documents", "output"),
    [
        (
            [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}],
            "no Mutating.* and no Validating",
        ),
        ([WEBHOOK], "no MutatingWebhookConfiguration"),
        ([MUTATING], "no ValidatingWebhookConfiguration"),
    ],
)
def test_both_kinds_of_webhook_configuration_are_expected(config, tmp_path, documents, output):
    (tmp_path / "webhooks.yaml").write_text(yaml.safe_dump_all(documents))
    with pytest.raises(UsageError, match=output):
        broker.run(config())


def test_the_command_reports_one_line(config, capsys):
    assert main(["broker", "--config", str(config(challengeKey=""))]) == 2
    assert capsys.readouterr().err.count("\n") == 1
