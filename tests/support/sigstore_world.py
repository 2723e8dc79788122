"""A Sigstore of the test's own: a CA, a certificate log, a Rekor-like log, a timestamp authority, and signers."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.core.audit.merkle import Frontier, leaf_hash, node_hash

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "https://github.com/acme/trainer/.github/workflows/release.yml@refs/heads/main"
IN_TOTO = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(key, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def new_key(kind: str = "ecdsa"):
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def pae(kind: str, payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority(name: str, key, issuer=None, issuer_key=None, path_length=None) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    signer = issuer_key or key
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.subject if issuer is not None else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


@dataclass
class Signed:
    """A signature and all that a bundle holds beside it."""

    signature: bytes
    signed: bytes
    certificate: x509.Certificate | None = None
    key: object = None
    payload: bytes = b""
    time: datetime = NOW


@dataclass
class World:
    """``logged``: with a transparency log. ``stamped``: with a timestamp authority. ``rekor``: version 1 or 2."""

    name: str = "sigstore"
    logged: bool = True
    stamped: bool = False
    certificate_log: bool = True
    rekor: int = 1
    ca_key: object = field(default_factory=new_key)
    sub_key: object = field(default_factory=new_key)
    ct_key: object = field(default_factory=new_key)
    log_key: object = None
    tsa_key: object = field(default_factory=new_key)
    leaves: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log_key = self.log_key or new_key("ed25519" if self.rekor == 2 else "ecdsa")
        self.ca = _authority(f"{self.name} root", self.ca_key, path_length=1)
        self.sub = _authority(f"{self.name} sub", self.sub_key, self.ca, self.ca_key, 0)
        self.tsa_root = _authority(f"{self.name} tsa root", self.ca_key)
        self.tsa = self._tsa_certificate()

    @property
    def log_id(self) -> bytes:
        if self.rekor == 2:
            raw = self.log_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            return hashlib.sha256(f"{self.name}.log".encode() + b"\n\x01" + raw).digest()
        return hashlib.sha256(spki(self.log_key)).digest()

    def trusted_root(self, *, end: datetime | None = None, drop: str = "") -> bytes:
        """``end`` closes the period of the CA, ``drop`` removes a section: revoked trust."""
        period = {"start": "2020-01-01T00:00:00Z"} | (
            {"end": end.isoformat().replace("+00:00", "Z")} if end else {}
        )
        chain = [{"rawBytes": b64(c.public_bytes(Encoding.DER))} for c in (self.sub, self.ca)]
        tsa = [{"rawBytes": b64(c.public_bytes(Encoding.DER))} for c in (self.tsa, self.tsa_root)]
        start = {"start": "2020-01-01T00:00:00Z"}
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                {"baseUrl": f"https://{self.name}.log", "hashAlgorithm": "SHA2_256",
                 "publicKey": {"rawBytes": b64(spki(self.log_key)),
                               "keyDetails": "PKIX_ED25519" if self.rekor == 2 else "PKIX_ECDSA_P256_SHA_256",
                               "validFor": start},
                 "logId": {"keyId": b64(self.log_id)}}
            ] if self.logged else [],
            "certificateAuthorities": [
                {"subject": {"organization": self.name, "commonName": self.name},
                 "uri": f"https://{self.name}.ca", "certChain": {"certificates": chain}, "validFor": period}
            ],
            "ctlogs": [
                {"baseUrl": f"https://{self.name}.ct", "hashAlgorithm": "SHA2_256",
                 "publicKey": {"rawBytes": b64(spki(self.ct_key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                               "validFor": start},
                 "logId": {"keyId": b64(hashlib.sha256(spki(self.ct_key)).digest())}}
            ] if self.certificate_log else [],
            "timestampAuthorities": [
                {"subject": {"organization": self.name, "commonName": self.name},
                 "uri": f"https://{self.name}.tsa", "certChain": {"certificates": tsa}, "validFor": start}
            ] if self.stamped else [],
        }  # fmt: skip
        if drop:
            root[drop] = []
        return json.dumps(root).encode()

    def certificate(
        self, key, subject=SUBJECT, issuer=ISSUER, time=NOW, minutes=10, names=None, old_issuer=""
    ):
        """A signing certificate as Fulcio issues it, with the promise (SCT) of the certificate log in it."""
        der_issuer = core.UTF8String(issuer).dump()
        name = x509.RFC822Name(subject) if "@" in subject and "/" not in subject else None
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.sub.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(time - timedelta(minutes=1))
            .not_valid_after(time + timedelta(minutes=minutes))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.sub_key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(names or [name or x509.UniformResourceIdentifier(subject)]),
                critical=True,
            )
            .add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), der_issuer),
                critical=False,
            )
        )
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
        old = x509.UnrecognizedExtension(oid, (old_issuer or issuer).encode())
        builder = builder.add_extension(old, critical=False)
        if not self.certificate_log:
            return builder.sign(self.sub_key, hashes.SHA256())
        tbs = builder.sign(self.sub_key, hashes.SHA256()).tbs_certificate_bytes
        milliseconds = int(time.timestamp() * 1000)
        content = struct.pack(">BBQH", 0, 0, milliseconds, 1) + hashlib.sha256(spki(self.sub_key)).digest()
        content += len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = sign(self.ct_key, content)
        sct = b"\0" + hashlib.sha256(spki(self.ct_key)).digest() + struct.pack(">Q", milliseconds) + b"\0\0"
        sct += b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
        listing = len(sct).to_bytes(2, "big") + sct
        listing = len(listing).to_bytes(2, "big") + listing
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        extension = x509.UnrecognizedExtension(oid, core.OctetString(listing).dump())
        return builder.add_extension(extension, critical=False).sign(self.sub_key, hashes.SHA256())

    # Signing

    def by_key(self, key, signed: bytes, payload: bytes = b"", time=NOW) -> Signed:
        return Signed(sign(key, signed), signed, None, key, payload, time)

    def by_certificate(
        self, signed: bytes, payload: bytes = b"", subject=SUBJECT, issuer=ISSUER, time=NOW, late=0
    ):
        """``late``: minutes after the certificate was issued; more than 10 is after its end."""
        key = new_key()
        certificate = self.certificate(key, subject, issuer, time - timedelta(minutes=late))
        return Signed(sign(key, signed), signed, certificate, key, payload, time)

    # Log

    def body(self, item: Signed) -> tuple[str, str, bytes]:
        public = (
            item.certificate.public_bytes(Encoding.PEM) if item.certificate is not None else pem(item.key)
        )
        if self.rekor == 2:
            raw = (
                item.certificate.public_bytes(Encoding.DER)
                if item.certificate is not None
                else spki(item.key)
            )
            holder = "x509Certificate" if item.certificate is not None else "publicKey"
            spec = {
                "hashedRekordV002": {
                    "data": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(item.signed).digest())},
                    "signature": {
                        "content": b64(item.signature),
                        "verifier": {holder: {"rawBytes": b64(raw)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"},
                    },
                }
            }
            kind, version = "hashedrekord", "0.0.2"
        elif item.payload:
            spec = {
                "envelopeHash": {"algorithm": "sha256", "value": "00" * 32},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(item.payload).hexdigest()},
                "signatures": [{"signature": b64(item.signature), "verifier": b64(public)}],
            }
            kind, version = "dsse", "0.0.1"
        else:
            spec = {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(item.signed).hexdigest()}},
                "signature": {"content": b64(item.signature), "publicKey": {"content": b64(public)}},
            }
            kind, version = "hashedrekord", "0.0.1"
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        return kind, version, orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    def entry(self, item: Signed, *, proof: bool = True) -> dict:
        return self.entry_of(*self.body(item), item.time, proof=proof)

    def entry_of(
        self, kind: str, version: str, body: bytes, time: datetime = NOW, *, proof: bool = True
    ) -> dict:
        """The entry with this body, the second of its log."""
        other = leaf_hash(b"another entry")
        index = 1
        tree = Frontier()
        tree.append(other)
        tree.append(leaf_hash(body))
        root = tree.root()
        assert root == node_hash(other, leaf_hash(body))
        entry = {
            "logIndex": str(index),
            "logId": {"keyId": b64(self.log_id)},
            "kindVersion": {"kind": kind, "version": version},
            "canonicalizedBody": b64(body),
        }
        if self.rekor == 1:
            when = int(time.timestamp())
            promised = {
                "body": b64(body),
                "integratedTime": when,
                "logID": self.log_id.hex(),
                "logIndex": index,
            }
            entry["integratedTime"] = str(when)
            promise = sign(self.log_key, orjson.dumps(promised, option=orjson.OPT_SORT_KEYS))
            entry["inclusionPromise"] = {"signedEntryTimestamp": b64(promise)}
        if proof:
            text = f"{self.name}.log\n2\n{b64(root)}\n"
            line = f"— {self.name}.log {b64(self.log_id[:4] + sign(self.log_key, text.encode()))}\n"
            entry["inclusionProof"] = {
                "logIndex": str(index), "treeSize": "2", "rootHash": b64(root), "hashes": [b64(other)],
                "checkpoint": {"envelope": f"{text}\n{line}"},
            }  # fmt: skip
        return entry

    # Timestamps

    def _tsa_certificate(self) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(_name(f"{self.name} tsa"))
            .issuer_name(self.tsa_root.subject)
            .public_key(self.tsa_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=3000))
            .not_valid_after(NOW + timedelta(days=3000))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), critical=False
            )
            .sign(self.ca_key, hashes.SHA256())
        )

    def timestamp(self, message: bytes, time: datetime = NOW, digest: bytes = b"") -> bytes:
        """A TimeStampResp (RFC 3161) over a message, or over its digest."""
        sha256 = algos.DigestAlgorithm({"algorithm": "sha256"})
        imprint = digest or hashlib.sha256(message).digest()
        info = tsp.TSTInfo(
            {
                "version": "v1", "policy": "1.2.3.4",
                "message_imprint": {"hash_algorithm": sha256, "hashed_message": imprint},
                "serial_number": 7, "gen_time": time,
            }
        )  # fmt: skip
        certificate = asn1_x509.Certificate.load(self.tsa.public_bytes(Encoding.DER))
        fingerprint = hashlib.sha256(certificate.dump()).digest()
        attributes = cms.CMSAttributes(
            [
                {"type": "content_type", "values": ["tst_info"]},
                {"type": "signing_time", "values": [cms.Time({"utc_time": core.UTCTime(time)})]},
                {"type": "message_digest", "values": [hashlib.sha256(info.dump()).digest()]},
                {"type": "signing_certificate_v2", "values": [
                    tsp.SigningCertificateV2({"certs": [{"cert_hash": fingerprint}]})]},
            ]
        )  # fmt: skip
        signature = sign(self.tsa_key, attributes.dump())
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier({"issuer_and_serial_number": {
                    "issuer": certificate.issuer, "serial_number": certificate.serial_number}}),
                "digest_algorithm": sha256, "signed_attrs": attributes,
                "signature_algorithm": {"algorithm": "sha256_ecdsa"}, "signature": signature,
            }
        )  # fmt: skip
        signed = cms.SignedData(
            {
                "version": "v3", "digest_algorithms": [sha256],
                "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info.dump())},
                "certificates": [certificate], "signer_infos": [signer],
            }
        )  # fmt: skip
        content = cms.ContentInfo({"content_type": "signed_data", "content": signed})
        return tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": content}).dump()

    # Forms

    def bundle(self, item: Signed, *, kind: str = IN_TOTO, logged: bool | None = None) -> dict:
        """The bundle v0.3 of a signature; over an envelope if the item has a payload."""
        material: dict = (
            {"certificate": {"rawBytes": b64(item.certificate.public_bytes(Encoding.DER))}}
            if item.certificate is not None
            else {"publicKey": {"hint": b64(hashlib.sha256(spki(item.key)).digest())}}
        )
        material["tlogEntries"] = [self.entry(item)] if (self.logged if logged is None else logged) else []
        if self.stamped:
            material["timestampVerificationData"] = {
                "rfc3161Timestamps": [{"signedTimestamp": b64(self.timestamp(item.signature, item.time))}]
            }
        bundle: dict = {"mediaType": BUNDLE, "verificationMaterial": material}
        if item.payload:
            bundle["dsseEnvelope"] = {
                "payload": b64(item.payload), "payloadType": kind, "signatures": [{"sig": b64(item.signature)}],
            }  # fmt: skip
        else:
            digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(item.signed).digest())}
            bundle["messageSignature"] = {"messageDigest": digest, "signature": b64(item.signature)}
        return bundle
