"""Signatures of requests to S3, compared with botocore's."""

import datetime
import hashlib

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from webhook.core.sigv4 import EMPTY, query_of, s3_headers

REGION = "eu-west-1"
HOST = f"s3.{REGION}.amazonaws.com"
NOW = datetime.datetime(2026, 11, 29, 10, 0, 0, tzinfo=datetime.UTC)


class Frozen(datetime.datetime):
    @classmethod
    def utcnow(cls):
        return NOW.replace(tzinfo=None)

    @classmethod
    def now(cls, tz=None):
        return NOW.astimezone(tz) if tz else NOW.replace(tzinfo=None)


@pytest.mark.parametrize("token", ["", "session/token=="])
@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", "/bucket/a%20b/c", {}, b""),
        ("GET", "/bucket", {"list-type": "2", "prefix": "log/a b+c", "start-after": "x~y*z"}, b""),
        ("GET", "/bucket", {"prefix": "ü/%", "delimiter": "/", "continuation-token": "a=b&c"}, b""),
        ("PUT", "/bucket/tile/0/x001/067.p/3", {}, b"\x00content"),
        ("DELETE", "/bucket/k%C3%A9y", {"versionId": "1"}, b""),
    ],
)
def test_the_signature_is_that_of_botocore(monkeypatch, method, path, query, body, token):
    keys = ("AKID", "secret", token)
    payload = hashlib.sha256(body).hexdigest()
    mine = s3_headers(method, HOST, path, REGION, keys, NOW, query=query, payload=payload)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW, raising=False)
    monkeypatch.setattr(botocore.auth.datetime, "datetime", Frozen, raising=False)
    separator = "?" if query else ""
    url = f"https://{HOST}{path}{separator}{query_of(query)}"
    request = botocore.awsrequest.AWSRequest(method, url, data=body)
    request.headers["X-Amz-Content-SHA256"] = payload
    credentials = botocore.credentials.Credentials("AKID", "secret", token or None)
    botocore.auth.S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    assert request.headers["Authorization"] == mine["Authorization"]


def test_a_request_without_a_body_has_the_digest_of_none():
    assert s3_headers("GET", HOST, "/b", REGION, ("a", "b", ""), NOW)["x-amz-content-sha256"] == EMPTY
    assert hashlib.sha256(b"").hexdigest() == EMPTY
