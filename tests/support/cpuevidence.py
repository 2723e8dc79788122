"""SEV-SNP reports and TDX quotes of the real layouts, signed by certificates that are made here."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

NOW = datetime(2026, 11, 29, tzinfo=UTC)
MEASUREMENT = "5a" * 48
QE_SIGNER = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
TCB = {"1.3.1": 4, "1.3.2": 0, "1.3.3": 22, "1.3.8": 213}
CHIP = bytes(range(64))


def certificate(name, key, issuer=None, *, ca=False, extensions=(), pss=False, start=-1, days=3650):
    """A certificate of ``key``; ``issuer`` is (certificate, key), or None for a root."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=start))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    for oid, value in extensions:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(ObjectIdentifier(f"1.3.6.1.4.1.3704.{oid}"), value), critical=False
        )
    signer = issuer[1] if issuer else key
    if pss:
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)
        return builder.sign(signer, hashes.SHA384(), rsa_padding=scheme)
    return builder.sign(signer, hashes.SHA256())


class Amd:
    """AMD's chain: ARK and ASK (RSA-PSS, as AMD's), and a VCEK (P-384)."""

    kind = "sev-snp"

    def __init__(self, **leaf):
        ark_key, ask_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.ark = certificate("ARK-Milan", ark_key, ca=True, pss=True)
        self.ask = certificate("SEV-Milan", ask_key, (self.ark, ark_key), ca=True, pss=True)
        self.issuer = (self.ask, ask_key)
        self.vcek = self.leaf(**leaf)

    def leaf(self, tcb=TCB, chip=CHIP, **options):
        versions = [
            (oid, bytes([2, 1, value]) if value < 128 else bytes([2, 2, 0, value]))
            for oid, value in tcb.items()
        ]
        return certificate(
            "SEV-VCEK", self.key, self.issuer, extensions=[*versions, ("1.4", chip)], pss=True, **options
        )

    @property
    def roots(self):
        return self.ark.public_bytes(Encoding.PEM).decode()

    def report(self, nonce, *, edit=None, sign=None):
        raw = bytearray(1184)
        raw[0:4], raw[0x34:0x38] = (2).to_bytes(4, "little"), (1).to_bytes(4, "little")
        raw[8:16] = (0x30000).to_bytes(8, "little")
        raw[0x50:0x70] = bytes.fromhex(nonce)
        raw[0x90:0xC0] = bytes.fromhex(MEASUREMENT)
        for position, value in ((0, 4), (1, 0), (6, 22), (7, 213)):
            raw[0x180 + position] = value
        raw[0x1A0:0x1E0] = CHIP
        if edit:
            edit(raw)
        number_r, number_s = decode_dss_signature(
            (sign or self.key).sign(bytes(raw[:0x2A0]), ec.ECDSA(hashes.SHA384()))
        )
        raw[0x2A0:0x2E8], raw[0x2E8:0x330] = number_r.to_bytes(72, "little"), number_s.to_bytes(72, "little")
        return bytes(raw)

    def evidence(self, nonce, report=None, certificates=None, **options):
        chain = [self.vcek, self.ask] if certificates is None else certificates
        return bundle(self.kind, report or self.report(nonce, **options), chain)


class Intel:
    """Intel's chain: root, platform CA and PCK (P-256), a quoting enclave and its attestation key."""

    kind = "tdx"

    def __init__(self):
        root_key, platform_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.key, self.attestation = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = certificate("Intel SGX Root CA", root_key, ca=True)
        self.platform = certificate("Intel SGX PCK Platform CA", platform_key, (self.root, root_key), ca=True)
        self.pck = certificate("Intel SGX PCK Certificate", self.key, (self.platform, platform_key))

    @property
    def roots(self):
        return self.root.public_bytes(Encoding.PEM).decode()

    def report(self, nonce, *, edit=None, edit_qe=None, chain=None, data=b"auth", kind=6):
        header = (
            (4).to_bytes(2, "little") + (2).to_bytes(2, "little") + (0x81).to_bytes(4, "little") + bytes(40)
        )
        raw = bytearray(header + bytes(584))
        raw[48 + 136 : 48 + 184] = bytes.fromhex(MEASUREMENT)
        raw[48 + 520 : 48 + 552] = bytes.fromhex(nonce)
        if edit:
            edit(raw)
        public = self.attestation.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        qe_report = bytearray(384)
        qe_report[128:160], qe_report[256:258] = bytes.fromhex(QE_SIGNER), (2).to_bytes(2, "little")
        qe_report[320:352] = hashlib.sha256(public + data).digest()
        if edit_qe:
            edit_qe(qe_report)
        pem = b"".join(
            item.public_bytes(Encoding.PEM) for item in chain or (self.pck, self.platform, self.root)
        )
        certified = bytes(qe_report) + raw_signature(self.key, bytes(qe_report))
        certified += (
            len(data).to_bytes(2, "little")
            + data
            + (5).to_bytes(2, "little")
            + len(pem).to_bytes(4, "little")
            + pem
        )
        rest = raw_signature(self.attestation, bytes(raw)) + public
        rest += kind.to_bytes(2, "little") + len(certified).to_bytes(4, "little") + certified
        return bytes(raw) + len(rest).to_bytes(4, "little") + rest

    def evidence(self, nonce, report=None, **options):
        return bundle(self.kind, report or self.report(nonce, **options), [])


def raw_signature(key, data):
    number_r, number_s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return number_r.to_bytes(32, "big") + number_s.to_bytes(32, "big")


def bundle(kind, report, certificates):
    chain = [base64.b64encode(item.public_bytes(Encoding.DER)).decode() for item in certificates]
    return {"kind": kind, "report": base64.b64encode(report).decode(), "certificates": chain}
