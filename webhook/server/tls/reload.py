"""Keeps a listener on the certificate that its files contain, also after a renewal."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.server.http.listener import Listener
    from webhook.server.tls.certificates import CertificateManager

POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


def check(manager: CertificateManager, listener: Listener, internal_error: Callable[[], None]) -> None:
    """Check the files once: serve a new certificate, and log each fault once."""
    was_faulty = manager.last_logged is not None
    is_new = manager.refresh()
    fault = manager.changed_fault()
    if fault is not None:
        log.error("the certificate is unusable", extra={"fields": {"reason": fault}})
        internal_error()
    if is_new and manager.current is not None:
        listener.serve(manager.current.context)
        log.info("serving a new certificate", extra={"fields": {"notAfter": manager.current.not_after}})
    elif was_faulty and manager.last_logged is None:
        log.info("the certificate is usable again")


async def keep_checking(
    manager: CertificateManager, listener: Listener, internal_error: Callable[[], None]
) -> None:
    """Check again and again, until cancelled."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            check(manager, listener, internal_error)
        except Exception:  # one failed check must not be the last
            log.exception("internal error")
            internal_error()
