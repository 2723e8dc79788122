"""Models and their signatures in the form of OpenSSF Model Signing, made by the tests."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.provenance.models import ModelTrust, Resource, bundle_of, signature_hash, statement_of
from webhook.provenance.trust import Trust, TrustedKey

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
FILES = {"config.json": b"{}", "w.safetensors": b"weights" * 1000}


def statement(files=None, shard_size=0, ignored=()):
    """The statement about files given by name and content."""
    resources = []
    for name, content in (FILES if files is None else files).items():
        if not shard_size:
            resources.append(Resource(name, hashlib.sha256(content).digest()))
            continue
        for start in range(0, len(content), shard_size):
            part = content[start : start + shard_size]
            resources.append(Resource(f"{name}:{start}:{start + len(part)}", hashlib.sha256(part).digest()))
    return statement_of("model", resources, ignored, shard_size)


def key_of(curve=None):
    return ec.generate_private_key(curve or ec.SECP256R1())


def signer_of(key):
    return lambda message: key.sign(message, ec.ECDSA(signature_hash(key.public_key())))


def signed(payload, key, chain=()):
    return bundle_of(payload, key.public_key(), signer_of(key), tuple(chain))


def trust_in(*keys, authorities=()):
    return ModelTrust(Trust(keys=tuple(TrustedKey(key.public_key()) for key in keys)), tuple(authorities))


def changed(raw, change):
    """The bundle after ``change`` of its parsed form."""
    document = json.loads(raw)
    change(document)
    return json.dumps(document).encode()


def resigned(key, change, payload=None):
    """A bundle over a statement after ``change``, signed as it then is."""
    document = json.loads(payload or statement())
    change(document)
    return signed(json.dumps(document).encode(), key)


def rooted(document):
    """Make the root digest of a statement agree with its resources."""
    digests = b"".join(bytes.fromhex(item["digest"]) for item in document["predicate"]["resources"])
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()


def certificate(
    subject,
    key,
    issuer=None,
    issuer_key=None,
    *,
    ca=False,
    usage=True,
    signing=True,
    days=(-1, 365),
    email="",
    code_signing=False,
):
    """A certificate; self-signed without an issuer."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage:
        flags = [signing, False, False, False, False, ca, ca, False, False]
        builder = builder.add_extension(x509.KeyUsage(*flags), critical=True)
    if code_signing:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
        )
    if email:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def text64(raw):
    return base64.b64encode(raw).decode()
