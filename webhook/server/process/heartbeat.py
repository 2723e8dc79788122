"""What a child process does for its parent while it works: it says that its event loop turns and that it has grown too
large, and leaves its counts to whoever comes after it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.server.process.supervisor import BEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.server.process.supervisor import SupervisorPipe

# In beats; a replacement that does not become ready is asked for again after as many.
_WEIGH_EVERY = 60
SAVE_SECONDS = 1.0

log = logging.getLogger(__name__)


async def keep_beating(lifeline: SupervisorPipe, most_mib: int) -> None:
    """Beat until cancelled; ask to be replaced while the process holds more than ``most_mib`` (0: any amount)."""
    count = 0
    while True:
        lifeline.beat()
        if most_mib and count % _WEIGH_EVERY == 0 and memory_mib() > most_mib:
            log.warning("too large", extra={"fields": {"mib": round(memory_mib()), "most": most_mib}})
            lifeline.ask_to_be_replaced()
        count += 1
        await asyncio.sleep(BEAT_SECONDS)


async def keep_saving(save: Callable[[], None]) -> None:
    """Save what was counted, again and again until cancelled: a worker that is killed loses no more than a moment."""
    while True:
        await asyncio.sleep(SAVE_SECONDS)
        save()


def memory_mib() -> float:
    """The resident memory of this process, or 0 where the system does not say (Linux: /proc/self/statm)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
