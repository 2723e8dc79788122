"""The HTTP interfaces of a Sigstore in front of a `World`: Fulcio, Rekor v2 and a timestamp authority."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import jwt
import orjson
from asn1crypto import tsp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from tests.support.sigstore_world import World

SERVICES = {"caUrls": 1, "rekorTlogUrls": 2, "tsaUrls": 1}
_STAMP = "/api/v1/timestamp"


class SigstoreServer:
    """Serves until `close`. It trusts every token, and its certificates name the token's subject and issuer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[str] = []
        self.answers = {
            "/api/v2/signingCert": self._certificate,
            "/api/v2/log/entries": self._entry,
            _STAMP: self._timestamp,
        }
        calls, answers = self.calls, self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.append(self.path)
                content = answers[self.path](body, self.headers.get("Authorization", ""))
                self.send_response(201)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def trust_config(self) -> str:
        """The client trust configuration."""
        signing = {
            name: [
                {
                    "url": self.url + (_STAMP if name == "tsaUrls" else ""),
                    "majorApiVersion": version,
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                    "operator": "test",
                }
            ]
            for name, version in SERVICES.items()
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": json.loads(self.world.trusted_root()),
                "signingConfig": {
                    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                    **signing,
                    "rekorTlogConfig": {"selector": "ANY"},
                    "tsaConfig": {"selector": "ANY"},
                },
            }
        )

    def _certificate(self, body: bytes, authorization: str) -> bytes:
        claims = jwt.decode(authorization.removeprefix("Bearer "), options={"verify_signature": False})
        request = x509.load_pem_x509_csr(base64.b64decode(json.loads(body)["certificateSigningRequest"]))
        assert request.is_signature_valid
        holder = SimpleNamespace(public_key=request.public_key)
        leaf = self.world.certificate(holder, claims["sub"], claims["iss"], datetime.now(UTC))
        chain = [item.public_bytes(Encoding.PEM).decode() for item in (leaf, self.world.sub, self.world.ca)]
        return json.dumps({"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}).encode()

    def _entry(self, body: bytes, _: str) -> bytes:
        queries = json.loads(body)["hashedRekordRequestV002"]
        data = {"algorithm": "SHA2_256", "digest": queries["digest"]}
        spec = {"hashedRekordV002": {"data": data, "signature": queries["signature"]}}
        saved = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec}
        content = orjson.dumps(saved, option=orjson.OPT_SORT_KEYS)
        return json.dumps(self.world.entry_of("hashedrekord", "0.0.2", content)).encode()

    def _timestamp(self, body: bytes, _: str) -> bytes:
        imprint = tsp.TimeStampReq.load(body)["message_imprint"]["hashed_message"].native
        return self.world.timestamp(b"", datetime.now(UTC).replace(microsecond=0), digest=imprint)
