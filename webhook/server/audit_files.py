"""``weightlock audit serve``: the files of logs over HTTP for witnesses and auditors, read-only.

It serves the checkpoint, tiles and entry bundles of c2sp.org/tlog-tiles, and nothing else of the directory.
"""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

from aiohttp import web

from webhook.audit.storage import Directory

if TYPE_CHECKING:
    from pathlib import Path

_SEGMENT = r"[A-Za-z0-9._-]{1,80}"
_TILE = r"tile/(?:entries|[0-9]|[1-5][0-9]|6[0-3])/(?:x[0-9]{3}/)*[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?"
_PATH = re.compile(rf"/((?:{_SEGMENT}/){{0,2}})(checkpoint|keys\.txt|{_TILE})")
_IMMUTABLE = "public, max-age=31536000, immutable"


def application(root: Path) -> web.Application:
    """Return the web application for the logs below ``root``."""

    async def handle(request: web.Request) -> web.Response:
        match = _PATH.fullmatch(request.path)
        if match is None or ".." in match[1]:
            raise web.HTTPNotFound
        data = await asyncio.to_thread(Directory(root / match[1]).read, match[2])
        if data is None:
            raise web.HTTPNotFound
        tile = match[2].startswith("tile/")
        headers = {
            "Content-Type": "application/octet-stream" if tile else "text/plain; charset=utf-8",
            "Cache-Control": _IMMUTABLE if tile else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(body=data, headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    return app


def serve(root: Path, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code."""
    return asyncio.run(_serve(root, host, port))


async def _serve(root: Path, host: str, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(root), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port)
        await site.start()
        for address in runner.addresses:
            print(f"serving the audit log on http://{address[0]}:{address[1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
    return 0
