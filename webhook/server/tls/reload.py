"""Keeps a listener on the certificate that its files hold, whoever renews them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.server.http.listener import Listener
    from webhook.server.tls.certificates import CertificateKeeper

POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


def look(keeper: CertificateKeeper, listener: Listener, internal_error: Callable[[], None]) -> None:
    """Look at the files once: serve what is new, and say once what is wrong with them."""
    was_faulty = keeper.said is not None
    fresh = keeper.refresh()
    fault = keeper.news()
    if fault is not None:
        log.error("the certificate cannot be used", extra={"fields": {"why": fault}})
        internal_error()
    if fresh and keeper.current is not None:
        listener.serve(keeper.current.context)
        log.info("serving a new certificate", extra={"fields": {"notAfter": keeper.current.not_after}})
    elif was_faulty and keeper.said is None:
        log.info("the certificate can be used again")


async def keep_looking(
    keeper: CertificateKeeper, listener: Listener, internal_error: Callable[[], None]
) -> None:
    """Look again and again, until cancelled."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            look(keeper, listener, internal_error)
        except Exception:  # one bad look must not be the last
            log.exception("internal error")
            internal_error()
