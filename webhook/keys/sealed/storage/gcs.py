"""``gs://`` by the XML API of Google Cloud Storage, with range requests.

The access token comes from ``GOOGLE_OAUTH_ACCESS_TOKEN``, or from the metadata server of the machine: on GKE, that is
the identity of the pod's service account. Without both, requests are anonymous. A token goes to the storage API only.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.parse

from webhook.keys.errors import BadInputError
from webhook.keys.sealed.storage.remote import RangeClient, RemoteStore

_API = "https://storage.googleapis.com"
_METADATA = "metadata.google.internal"
_TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
_SECONDS = 3.0
_MAX_ANSWER = 64 * 1024
_EARLY = 60.0  # a token is replaced this many seconds before it expires
_ANONYMOUS_SECONDS = 300.0


def open_gcs(url: str, bucket: str, prefix: str) -> RemoteStore:
    """Open a prefix of a bucket.

    Raises:
        BadInputError: the URL names no bucket.
    """
    if not bucket:
        raise BadInputError(f"{url[:200]} names no bucket: use gs://BUCKET/PREFIX")
    # The variable of Google's own clients: an emulator needs no credentials, and gets none.
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if emulator and "://" not in emulator:
        emulator = f"http://{emulator}"
    tokens = Tokens()
    sign = None if emulator else lambda _method, _path: tokens.headers()
    base = urllib.parse.quote(f"/{bucket}/{prefix}" if prefix else f"/{bucket}", safe="/")
    return RemoteStore(url, RangeClient(emulator or _API, sign), base)


class Tokens:
    """Access tokens, kept until shortly before they expire. Safe for several threads."""

    def __init__(self) -> None:
        self._token, self._expires = os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN", ""), 0.0
        self._fixed = bool(self._token)
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """The header that authenticates a request; empty without a token."""
        with self._lock:
            if not self._fixed and time.monotonic() >= self._expires:
                self._token, seconds = _from_metadata()
                self._expires = time.monotonic() + seconds
            return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _from_metadata() -> tuple[str, float]:
    """A token, and for how many seconds it is kept; empty where there is no metadata server."""
    host = os.environ.get("GCE_METADATA_HOST") or _METADATA
    connection = http.client.HTTPConnection(host, timeout=_SECONDS)
    try:
        connection.request("GET", _TOKEN_PATH, headers={"Metadata-Flavor": "Google"})
        response = connection.getresponse()
        answer = json.loads(response.read(_MAX_ANSWER))
        if response.status == 200:
            return str(answer["access_token"]), max(float(answer["expires_in"]) - _EARLY, 1.0)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        pass
    finally:
        connection.close()
    return "", _ANONYMOUS_SECONDS
