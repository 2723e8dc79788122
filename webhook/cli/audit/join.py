"""``weightlock audit join``: write the API server's audit events into a log, from its file or its webhook backend."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.api.config import Config, Listen
from webhook.app.configuration import read_config
from webhook.app.errors import IncompleteError, UsageError
from webhook.app.options import parse_address
from webhook.audit.errors import NotLoggedError

if TYPE_CHECKING:
    import argparse

    from webhook.api.audit import AuditSettings


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "join",
        help="write the API server's audit events into a log of their own",
        description="Follow the API server's audit log file, or receive its webhook backend, and write the events into "
        "the log COMPONENT apiserver. Events that no admission webhook sees are then in a tamper-evident log.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--kubernetes-audit", type=Path, metavar="FILE", help="audit log file (JSON lines)")
    source.add_argument("--listen", metavar="HOST:PORT", help="receive the webhook backend at this address")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="certificate of this server (PEM)")
    parser.add_argument("--private-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="CA of the API server's client certificate (PEM)"
    )
    parser.add_argument("--once", action="store_true", help="stop at the end of the file")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--config", type=Path, metavar="FILE", help="configuration file with `audit`")
    target.add_argument(
        "--audit-log", type=Path, metavar="DIR", help="write below this directory (audit.directory)"
    )
    parser.set_defaults(audit=run)


def run(options: argparse.Namespace) -> int:
    """Join until stopped. Raises `UsageError` and `IncompleteError`."""
    settings = _settings(options)
    try:
        return asyncio.run(_join(options, settings))
    except NotLoggedError as error:
        raise IncompleteError(str(error)) from None


def _settings(options: argparse.Namespace) -> AuditSettings:
    if options.config is not None:
        return read_config(options.config, Config).audit
    return Config().audit.model_copy(update={"directory": str(options.audit_log)})


async def _join(options: argparse.Namespace, settings: AuditSettings) -> int:
    from webhook.app import audit_join  # noqa: PLC0415 - it imports a web server

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.listen is not None:
        host, port = parse_address(options.listen)
        await audit_join.receive(settings, (host or Listen().host, port), _context(options), stop)
        return 0
    if options.once and not options.kubernetes_audit.is_file():
        raise UsageError(f"{options.kubernetes_audit}: no such file")
    rejected = await audit_join.follow(settings, options.kubernetes_audit, stop, once=options.once)
    if rejected:
        print(f"lines that are not audit events: {rejected}", file=sys.stderr)
    return 1 if rejected and options.once else 0


def _context(options: argparse.Namespace) -> ssl.SSLContext:
    """Return TLS that requires a client certificate. Raises `UsageError`."""
    missing = [
        name
        for name, value in (
            ("--certificate", options.certificate),
            ("--private-key", options.private_key),
            ("--client-ca", options.client_ca),
        )
        if value is None
    ]
    if missing:
        raise UsageError(f"--listen requires {', '.join(missing)}")
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(options.client_ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(options.certificate, options.private_key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use the certificates: {error}") from None
    return context
