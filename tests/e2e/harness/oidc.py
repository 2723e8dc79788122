"""An OpenID Connect issuer for tests: discovery and keys over TLS, and tokens with whatever claims a test wants.

It signs with RS256, as RFC 7515 and RFC 7518 say, and is known to the API server by a structured authentication
configuration that maps its claims to `userInfo.extra`.
"""

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness.pki import Authority
from harness.rest import Client

AUDIENCE = "weightlock-e2e"
KEYS = {"methods": "example.com/amr", "time": "example.com/auth-time", "risk": "example.com/risk"}


class Issuer:
    """One issuer. `start` it before the API server that shall trust it, `stop` it at the end."""

    def __init__(self, directory: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._authority = Authority(directory, "oidc-ca")
        serving = self._authority.server("oidc", ["127.0.0.1", "localhost"])
        documents = {"/.well-known/openid-configuration": self._discovery, "/keys": self._keys}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = documents.get(self.path)
                body = json.dumps(document() if document else {}).encode()
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(serving.certificate, serving.key)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    @property
    def certificate(self) -> Path:
        """The PEM file of the CA that issued its serving certificate."""
        return self._authority.certificate

    def start(self) -> "Issuer":
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, name="oidc", daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def configuration(self) -> dict[str, Any]:
        """The AuthenticationConfiguration that makes an API server trust this issuer."""
        extra = {
            KEYS["methods"]: "claims.amr",
            KEYS["time"]: "string(int(claims.auth_time))",
            KEYS["risk"]: "claims.risk",
        }
        issuer = {
            "url": self.url,
            "audiences": [AUDIENCE],
            "certificateAuthority": self._authority.certificate.read_text(),
        }
        mappings = {
            "username": {"expression": "claims.preferred_username"},
            "groups": {"expression": "claims.groups"},
            "uid": {"expression": "claims.sub"},
            "extra": [{"key": key, "valueExpression": expression} for key, expression in extra.items()],
        }
        return {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{"issuer": issuer, "claimMappings": mappings}],
        }

    def token(self, user: str, **claims: Any) -> str:
        """A token of a user: signed in just now with a second factor and no risk, unless claims override it."""
        now = int(time.time())
        payload = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": f"sub-of-{user}",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 3600,
            "preferred_username": user,
            "groups": [],
            "amr": ["pwd", "mfa"],
            "auth_time": now,
            "risk": "none",
            **claims,
        }
        signed = f"{_encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': 'one'})}.{_encoded(payload)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"

    def client(self, server: Mapping[str, Any], directory: Path, user: str, **claims: Any) -> Client:
        """A client of the API that signs in with a token; `server` is the cluster entry of a kubeconfig."""
        context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": dict(server)}],
            "users": [{"name": "it", "user": {"token": self.token(user, **claims)}}],
            "contexts": [context],
            "current-context": "it",
        }
        file = directory / f"token-{uuid.uuid4().hex}.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return Client.from_kubeconfig(file)

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _keys(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one"}
        parts = {"n": numbers.n, "e": numbers.e}
        encoded = {
            name: _base64(part.to_bytes((part.bit_length() + 7) // 8, "big")) for name, part in parts.items()
        }
        return {"keys": [{**key, **encoded}]}


def _encoded(document: Mapping[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
