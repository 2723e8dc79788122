"""AWS Signature Version 4, which S3 and its compatible servers use. Pure: the caller passes the time."""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

EMPTY = hashlib.sha256(b"").hexdigest()


class Account(NamedTuple):
    """The endpoint of S3 and the credentials. ``keys`` are as in `s3_headers`. Without the first, nothing is signed."""

    region: str
    endpoint: str
    keys: tuple[str, str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Account:
        """Read the usual variables of AWS's tools."""
        get = environment.get
        region = get("AWS_REGION") or get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = (
            get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
        )
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        access, secret, token = (get(name, "") for name in names)
        return cls(region, endpoint, (access, secret, token))


def s3_headers(
    method: str,
    host: str,
    path: str,
    region: str,
    keys: tuple[str, str, str],
    now: datetime.datetime,
    *,
    query: Mapping[str, str] | None = None,
    payload: str = EMPTY,
) -> dict[str, str]:
    """Headers that authenticate a request to S3.

    ``path`` is percent-encoded, ``query`` is not. ``keys``: access key id, secret access key and session token, which
    may be empty. ``payload`` is the hexadecimal SHA-256 of the body.
    """
    access, secret, token = keys
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{path}\n{query_of(query)}\n{lines}\n{names}\n{payload}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    del headers["host"]
    return {**headers, "Authorization": credential}


def query_of(query: Mapping[str, str] | None) -> str:
    """Return the canonical query: sorted by name, and percent-encoded."""
    return "&".join(f"{_quote(name)}={_quote(value)}" for name, value in sorted((query or {}).items()))


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
