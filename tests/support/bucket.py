"""A local S3 server with conditional writes, for tests: it can fail, delay and drop responses."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 100


class Store:
    """The objects: (content, ETag, time of the last change). ``age`` moves the server's clock."""

    def __init__(self):
        self.objects, self.lock, self.count = {}, threading.Lock(), 0
        self.age, self.requests = 0.0, []
        # Called with method and key: None, a status, "drop" (apply, then no response) or "late" (apply after that).
        self.fault = lambda method, key: None
        self.late = []

    def now(self):
        return time.time() + self.age

    def put(self, key, body, condition):
        with self.lock:
            current = self.objects.get(key)
            match, none = condition
            if none == "*" and current is not None:
                return 412, ""
            if match is not None and current is None:
                return 404, ""
            if match is not None and match != current[1]:
                return 412, ""
            self.count += 1
            etag = f'"{hashlib.md5(body).hexdigest()}"'
            self.objects[key] = (body, etag, self.now())
            return 200, etag

    def apply_late(self):
        """Apply the delayed writes. Return their statuses."""
        late, self.late = self.late, []
        return [self.put(*each)[0] for each in late]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _key(self):
        return unquote(urlsplit(self.path).path).removeprefix("/logs").lstrip("/")

    def _send(self, status, body=b"", headers=()):
        self.send_response_only(status)
        self.send_header("Date", formatdate(self.server.store.now(), usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fault(self, key):
        store = self.server.store
        store.requests.append((self.command, key))
        fault = store.fault(self.command, key)
        if isinstance(fault, int):
            self._send(fault)
        return fault

    def do_GET(self):
        store, key = self.server.store, self._key()
        if self._fault(key):
            return
        if not key:
            self._list()
            return
        current = store.objects.get(key)
        if current is None:
            self._send(404)
            return
        body, etag, changed = current
        self._send(200, body, [("ETag", etag), ("Last-Modified", formatdate(changed, usegmt=True))])

    def _list(self):
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        with self.server.store.lock:
            keys = sorted(
                each for each in self.server.store.objects if each.startswith(prefix) and each > after
            )
            items = "".join(
                f"<Contents><Key>{escape(key)}</Key><ETag>{escape(self.server.store.objects[key][1])}</ETag></Contents>"
                for key in keys[:PAGE]
            )
        more = (
            f"<NextContinuationToken>{escape(keys[PAGE - 1])}</NextContinuationToken>"
            if len(keys) > PAGE
            else ""
        )
        name = "http://s3.amazonaws.com/doc/2006-03-01/"
        self._send(200, f'<ListBucketResult xmlns="{name}">{items}{more}</ListBucketResult>'.encode())

    def do_PUT(self):
        store, key = self.server.store, self._key()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._fault(key)
        if isinstance(fault, int):
            return
        write = (key, body, (self.headers.get("If-Match"), self.headers.get("If-None-Match")))
        if fault == "late":
            store.late.append(write)
        else:
            status, etag = store.put(*write)
        if fault:
            self.close_connection = True
            return
        self._send(status, b"", [("ETag", etag)] if etag else [])

    def do_DELETE(self):
        if self._fault(self._key()):
            return
        self.server.store.objects.pop(self._key(), None)
        self._send(204)


@contextmanager
def bucket_server():
    """Run the server. Yield its store and its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.store = Store()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.store, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
