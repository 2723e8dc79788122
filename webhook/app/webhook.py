"""What serves admission reviews: configuration, certificate, source. Loaded only in the process that judges."""

from __future__ import annotations

import ipaddress
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.api.config import Config, Listen, Tls
from webhook.app.configuration import parse_config, read_text
from webhook.app.errors import UsageError
from webhook.app.options import EMBEDDED_LISTEN
from webhook.app.signing import load_signing
from webhook.manifests.authorities import with_authorities
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider
from webhook.server.http.listener import ListenError
from webhook.server.run import serve
from webhook.server.tls import self_signed
from webhook.server.tracing import TracingUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from webhook.app.options import Given
    from webhook.core.access import Verifier
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.server.process.supervisor import Lifeline
    from webhook.server.run import OpenSource


def work(given: Given, scratch: Path, lifeline: Lifeline | None) -> int:
    """Serve until stopped; the exit code. ``scratch`` holds what all workers share. Bad input is told in one line."""
    try:
        _serve(given, scratch, lifeline)
    except (UsageError, ListenError, ManifestError, TracingUnavailableError) as error:
        print(f"weightlock serve: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(given: Given, scratch: Path, lifeline: Lifeline | None) -> None:
    config = load_config(given)
    if not config.tls.certificate:
        config = _self_signed(config, given.write_ca, scratch)
    elif given.write_ca is not None:
        raise UsageError("--write-ca is for a self-signed certificate, but the configuration brings its own")
    if config.embedded:
        source = _directory(config)
        serve(config, lambda _: _embedded(source), lifeline=lifeline)
        return
    signer, verifier = load_signing(config.signing)
    serve(config, _cluster(verifier), signer, lifeline)


def load_config(given: Given) -> Config:
    """The configuration file with the flags over it. Raises `UsageError`."""
    source = str(given.config or "arguments")
    document = read_text(given.text, source)
    if given.embedded is not None:
        document["embedded"] = str(given.embedded)
        document.setdefault("listen", _address(EMBEDDED_LISTEN))
        # Nobody withdraws an endpoint here, so there is nothing to wait for.
        document.setdefault("drainSeconds", 0)
    if given.policies is not None:
        document["policies"] = str(given.policies)
    if given.listen is not None:
        document["listen"] = _address(given.listen)
    return _checked(parse_config(document, Config, source), given.config)


def _checked(config: Config, source: Path | None) -> Config:
    """Raises `UsageError` for what no schema can say."""
    if bool(config.tls.certificate) != bool(config.tls.key):
        raise UsageError(f"{source}: tls.certificate and tls.key belong together")
    if not config.tls.certificate and not config.embedded:
        raise UsageError(f"{source}: tls.certificate and tls.key are needed on a cluster")
    for directory in (config.embedded, config.policies):
        if directory and not Path(directory).is_dir():
            raise UsageError(f"{directory}: no such directory")
    return config


def _address(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text}: write an address as HOST:PORT")
    return {"host": host.strip("[]") or Listen().host, "port": int(port)}


def _self_signed(config: Config, write_ca: Path | None, scratch: Path) -> Config:
    """The configuration with a certificate made for it, the same for all workers; its files end with the parent."""
    certificate, key = scratch / "tls.crt", scratch / "tls.key"
    if not key.exists():
        _make_certificate(config, write_ca, certificate, key)
    tls = Tls.model_validate({**config.tls.model_dump(), "certificate": str(certificate), "key": str(key)})
    return config.model_copy(update={"tls": tls})


def _make_certificate(config: Config, write_ca: Path | None, certificate: Path, key: Path) -> None:
    names = dict.fromkeys(
        ["localhost", "127.0.0.1", "::1", *_host_names(config.listen.host), *config.tls.server_names]
    )
    made = self_signed.make(names)
    certificate.write_bytes(made.certificate)
    if write_ca is not None:
        try:
            write_ca.write_bytes(made.authority)
        except OSError as error:
            raise UsageError(f"{write_ca}: {error.strerror or error}") from None
    # Last, and whole at once: where there is a key, everything is there.
    unfinished = key.with_suffix(".new")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(made.key)
    unfinished.replace(key)


def _host_names(host: str) -> Sequence[str]:
    try:
        return [] if ipaddress.ip_address(host).is_unspecified else [host]
    except ValueError:
        return [host]


def _directory(config: Config) -> DirectoryProvider:
    try:
        policies = Path(config.policies) if config.policies else shipped_policies()
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    return DirectoryProvider([policies, Path(config.embedded)], with_authorities(config.settings))


@asynccontextmanager
async def _embedded(source: DirectoryProvider) -> AsyncIterator[SnapshotProvider]:
    yield source


def _cluster(verifier: Verifier) -> OpenSource:
    """How to open a cluster. Imports the Kubernetes client, which is of no use embedded."""
    from webhook.cluster.client.api import ClusterError  # noqa: PLC0415
    from webhook.cluster.snapshot_provider import ClusterProvider  # noqa: PLC0415

    @asynccontextmanager
    async def connect(config: Config) -> AsyncIterator[SnapshotProvider]:
        async with AsyncExitStack() as stack:
            try:
                source = await stack.enter_async_context(ClusterProvider.connect(config, verifier=verifier))
            except (ClusterError, ManifestError) as error:
                raise UsageError(str(error)) from None
            yield source

    return connect
