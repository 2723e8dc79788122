"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import time
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import aiohttp

FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--window-size=1200,900"),
)


def chromium():
    """Return the path of an installed browser, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab. ``events`` are all that it reported."""

    def __init__(self, socket):
        self._socket, self._numbers, self._waiting = socket, count(1), {}
        self.events = []

    async def read(self):
        async for message in self._socket:
            document = message.json()
            future = self._waiting.pop(document.get("id"), None)
            if future is None:
                self.events.append(document)
            elif "error" in document:
                future.set_exception(AssertionError(document["error"]))
            else:
                future.set_result(document["result"])

    async def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(60):
            return await self._waiting[number]

    async def open(self, url):
        """Open a page and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        deadline = time.monotonic() + 60
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]

    async def screenshot(self, path):
        """Write a PNG of the whole page."""
        result = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        await asyncio.to_thread(Path(path).write_bytes, base64.b64decode(result["data"]))


@asynccontextmanager
async def page(directory):
    """A page of a browser with an empty profile in ``directory``."""
    profile = Path(directory, "profile")
    # Chromium has no sandbox for root.
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    command = [chromium(), *FLAGS, *root, f"--user-data-dir={profile}", "about:blank"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                (target,) = [each for each in await response.json() if each["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Page(socket)
                reading = asyncio.create_task(tab.read())
                try:
                    yield tab
                finally:
                    reading.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _port(file, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.returncode is None, "the browser ended"
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == 2:
            return int(lines[0])
        await asyncio.sleep(0.05)
    raise AssertionError("the browser does not start")
