"""A small client of the Kubernetes API for tests: JSON in, status and JSON out, one kept connection.

It is there because `kubectl` takes a tenth of a second and hides the status; it never retries, so that a test
sees what the API server said.
"""

import base64
import http.client
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: HTTP status, warnings, and the object or Status (a str if not JSON)."""

    status: int
    body: Any
    warnings: tuple[str, ...] = ()

    def ok(self) -> Any:
        """The object. Raises AssertionError with the answer unless the status is 2xx."""
        assert 200 <= self.status < 300, f"the API server said {self.status}: {self.message}"
        return self.body

    @property
    def message(self) -> str:
        """The text of a Status; the whole body where it is something else."""
        return str(self.body.get("message", self.body)) if isinstance(self.body, dict) else str(self.body)


class Client:
    """Speaks to one API server as one user."""

    def __init__(self, server: str, context: ssl.SSLContext, headers: list[tuple[str, str]]) -> None:
        address = urlsplit(server)
        self._connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=context, timeout=60
        )
        self._headers = headers

    @classmethod
    def from_kubeconfig(cls, file: Path) -> "Client":
        """A client as the current context of a kubeconfig says: certificate or token, impersonation too."""
        config = yaml.safe_load(file.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        tls = ssl.create_default_context(cadata=_data(cluster, "certificate-authority", file))
        headers = []
        if "token" in user:
            headers.append(("Authorization", f"Bearer {user['token']}"))
        elif "client-key" in user or "client-key-data" in user:
            _load_certificate(tls, user, file)
        else:
            raise AssertionError(f"{file}: the tests know client certificates and tokens, not {sorted(user)}")
        headers += [("Impersonate-User", user["as"])] if "as" in user else []
        headers += [("Impersonate-Group", group) for group in user.get("as-groups", ())]
        return cls(cluster["server"], tls, headers)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> Answer:
        """One request. `body` is a JSON value; query parameters are keywords, as `dryRun="All"`."""
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        # An apply is read as YAML, which has no escapes for surrogates.
        text = json.dumps(body, ensure_ascii="yaml" not in content_type)
        data = None if body is None else text.encode()
        reused = self._connection.sock is not None
        try:
            response, raw = self._exchange(method, target, data, content_type)
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            # An API server that was restarted, or tired of waiting, has closed the connection we kept.
            if not reused:
                raise OSError(f"{method} {target}: {problem!r}") from None
            return self.request(method, path, body, content_type=content_type, **query)
        warnings = tuple(response.headers.get_all("Warning") or ())
        is_json = (response.headers.get_content_type() or "").endswith("json")
        return Answer(response.status, json.loads(raw) if is_json and raw else raw.decode(), warnings)

    def _exchange(
        self, method: str, target: str, data: bytes | None, content_type: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.putrequest(method, target)
        for name, value in [*self._headers, ("Accept", "application/json")]:
            self._connection.putheader(name, value)
        if data is not None:
            self._connection.putheader("Content-Type", content_type)
            self._connection.putheader("Content-Length", str(len(data)))
        self._connection.endheaders(data)
        response = self._connection.getresponse()
        return response, response.read()

    def get(self, path: str, **query: str) -> Answer:
        """GET an object or a list."""
        return self.request("GET", path, **query)

    def post(self, path: str, body: Any, **query: str) -> Answer:
        """POST: create an object in the collection `path`, or call a subresource."""
        return self.request("POST", path, body, **query)

    def put(self, path: str, body: Any, **query: str) -> Answer:
        """PUT: replace an object."""
        return self.request("PUT", path, body, **query)

    def patch(self, path: str, body: Any, kind: str = "merge", **query: str) -> Answer:
        """PATCH with a patch of `kind` json, merge, strategic or apply."""
        return self.request("PATCH", path, body, content_type=PATCH_TYPES[kind], **query)

    def delete(self, path: str, **query: str) -> Answer:
        """DELETE an object or, by a list's path, all that match."""
        return self.request("DELETE", path, **query)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _data(holder: dict[str, Any], key: str, file: Path) -> str:
    """The PEM text that a kubeconfig holds inline (`KEY-data`) or by path (`KEY`)."""
    if f"{key}-data" in holder:
        return base64.b64decode(holder[f"{key}-data"]).decode()
    return (file.parent / str(holder[key])).read_text()


def _load_certificate(tls: ssl.SSLContext, user: dict[str, Any], file: Path) -> None:
    """Give the client certificate to `tls`, which takes files only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
        both.write(_data(user, "client-certificate", file) + _data(user, "client-key", file))
        both.flush()
        tls.load_cert_chain(both.name)
