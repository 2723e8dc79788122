"""A TCP forwarder: one address before several processes, and a wire that can be cut or frozen.

It replaces the network of a Service between the API server and the replicas. A new connection goes to the backends in
turn, and to the next one if a backend does not listen. A real Service drops a dead replica only when its endpoint is
withdrawn, about a second later. Until then real connections to it are refused.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from harness.process import free_port

T = TypeVar("T")
_SECONDS = 10.0
_HOST = "127.0.0.1"


class Forwarder:
    """Listens on ``host`` at ``port``; a context manager. ``backends`` are ports of 127.0.0.1."""

    def __init__(self, backends: Sequence[int], host: str = _HOST) -> None:
        self.port = free_port()
        self._host = host
        self._backends = list(backends)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._accepting: asyncio.Task[None] | None = None

    def __enter__(self) -> "Forwarder":
        self._thread.start()
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def withdraw(self, backend: int) -> None:
        """Send no new connection to a backend; those it has stay."""
        self._do(self._withdraw(backend))

    def add(self, backend: int) -> None:
        """Send connections to one more backend."""
        self._do(self._add(backend))

    def cut(self) -> None:
        """Break all connections, and refuse new ones until `restore`."""
        self._do(self._cut())

    def restore(self) -> None:
        """Listen again."""
        self._do(self._listen())

    def freeze(self) -> None:
        """Let no byte through, while connections stand and new ones are taken, until `thaw`."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Let everything through that has waited."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _withdraw(self, backend: int) -> None:
        self._backends.remove(backend)

    async def _add(self, backend: int) -> None:
        self._backends.append(backend)

    async def _listen(self) -> None:
        listening = socket.create_server((self._host, self.port), backlog=128)
        listening.setblocking(False)
        self._accepting = self._loop.create_task(self._accept(listening))

    async def _cut(self) -> None:
        if self._accepting is not None:
            await _ended(self._accepting)
            self._accepting = None
        await _ended(*self._open)

    async def _accept(self, listening: socket.socket) -> None:
        with listening:
            while True:
                connection, _ = await self._loop.sock_accept(listening)
                task = self._loop.create_task(self._serve(connection))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _serve(self, here: socket.socket) -> None:
        with here:
            await self._flowing.wait()
            for backend in self._in_turn():
                with socket.socket() as there:
                    there.setblocking(False)
                    try:
                        await self._loop.sock_connect(there, (_HOST, backend))
                    except OSError:
                        continue
                    await self._join(here, there)
                    return

    def _in_turn(self) -> list[int]:
        self._turn += 1
        at = self._turn % max(1, len(self._backends))
        return [*self._backends[at:], *self._backends[:at]]

    async def _join(self, here: socket.socket, there: socket.socket) -> None:
        """Carry bytes both ways until either side ends."""
        ways = [self._loop.create_task(self._carry(*pair)) for pair in ((here, there), (there, here))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(*ways)

    async def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := await self._loop.sock_recv(source, 65536):
                await self._flowing.wait()
                await self._loop.sock_sendall(sink, content)


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
