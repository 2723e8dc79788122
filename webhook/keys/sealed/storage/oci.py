"""``oci://REGISTRY/REPOSITORY:TAG``: a sealed directory as an OCI artifact, one layer for each file.

Each layer has the annotation ``org.opencontainers.image.title`` with the file's path, as `oras push` writes it. Layers
are read in ranges (OCI Distribution Specification 1.1) and never unpacked. Credentials are those of ``docker login``.
They go to the registry and its token service only, never to the storage that a registry redirects to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import ssl
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from webhook.keys.errors import BadInputError, SealedDataError, StorageError
from webhook.keys.sealed.storage.remote import (
    RangeClient,
    RemoteBlob,
    StatusError,
    connect,
    request,
    split_url,
)

_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.artifact.manifest.v1+json"
_TITLE = "org.opencontainers.image.title"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._/-]{0,254})(?::(?P<tag>\w[\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MAX_MANIFEST = 16 << 20
_MAX_ANSWER = 64 * 1024
_MAX_CONFIG = 1 << 20
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def split(url: str) -> tuple[str, str]:
    """An artifact and the path of a file in it: ``oci://REGISTRY/REPOSITORY:TAG`` and what follows the tag."""
    match = re.fullmatch(r"(oci://[^/]+/[^:@]+(?::[^/]+|@sha256:[^/]+)?)(?:/(.*))?", url)
    return (match[1].rstrip("/"), match[2] or "") if match else (url, "")


class OciStore:
    """The files of one artifact. The manifest is read once, so a tag that moves later changes nothing."""

    def __init__(self, url: str) -> None:
        parts = split_url(url)
        match = _REFERENCE.fullmatch(parts.path.strip("/"))
        if match is None or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise BadInputError(
                f"{url[:200]} is not an artifact: use oci://REGISTRY/REPOSITORY:TAG or …@sha256:DIGEST"
            )
        self._url, self._name = url, match["name"]
        # As docker does: a registry on the loopback address may lack TLS.
        scheme = "http" if parts.hostname in _LOCAL else "https"
        self._registry = f"{scheme}://{parts.netloc}"
        self._login = _login(parts.netloc)
        self._token = ""
        self._lock = threading.Lock()
        self._client = RangeClient(self._registry, lambda _method, _path: self._headers())
        self._clients: dict[str, RangeClient] = {}
        self._layers: dict[str, str] | None = None
        self._reference = match["digest"] or match["tag"] or "latest"

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self._url}/{name}" if name else self._url

    def open(self, name: str) -> RemoteBlob:
        """See `Store.open`."""
        digest = self._files().get(name)
        if digest is None:
            raise SealedDataError(f"{self.where(name)} is missing")
        return RemoteBlob(_Blob(self, digest), digest, self.where(name))

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        if name not in self._files():
            return None
        blob = self.open(name)
        content = bytearray(min(blob.size, limit + 1))
        with memoryview(content) as view:
            return bytes(content[: blob.read_at(view, 0)])

    def close(self) -> None:
        """See `Store.close`."""
        for client in (self._client, *self._clients.values()):
            client.close()

    def blob(self, digest: str, start: int, buffer: memoryview) -> tuple[int, int]:
        """Read a range of a layer, where the registry says it is. See `RangeClient.get`."""
        path, client = f"/v2/{self._name}/blobs/{digest}", self._client
        for _ in range(_MAX_REDIRECTS):
            try:
                return self._get(client, path, start, buffer)
            except StatusError as error:
                if error.status not in _REDIRECTS or not error.location:
                    raise
                origin, path = _resolve(client.origin, error.location)
            client = self._client_of(origin)
        raise StorageError(f"{self._url}: too many redirects")

    def _get(self, client: RangeClient, path: str, start: int, buffer: memoryview) -> tuple[int, int]:
        try:
            return client.get(path, start, buffer)
        except StatusError as error:
            if error.status != 401 or client is not self._client:
                raise
            self._authenticate(error.challenge)
        return client.get(path, start, buffer)

    def _client_of(self, origin: str) -> RangeClient:
        with self._lock:
            if origin == self._registry:
                return self._client
            return self._clients.setdefault(origin, RangeClient(origin))

    def _files(self) -> dict[str, str]:
        if self._layers is None:
            self._layers = self._manifest()
        return self._layers

    def _manifest(self) -> dict[str, str]:
        path = f"/v2/{self._name}/manifests/{self._reference}"
        status, raw, challenge = self._fetch(path)
        if status == 401:
            self._authenticate(challenge)
            status, raw, _ = self._fetch(path)
        if status == 404:
            raise BadInputError(f"{self._url}: the registry has no such artifact")
        if status != 200:
            raise StorageError(f"{self._url}: status {status} for the manifest")
        if self._reference.startswith("sha256:"):
            actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            if not hmac.compare_digest(actual, self._reference):
                raise SealedDataError(f"{self._url}: the registry returned another manifest")
        return _layers(raw, self._url)

    def _fetch(self, path: str) -> tuple[int, bytes, str]:
        return _request(self._registry, path, {"Accept": _MANIFESTS, **self._headers()}, _MAX_MANIFEST)

    def _headers(self) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def _authenticate(self, challenge: str) -> None:
        """Get a token as the registry's challenge says (CNCF Distribution: token authentication)."""
        scheme, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise StorageError(f"{self._url}: the registry needs an authentication that is not supported")
        realm = split_url(fields["realm"])
        if realm.scheme != "https" and not (realm.scheme == "http" and realm.hostname in _LOCAL):
            raise StorageError(f"{self._url}: the registry names a token service without TLS")
        query = {"scope": fields.get("scope") or f"repository:{self._name}:pull"}
        if "service" in fields:
            query["service"] = fields["service"]
        path = f"{realm.path or '/'}?{urllib.parse.urlencode(query)}"
        headers = {"Authorization": f"Basic {self._login}"} if self._login else {}
        status, raw, _ = _request(f"{realm.scheme}://{realm.netloc}", path, headers, _MAX_ANSWER)
        try:
            answer = json.loads(raw)
            self._token = str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise StorageError(
                f"{self._url}: the token service returned status {status} and no token"
            ) from None


class _Blob:
    """The part of `RangeClient` that a `RemoteBlob` uses."""

    def __init__(self, store: OciStore, digest: str) -> None:
        self._store, self._digest = store, digest

    def get(self, _path: str, start: int, buffer: memoryview) -> tuple[int, int]:
        """Read a range of the layer."""
        return self._store.blob(self._digest, start, buffer)


def _request(origin: str, path: str, headers: dict[str, str], limit: int) -> tuple[int, bytes, str]:
    """One GET request: status, body and challenge."""
    context = ssl.create_default_context() if origin.startswith("https:") else None
    connection = connect(origin, context)
    try:
        response = request(connection, path, headers, limit)
        body = response.read(limit + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StorageError(f"cannot reach {origin}: {error}") from None
    finally:
        connection.close()
    if len(body) > limit:
        raise StorageError(f"{origin} returned more than {limit} bytes")
    return response.status, body, response.headers.get("WWW-Authenticate", "")


def _layers(raw: bytes, url: str) -> dict[str, str]:
    """The digest of each file by its path."""
    try:
        manifest = json.loads(raw)
        pairs = [(str(layer["annotations"][_TITLE]), str(layer["digest"])) for layer in manifest["layers"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInputError(
            f"{url} is not an artifact with one layer for each file: push the sealed directory with `oras push`"
        ) from None
    if any(not _DIGEST.fullmatch(digest) for _, digest in pairs):
        raise SealedDataError(f"{url}: the manifest has a layer without a SHA-256 digest")
    return dict(pairs)


def _resolve(origin: str, location: str) -> tuple[str, str]:
    """The origin and the path of a redirect; from TLS only to TLS."""
    try:
        parts = split_url(urllib.parse.urljoin(f"{origin}/", location))
    except (ValueError, BadInputError):
        raise StorageError(f"{origin} redirects to something that is not a URL") from None
    if parts.scheme not in {"https", "http"} or (origin.startswith("https:") and parts.scheme != "https"):
        raise StorageError(f"{origin} redirects to a place without TLS")
    path = parts.path or "/"
    return f"{parts.scheme}://{parts.netloc}", f"{path}?{parts.query}" if parts.query else path


def _login(registry: str) -> str:
    """The credentials of ``docker login``, base64 of ``user:password``; empty without any."""
    user, password = os.environ.get("OCI_USERNAME", ""), os.environ.get("OCI_PASSWORD", "")
    if user and password:
        return base64.b64encode(f"{user}:{password}".encode()).decode()
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111 - may have no home
    try:
        with Path(directory, "config.json").open("rb") as stream:
            auths: Any = json.loads(stream.read(_MAX_CONFIG)).get("auths", {})
        entry = auths.get(registry) or auths.get(f"https://{registry}") or {}
        return str(entry.get("auth", ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
