"""``weightlock serve``: the admission webhook, on a cluster or embedded, from a configuration file or a few flags."""

from __future__ import annotations

import ipaddress
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.api.config import Config, Listen, Tls
from webhook.cli.configuration import parse_config, read_document
from webhook.cli.main import UsageError
from webhook.cli.signing import load_signing
from webhook.embedded.authorities import with_authorities
from webhook.embedded.manifests import ManifestError
from webhook.embedded.shipped import shipped_policies
from webhook.embedded.source import DirectorySource
from webhook.server import selfsigned
from webhook.server.listener import ListenError
from webhook.server.run import serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from webhook.core.access import Verifier
    from webhook.core.source import SnapshotSource
    from webhook.server.run import OpenSource

_EMBEDDED_LISTEN = "127.0.0.1:8443"


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "serve",
        help="the admission webhook",
        description="Serves admission reviews over TLS until it is stopped: on a cluster as a configuration file says, "
        "or embedded, with a directory of manifests in place of a cluster.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, in YAML")
    parser.add_argument("--embedded", type=Path, metavar="DIR", help="manifests in place of a cluster")
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="policies; embedded, instead of those that ship with Weightlock",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help=f"default: {_EMBEDDED_LISTEN} where embedded, else :8443"
    )
    parser.add_argument(
        "--write-ca",
        type=Path,
        metavar="FILE",
        help="where to put the authority of the self-signed certificate",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until stopped. Raises `UsageError`."""
    config = load_config(options)
    with tempfile.TemporaryDirectory(prefix="weightlock-") as scratch:
        if not config.tls.certificate:
            config = _self_signed(config, options.write_ca, Path(scratch))
        elif options.write_ca is not None:
            raise UsageError(
                "--write-ca is for a self-signed certificate, but the configuration brings its own"
            )
        try:
            if config.embedded:
                source = _directory(config)
                return serve(config, lambda _: _embedded(source))
            signer, verifier = load_signing(config.signing)
            return serve(config, _cluster(verifier), signer, bad_input=UsageError)
        except (ListenError, ManifestError) as error:
            raise UsageError(str(error)) from None


def load_config(options: argparse.Namespace) -> Config:
    """The configuration file with the flags over it. Raises `UsageError`."""
    if options.config is None and options.embedded is None:
        raise UsageError("give --config FILE, or --embedded DIR to serve without a cluster")
    given = read_document(options.config) if options.config is not None else {}
    if options.embedded is not None:
        given["embedded"] = str(options.embedded)
        given.setdefault("listen", _address(_EMBEDDED_LISTEN))
        # Nobody withdraws an endpoint here, so there is nothing to wait for.
        given.setdefault("drainSeconds", 0)
    if options.policies is not None:
        given["policies"] = str(options.policies)
    if options.listen is not None:
        given["listen"] = _address(options.listen)
    config = parse_config(given, Config, str(options.config or "arguments"))
    return _checked(config, options.config)


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
    """The configuration with a certificate made for it, whose files end with the process."""
    names = dict.fromkeys(
        ["localhost", "127.0.0.1", "::1", *_host_names(config.listen.host), *config.tls.server_names]
    )
    made = selfsigned.make(names)
    certificate, key = scratch / "tls.crt", scratch / "tls.key"
    certificate.write_bytes(made.certificate)
    key.touch(mode=0o600)
    key.write_bytes(made.key)
    if write_ca is not None:
        try:
            write_ca.write_bytes(made.authority)
        except OSError as error:
            raise UsageError(f"{write_ca}: {error.strerror or error}") from None
    tls = Tls.model_validate({**config.tls.model_dump(), "certificate": str(certificate), "key": str(key)})
    return config.model_copy(update={"tls": tls})


def _host_names(host: str) -> Sequence[str]:
    try:
        return [] if ipaddress.ip_address(host).is_unspecified else [host]
    except ValueError:
        return [host]


def _directory(config: Config) -> DirectorySource:
    try:
        policies = Path(config.policies) if config.policies else shipped_policies()
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    return DirectorySource([policies, Path(config.embedded)], with_authorities(config.settings))


@asynccontextmanager
async def _embedded(source: DirectorySource) -> AsyncIterator[SnapshotSource]:
    yield source


def _cluster(verifier: Verifier) -> OpenSource:
    """How to open a cluster. Imports the Kubernetes client, which is of no use embedded."""
    from webhook.cluster.api import ClusterError  # noqa: PLC0415
    from webhook.cluster.source import ClusterSource  # noqa: PLC0415

    @asynccontextmanager
    async def connect(config: Config) -> AsyncIterator[SnapshotSource]:
        async with AsyncExitStack() as stack:
            try:
                source = await stack.enter_async_context(ClusterSource.connect(config, verifier=verifier))
            except (ClusterError, ManifestError) as error:
                raise UsageError(str(error)) from None
            yield source

    return connect
