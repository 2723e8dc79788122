"""Assembles the key broker: its configuration, its view of the cluster, its limits and its audit log."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.broker import BrokerConfig
from webhook.app.audit import BrokerLog, audit_log
from webhook.app.configuration import read_config
from webhook.app.errors import UsageError
from webhook.app.expected import expected_webhooks
from webhook.app.signing import load_signing
from webhook.keys.broker.challenge import Challenges
from webhook.keys.broker.jwks import KeySets
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.broker.service import Broker
from webhook.keys.secret import Secret
from webhook.manifests.reader import ManifestError
from webhook.server.broker import serve, write_audit
from webhook.server.http.listener import ListenError
from webhook.server.tracing import TracingUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.core.access import Verifier
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_LEAST_KEY, _MOST_KEY = 32, 4096


def run(path: Path) -> int:
    """Serve the broker of a configuration file until stopped. Return the exit code. Raises `UsageError`."""
    config = load_config(path)
    verifier = load_signing(config.signing)[1]
    key = _challenge_key(config.broker.challenge_key)
    expected = expected_webhooks(config.broker.webhooks)
    try:
        return serve(config, lambda config: _open(config, verifier, key, expected))
    except (ListenError, ManifestError, TracingUnavailableError) as error:
        raise UsageError(str(error)) from None


def load_config(path: Path) -> BrokerConfig:
    """Return the configuration. Raises `UsageError`."""
    config = read_config(path, BrokerConfig)
    for name, value in (
        ("tls.certificate", config.tls.certificate),
        ("tls.key", config.tls.key),
        ("broker.challengeKey", config.broker.challenge_key),
        ("broker.webhooks", config.broker.webhooks),
    ):
        if not value:
            raise UsageError(f"{path}: {name} is needed by the broker")
    return config


@asynccontextmanager
async def _open(
    config: BrokerConfig, verifier: Verifier, key: Secret, expected: dict[ObjectKey, Document]
) -> AsyncIterator[tuple[Broker, SnapshotProvider]]:
    # The Kubernetes client takes most of a second to import; an invalid configuration is reported before that.
    from webhook.cluster.broker_reads import LiveCluster  # noqa: PLC0415
    from webhook.cluster.snapshot_provider import ClusterProvider  # noqa: PLC0415

    settings = config.broker
    limits = Limits(
        pods=Rate(settings.pod_requests_per_minute, settings.pod_requests_per_minute),
        models=Rate(settings.model_requests_per_minute, settings.model_requests_per_minute),
    )
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(ClusterProvider.connect(config, verifier=verifier))
        issuers = KeySets()
        stack.push_async_callback(issuers.close)
        view = LiveCluster(source.api, expected, settings.authorities, settings.record)
        writer = stack.enter_context(audit_log(config.audit, "broker"))
        release_log = BrokerLog(writer, config.audit) if writer is not None else None
        broker = Broker(
            source, view, issuers, Challenges(key), limits, settings, write_audit, release_log=release_log
        )
        stack.push_async_callback(broker.close)
        yield broker, source


def _challenge_key(name: str) -> Secret:
    try:
        with Path(name).open("rb") as stream:
            raw = bytearray(stream.read(_MOST_KEY))
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    if len(raw) < _LEAST_KEY:
        raise UsageError(
            f"{name}: a challenge key has {_LEAST_KEY} random bytes or more: head -c 32 /dev/urandom"
        )
    return Secret(raw)
