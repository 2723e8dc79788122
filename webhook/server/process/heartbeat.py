"""What a child process does for its parent while it works.

It reports that its event loop runs, requests a successor when it has grown too large, and saves its counts.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.server.process.supervisor import BEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.server.process.supervisor import SupervisorPipe

# In beats; a successor that does not become ready is requested again after as many.
_CHECK_EVERY = 20
SAVE_SECONDS = 1.0
# Without a limit of its own, a worker is replaced at twice its size when it became ready, and so much more.
_GROWTH_MIB = 128
# Free memory is returned to the system when a process has grown by so much.
_SPARE_MIB = 48

log = logging.getLogger(__name__)


async def beat(
    pipe: SupervisorPipe, limit_mib: Callable[[], float], ready_mib: Callable[[], float] = lambda: 0.0
) -> None:
    """Report until cancelled, and return free memory that large bodies used.

    Request a successor while the process holds more than ``limit_mib`` (0: any amount). ``ready_mib`` is what it held
    when it became ready, and 0 before.
    """
    # ``floor`` is what memory in use amounts to: returning memory takes time, so it is not tried again for nothing.
    count, floor = 0, 0.0
    while True:
        pipe.beat()
        if count % _CHECK_EVERY == 0:
            limit, ready, size = limit_mib(), ready_mib(), memory_mib()
            floor = max(ready, min(floor, size))
            if (ready and size > floor + _SPARE_MIB) or (limit and size > limit):
                release_memory()
                floor = max(ready, memory_mib())
            if limit and memory_mib() > limit:
                fields = {"mib": round(memory_mib()), "limit": round(limit)}
                log.warning("the worker is too large", extra={"fields": fields})
                pipe.request_replacement()
        count += 1
        await asyncio.sleep(BEAT_SECONDS)


async def save_counters(save: Callable[[], None]) -> None:
    """Save again and again until cancelled: a worker that is killed loses the counts of one second at most."""
    while True:
        await asyncio.sleep(SAVE_SECONDS)
        save()


def default_limit(ready_mib: float) -> float:
    """Return the limit of a worker that held ``ready_mib`` when it became ready."""
    return 2 * ready_mib + _GROWTH_MIB


def memory_mib() -> float:
    """Return the resident memory of this process, or 0 if the system does not report it (Linux: /proc/self/statm)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def release_memory() -> None:
    """Return free memory of the C library to the system (glibc keeps what large bodies used)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
