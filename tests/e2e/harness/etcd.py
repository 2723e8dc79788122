"""The cluster's etcd, and a way to write into it behind the API server's back.

Tests use the latter to show that what admission never saw is worth nothing. Data is not synced to disk: it is
thrown away with the cluster.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.pki import Authority, KeyPair
from harness.process import Component, free_port

START_SECONDS = 30.0


class Etcd:
    """One etcd member that takes only clients with a certificate of its own authority."""

    def __init__(self, directory: Path, component: Component, client: KeyPair) -> None:
        self._directory = directory / "etcd"
        self._component = component
        self._client = client
        self._authority: Authority | None = None
        self.port, self._peer_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"

    def start(self, program: Path, authority: Authority, files: KeyPair) -> None:
        """Start etcd and wait until it answers. Raises AssertionError with the end of its log."""
        self._authority = authority
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._component.start(
            [
                program,
                "--name=test",
                f"--data-dir={self._directory}",
                f"--listen-client-urls={self.url}",
                f"--advertise-client-urls={self.url}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=test={peer}",
                f"--cert-file={files.certificate}",
                f"--key-file={files.key}",
                f"--trusted-ca-file={authority.certificate}",
                "--client-cert-auth=true",
                # The JSON gateway is a client of the same member, by this certificate.
                f"--client-cert-file={self._client.certificate}",
                f"--client-key-file={self._client.key}",
                "--unsafe-no-fsync=true",
                "--log-level=warn",
            ]
        )
        self._component.wait_ready(lambda: self._request("GET", "/health")["health"] == "true", START_SECONDS)

    def get(self, key: str) -> dict[str, Any] | None:
        """The JSON value at a key such as `/registry/weightlock.dev/accessrequests/NAME`; None if not there.

        Custom resources are stored as JSON; built-in kinds are stored as protobuf and cannot be read so.
        """
        matches = self._request("POST", "/v3/kv/range", {"key": _encode(key)}).get("kvs", [])
        value: dict[str, Any] | None = json.loads(base64.b64decode(matches[0]["value"])) if matches else None
        return value

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        body = {"key": _encode(prefix), "range_end": _encode(end), "keys_only": True}
        matches = self._request("POST", "/v3/kv/range", body).get("kvs", [])
        return [base64.b64decode(entry["key"]).decode() for entry in matches]

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Write an object as JSON, unseen by the API server's admission."""
        body = {"key": _encode(key), "value": _encode(json.dumps(value))}
        self._request("POST", "/v3/kv/put", body)

    def delete(self, key: str) -> None:
        """Delete a key."""
        self._request("POST", "/v3/kv/deleterange", {"key": _encode(key)})

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert self._authority is not None, "etcd was never started"
        tls = ssl.create_default_context(cafile=str(self._authority.certificate))
        tls.load_cert_chain(self._client.certificate, self._client.key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            raw = response.read()
            assert response.status == 200, f"etcd said {response.status}: {raw!r}"
            answer: dict[str, Any] = json.loads(raw)
            return answer
        finally:
            connection.close()


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
