"""Assembles the admission webhook: configuration, certificate, snapshot provider, and the processes that serve.

Everything large is loaded once, in the process that supervises, and shared with the processes that it starts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.api.config import Config, Listen, Tls
from webhook.app.audit import audit_log
from webhook.app.configuration import parse_config, read_text
from webhook.app.errors import UsageError
from webhook.app.options import EMBEDDED_LISTEN, parse_address
from webhook.app.signing import load_signing
from webhook.manifests.authorities import with_authorities
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider
from webhook.server import logs
from webhook.server.http.callers import TokenVerifier
from webhook.server.http.listener import ListenError
from webhook.server.process.shared_memory import SLOTS
from webhook.server.process.supervisor import Supervisor
from webhook.server.run import Sockets, run_frontend, run_worker, serve
from webhook.server.tls import self_signed
from webhook.server.tracing import TracingUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from webhook.app.options import ServeOptions
    from webhook.audit.writer import LogWriter
    from webhook.core.access import Signer
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.server.process.supervisor import SupervisorPipe
    from webhook.server.run import OpenProvider, Verifier, VerifyToken

_BAD_INPUT = 2
_EXPECTED_ERRORS = (UsageError, ListenError, ManifestError, TracingUnavailableError)
# A worker that reports nothing for this share of the review timeout is killed; its reviews go to the next one.
_HANG_SHARE = 0.4
_LEAST_HANG_SECONDS = 2.5


def run(options: ServeOptions, scratch: Path) -> int:
    """Serve until stopped; return the exit code. ``scratch`` is a directory that all processes share."""
    try:
        return _run(options, scratch)
    except _EXPECTED_ERRORS as error:
        print(f"weightlock serve: {error}", file=sys.stderr)
        return _BAD_INPUT


def _run(options: ServeOptions, scratch: Path) -> int:
    config = load_config(options)
    if not config.tls.certificate:
        config = _self_signed(config, options.write_ca, scratch)
    elif options.write_ca is not None:
        raise UsageError("--write-ca requires a self-signed certificate, but the configuration names its own")
    signer: Signer | None = None
    verifier: Verifier | None = None
    if config.embedded:
        open_provider = _offline(_directory(config))
    else:
        signer, open_provider = _cluster(config)
        verifier = _token_verifier(config) if config.callers.token_configurations else None

    def open_log() -> AbstractContextManager[LogWriter | None]:
        return audit_log(config.audit, "webhook")

    if sys.platform == "win32" or not config.supervise:
        serve(config, open_provider, signer, verifier, open_log)
        return 0
    logs.configure(config.log_level)
    sockets = Sockets.bind(config)

    def frontend(pipe: SupervisorPipe) -> int:
        return _guarded(lambda: run_frontend(config, sockets, pipe))

    def worker(pipe: SupervisorPipe) -> int:
        return _guarded(lambda: run_worker(config, open_provider, pipe, signer, verifier, open_log))

    hang_seconds = max(_LEAST_HANG_SECONDS, _HANG_SHARE * config.review_timeout_seconds)
    return Supervisor(frontend, worker, sockets.each(), hang_seconds).run()


def _guarded(work: Callable[[], int]) -> int:
    """Run the work of a child process; bad input is one line, and ends all processes."""
    try:
        return work()
    except _EXPECTED_ERRORS as error:
        print(f"weightlock serve: {error}", file=sys.stderr)
        return _BAD_INPUT


def load_config(options: ServeOptions) -> Config:
    """Return the configuration file with the options applied. Raises `UsageError`."""
    source = str(options.config or "arguments")
    document = read_text(options.text, source)
    if options.state_dir is not None:
        document["embedded"] = str(options.state_dir)
        document.setdefault("listen", _address(EMBEDDED_LISTEN))
        # There is no endpoint to withdraw, so there is nothing to wait for.
        document.setdefault("drainSeconds", 0)
    if options.audit_log is not None:
        document["audit"] = {**(document.get("audit") or {}), "directory": str(options.audit_log)}
    if options.policies is not None:
        document["policies"] = str(options.policies)
    if options.listen is not None:
        document["listen"] = _address(options.listen)
    return _checked(parse_config(document, Config, source), options.config)


def _checked(config: Config, source: Path | None) -> Config:
    """Return the configuration. Raises `UsageError` for faults that no schema can express."""
    if bool(config.tls.certificate) != bool(config.tls.key):
        raise UsageError(f"{source}: tls.certificate and tls.key must be set together")
    if not config.tls.certificate and not config.embedded:
        raise UsageError(f"{source}: tls.certificate and tls.key are required on a cluster")
    if config.callers.token_configurations and not config.callers.token_audiences:
        raise UsageError(f"{source}: callers.tokenConfigurations requires callers.tokenAudiences")
    for directory in (config.embedded, config.policies):
        if directory and not Path(directory).is_dir():
            raise UsageError(f"{directory}: no such directory")
    return config


def _address(text: str) -> dict[str, Any]:
    host, port = parse_address(text)
    return {"host": host or Listen().host, "port": port}


def _self_signed(config: Config, write_ca: Path | None, scratch: Path) -> Config:
    """Return the configuration with a certificate issued for it; its files are removed with the process."""
    certificate, key = scratch / "tls.crt", scratch / "tls.key"
    names = dict.fromkeys(
        ["localhost", "127.0.0.1", "::1", *_host_names(config.listen.host), *config.tls.server_names]
    )
    issued = self_signed.make(names)
    certificate.write_bytes(issued.certificate)
    if write_ca is not None:
        try:
            write_ca.write_bytes(issued.authority)
        except OSError as error:
            raise UsageError(f"cannot write {write_ca}: {error.strerror or error}") from None
    key.touch(mode=0o600)
    key.write_bytes(issued.key)
    tls = Tls.model_validate({**config.tls.model_dump(), "certificate": str(certificate), "key": str(key)})
    return config.model_copy(update={"tls": tls})


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


def _offline(provider: DirectoryProvider) -> OpenProvider:
    @asynccontextmanager
    async def connect(_: Config, slot: int) -> AsyncIterator[SnapshotProvider]:
        del slot
        yield provider

    return connect


def _cluster(config: Config) -> tuple[Signer | None, OpenProvider]:
    """Return the signer, and how to connect to a cluster; the policies of files are compiled here, once."""
    # The Kubernetes client is of no use without a cluster.
    from webhook.cluster.client.api import ClusterError, KubeApi  # noqa: PLC0415
    from webhook.cluster.handover import memory_files  # noqa: PLC0415
    from webhook.cluster.snapshot_provider import ClusterProvider, Handover, prepare  # noqa: PLC0415

    async def check_credentials() -> None:
        await (await KubeApi.connect(config.cluster)).close()

    try:
        # Before any child starts: bad input is one line, without the log of a process that serves already.
        asyncio.run(check_credentials())
    except ClusterError as error:
        raise UsageError(str(error)) from None
    signer, keys = load_signing(config.signing)
    prepared = prepare(config, keys)
    files = memory_files(SLOTS) if config.supervise else []

    @asynccontextmanager
    async def connect(config: Config, slot: int) -> AsyncIterator[SnapshotProvider]:
        handover = Handover(files, slot)
        async with AsyncExitStack() as stack:
            try:
                connected = ClusterProvider.connect(
                    config, verifier=keys, prepared=prepared, handover=handover
                )
                provider = await stack.enter_async_context(connected)
            except (ClusterError, ManifestError) as error:
                raise UsageError(str(error)) from None
            yield provider

    return signer, connect


def _token_verifier(config: Config) -> Verifier:
    """Return how a worker verifies the API server's token: by a TokenReview of the cluster that it watches."""
    from webhook.cluster.client.api import ApiError, KubeApi  # noqa: PLC0415

    callers = config.callers
    audiences = {
        f"/{phase}": [f"{base.rstrip('/')}/{phase}" for base in callers.token_audiences]
        for phase in ("mutate", "validate")
    }

    def verifier(provider: SnapshotProvider) -> VerifyToken:
        api: KubeApi = provider.api  # type: ignore[attr-defined] # the provider of a cluster has one

        async def review(token: str, audience: str) -> Mapping[str, Any]:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            }
            try:
                answer = await api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body)
            except ApiError:
                return {}
            status = answer.get("status")
            return status if isinstance(status, dict) else {}

        return TokenVerifier(review, callers.token_configurations, audiences).verify

    return verifier
