"""Delivered keys over HTTP on the pod's loopback address, as the Confidential Data Hub of Confidential Containers.

``GET /cdh/resource/MODEL/jwk/KEY-ID`` returns the key of exported files (`webhook.keys.jwe`), and ``…/key/KEY-ID`` the
data key itself. Every container of the pod can read them, so the endpoint is off by default. It must never listen on
another address, and it serves a key only while the lease is active and the key is delivered.
"""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from webhook.keys import jwe
from webhook.keys.errors import BadInputError, KeysError
from webhook.keys.sealed.reading.opening import read_key_file

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from webhook.keys.agent.delivery import Target

ADDRESS = "127.0.0.1:8006"
_NAME = r"([A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252}))"
_RESOURCE = re.compile(rf"/cdh/resource/{_NAME}/(key|jwk)/{_NAME}")
_MAX_CONNECTIONS = 16
_SECONDS = 5.0
_POLL_SECONDS = 0.1


class ResourceServer:
    """Serves the keys of ``targets`` in threads of its own. ``say`` writes a line to the sidecar's log.

    Raises:
        BadInputError: the address is not a loopback address, or is in use.
    """

    def __init__(self, address: str, targets: Sequence[Target], say: Callable[[str], None]) -> None:
        host, port = _parse(address)
        served = {target.model: target for target in targets if target.sealed is None}
        try:
            self._server = _Server((host, port), served, say)
        except OSError as error:
            raise BadInputError(f"cannot listen on {address}: {error.strerror}") from None
        self._thread = threading.Thread(
            target=lambda: self._server.serve_forever(_POLL_SECONDS), name="resources", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], targets: dict[str, Target], say: Callable[[str], None]
    ) -> None:
        self.targets, self.say = targets, say
        self.logged: set[str] = set()
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        if ":" in address[0]:
            import socket  # noqa: PLC0415 - only IPv6 needs it

            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection by a thread, or close it if there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Ignore it: a client that closes its connection is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "weightlock", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        """Respond with a key."""
        if not _is_local(self.headers.get("Host", "")):
            self._respond(403, b"the Host header does not name a loopback address\n")
            return
        match = _RESOURCE.fullmatch(self.path)
        target = self.server.targets.get(match[1]) if match else None
        if match is None or target is None:
            self._respond(404, b"no such resource\n")
            return
        if target.lease_note(time.monotonic()) is None or not target.marked():
            self._respond(503, b"the key is not delivered\n")
            return
        try:
            with read_key_file(target.directory / match[3]) as key:
                if match[2] == "jwk":
                    with jwe.derive(key, match[1], match[3]) as derived:
                        body = jwe.as_jwk(derived, jwe.resource_id(match[1], match[3]))
                else:
                    with key.view() as view:
                        body = bytes(view)
        except KeysError:
            self._respond(404, b"no such resource\n")
            return
        self._respond(200, body, "application/jwk+json" if match[2] == "jwk" else "application/octet-stream")
        if self.path not in self.server.logged:
            self.server.logged.add(self.path)
            self.server.say(f"model {match[1]}: a container of the pod read {match[2]} {match[3]}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: a request is not worth a line."""

    def _respond(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        local, number = ipaddress.ip_address(host).is_loopback, int(port)
    except ValueError:
        local, number = False, 0
    if not local or not 0 <= number <= 65535:
        raise BadInputError(f"{address!r} is not a loopback address with a port, such as {ADDRESS}")
    return host, number


def _is_local(host: str) -> bool:
    """Whether a Host header names this pod. A page in a browser that was led here by DNS names another host."""
    name = host.rpartition(":")[0] if re.fullmatch(r".+:\d+", host) else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
