"""Authorities as they are configured: what is read, what is refused, and in which order they become words."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from pydantic import ValidationError

from webhook.api.authorities import given, known, parse_authorities
from webhook.api.config import Injection
from webhook.server.tls import self_signed

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def pem(age=timedelta(days=1)):
    return self_signed.make(["x"], now=NOW - age).authority.decode()


def test_words_are_the_certificates():
    first, second = pem(), pem()
    words = known(f"# a comment\n{first}\n{second}{first}")
    assert len(words) == 2
    ders = [x509.load_der_x509_certificate(base64.b64decode(word)) for word in words]
    assert ders == [x509.load_pem_x509_certificate(text.encode()) for text in (first, second)]
    assert known("") == known(" \n") == ()


def test_only_settled_ones_are_given_unless_there_is_no_other():
    old, new = pem(), pem(timedelta(minutes=2))
    assert given(old + new, NOW) == known(old)
    assert given(old + new, NOW + timedelta(hours=1)) == known(old + new)
    assert given(new, NOW) == known(new)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("junk", "not certificates in PEM"),
        (self_signed.make(["x"]).key.decode(), "not certificates in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not certificates in PEM"),
        ("x" * 40_000, "more than 32 KiB"),
    ],
)
def test_an_invalid_ca_bundle_is_rejected_in_the_configuration(text, output):
    with pytest.raises(ValueError, match=output):
        parse_authorities(text)
    with pytest.raises(ValidationError, match=output):
        Injection(ca_bundle=text)


def test_no_more_than_eight():
    with pytest.raises(ValueError, match="there are 9 authorities; at most 8"):
        parse_authorities("".join(pem() for _ in range(9)))
