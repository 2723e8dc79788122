"""OpenSSF Model Signing (OMS) v1.0: verify and create the detached signature of a model's files.

A signature file is a Sigstore bundle with a DSSE envelope. Its payload is an in-toto statement that lists the digest of
every file, or of every shard of a file. `verify` checks the envelope against the trusted keys, CAs or identities and
returns a `SignedModel`. It never reads the model: the code that reads the files compares their digests.

Sizes are bounded before anything is parsed, and each failure is one sentence. The specification is "OpenSSF Model
Signing Specification v1.0"; differences between versions of `model-signing` are accepted as its section 11 requires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from webhook.core.provenance.models import ModelSignature, Signer
from webhook.provenance.errors import (
    ExpiredError,
    MalformedError,
    TamperedError,
    UntrustedError,
    WrongSignerError,
)
from webhook.provenance.signatures import fingerprint
from webhook.provenance.trust import Trust
from webhook.provenance.verify import verify_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

SIGNATURE_NAME: Final = "model.sig"
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore")
SINGLE: Final = "."  # how `model-signing` 1.1 names the only file of a model that is a file
MAX_BUNDLE: Final = 64 << 20
MAX_RESOURCES: Final = 250_000
MAX_PATH: Final = 4096
MAX_CHAIN: Final = 8
MAX_IGNORED: Final = 1024
_MAX_STRUCTURE: Final = 8 * MAX_RESOURCES
_MAX_CERTIFICATE: Final = 64 << 10
_DIGEST_SIZES: Final = {"sha256": 32, "blake2b": 64, "blake3": 32}
_MEDIA_TYPES: Final = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle(\.v0\.3\+json|\+json;version=0\.[123])"
)
_SHARD: Final = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,18}):(?P<end>[1-9][0-9]{0,18})", re.DOTALL)
_HEX: Final = re.compile(r"([0-9a-f]{2})+")
_CERTIFICATE_FAULTS: Final = (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_CURVES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class ModelTrust:
    """Which signers are accepted: the keys and identities in ``signers``, and the CAs of certificate chains."""

    signers: Trust = field(default_factory=Trust)
    authorities: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class FileDigests:
    """The signed digests of one file: one of all its bytes, or one of each ``shard`` bytes of ``size``."""

    digests: tuple[bytes, ...]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class SignedModel:
    """The content of a verified signature. ``files`` is by path; a shard size of 0 means whole files."""

    signature: ModelSignature
    files: Mapping[str, FileDigests]
    hash_type: str
    shard_size: int
    allow_symlinks: bool
    ignored: tuple[str, ...]

    def ignores(self, path: str) -> bool:
        """Whether the signer excluded ``path`` or a directory that contains it."""
        return any(path == name or path.startswith(f"{name}/") for name in self.ignored)


@dataclass(slots=True)
class _Envelope:
    material: dict[str, Any]
    payload: bytes
    payload_type: str
    signature: bytes
    raw: bytes = field(repr=False)


def verify(raw: bytes, trust: ModelTrust, now: datetime) -> SignedModel:
    """Verify a signature file.

    ``now`` is the time at which a certificate must be valid. A keyless certificate must be valid at the time in the
    transparency log instead.

    Raises:
        ProvenanceError: it is malformed, not signed by an accepted signer, or not a model's signature.
    """
    payload, signer = verify_envelope(raw, trust, now)
    statement = parse_statement(payload)
    if statement["predicateType"] != PREDICATE:
        raise MalformedError(
            f"the signature is not one of a model: its predicate type is {_short(statement['predicateType'])}"
        )
    try:
        return _signed_model(statement, signer, "sha256:" + hashlib.sha256(raw).hexdigest())
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(f"field {error} is missing or has another type") from None


def verify_envelope(raw: bytes, trust: ModelTrust, now: datetime) -> tuple[bytes, Signer]:
    """Verify a Sigstore bundle with a DSSE envelope, and return its payload and its signer.

    Raises:
        ProvenanceError: it is malformed, or not signed by an accepted signer.
    """
    envelope = _envelope(raw)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise MalformedError(
            f"the signature has payload type {_short(envelope.payload_type)}, not {PAYLOAD_TYPE}"
        )
    material = envelope.material
    present = [name for name in ("publicKey", "x509CertificateChain", "certificate") if name in material]
    if len(present) != 1:
        raise _malformed("it must contain exactly one of publicKey, x509CertificateChain and certificate")
    try:
        if present[0] == "publicKey":
            signer = _verify_key(envelope, trust)
        elif present[0] == "x509CertificateChain":
            signer = _verify_chain(envelope, trust, now)
        else:
            signer = _verify_keyless(envelope, trust, now)
    except (KeyError, TypeError, AttributeError, ValueError, *_CERTIFICATE_FAULTS):
        raise _malformed(f"{present[0]} is not in the expected form") from None
    return envelope.payload, signer


def parse_statement(payload: bytes) -> dict[str, Any]:
    """Parse an in-toto statement v1.

    Raises:
        MalformedError: it is not one.
    """
    statement = _parse(payload, "statement")
    if statement.get("_type") != STATEMENT:
        raise MalformedError(
            f"the signed statement has type {_short(statement.get('_type'))}, not {STATEMENT}"
        )
    if not isinstance(statement.get("predicateType"), str) or not statement["predicateType"]:
        raise _malformed("the statement has no predicateType")
    if not isinstance(statement.get("subject"), list) or not statement["subject"]:
        raise _malformed("the statement has no subject")
    return statement


def key_hint(key: Any) -> str:
    """Return the hint by which a bundle names a key: the hex digest of its PEM form."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def signature_hash(key: Any) -> hashes.HashAlgorithm:
    """Return the hash of a key's signatures. Raises `MalformedError` for a key that OMS does not support."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]()
    raise MalformedError("only elliptic curve keys on P-256, P-384 and P-521 can sign models")


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding (PAE), which is what an envelope's signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Resource:
    """One entry of the list of files to sign: a path, or ``path:start:end`` of a shard, and its digest."""

    name: str
    digest: bytes


def statement_of(
    name: str, resources: Iterable[Resource], ignored: Iterable[str], shard_size: int = 0
) -> bytes:
    """Return the in-toto statement of a model with SHA-256 digests; ``shard_size`` 0 means whole files.

    Shards have the algorithm name that `model-signing` 1.1 requires, since it rejects the specification's.
    """
    listing = sorted(resources, key=lambda resource: resource.name)
    root = hashlib.sha256(b"".join(resource.digest for resource in listing)).hexdigest()
    serialization: dict[str, Any] = {
        "method": "shards" if shard_size else "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted({*IGNORED, *ignored}),
    }
    if shard_size:
        serialization["shard_size"] = shard_size
    algorithm = _sharded("sha256", shard_size) if shard_size else "sha256"
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": serialization,
            "resources": [
                {"algorithm": algorithm, "digest": resource.digest.hex(), "name": resource.name}
                for resource in listing
            ],
        },
    }
    return orjson.dumps(statement)


def bundle_of(
    payload: bytes, key: Any, sign: Callable[[bytes], bytes], chain: tuple[x509.Certificate, ...] = ()
) -> bytes:
    """Return a signature file over ``payload``. ``sign`` returns the DER signature of a message by ``key``.

    With a certificate ``chain``, leaf first, the bundle contains it; otherwise it contains the hint of ``key``.
    """
    material: dict[str, Any] = {"publicKey": {"hint": key_hint(key)}}
    if chain:
        certificates = [{"rawBytes": _base64(item.public_bytes(Encoding.DER))} for item in chain]
        material = {"x509CertificateChain": {"certificates": certificates}}
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": _base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _base64(sign(pae(PAYLOAD_TYPE, payload))), "keyid": ""}],
        },
    }
    return orjson.dumps(bundle)


def _envelope(raw: bytes) -> _Envelope:
    if len(raw) > MAX_BUNDLE:
        raise MalformedError(f"the signature file is larger than {MAX_BUNDLE >> 20} MiB")
    document = _parse(raw, "signature file")
    media = document.get("mediaType")
    if not isinstance(media, str) or not _MEDIA_TYPES.fullmatch(media):
        raise MalformedError(
            f"the signature file is not a Sigstore bundle of a known version: {_short(media)}"
        )
    material, envelope = document.get("verificationMaterial"), document.get("dsseEnvelope")
    if not isinstance(material, dict) or not isinstance(envelope, dict):
        raise _malformed("verificationMaterial or dsseEnvelope is missing")
    signatures, kind = envelope.get("signatures"), envelope.get("payloadType")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise _malformed("the envelope must have exactly one signature")
    if not isinstance(kind, str):
        raise _malformed("the envelope has no payloadType")
    payload = _bytes(envelope.get("payload"), "payload")
    return _Envelope(material, payload, kind, _bytes(signatures[0].get("sig"), "sig"), raw)


def _verify_key(envelope: _Envelope, trust: ModelTrust) -> Signer:
    if not trust.signers.keys:
        raise WrongSignerError("the model is signed with a key, but no public key is trusted")
    material = envelope.material["publicKey"]
    hint = material.get("hint") or ""
    if not isinstance(hint, str) or not (hint or material.get("rawBytes")):
        raise _malformed("publicKey has neither hint nor rawBytes")
    for key in (item.key for item in trust.signers.keys):
        if hint and not hmac.compare_digest(hint.encode("utf-8", "replace"), key_hint(key).encode()):
            continue
        if _is_signed_by(key, envelope):
            return Signer("key", key=fingerprint(key))
        if hint:
            raise TamperedError("the signature does not match: the signature file was changed")
    raise WrongSignerError("the model is signed with a key that is not trusted, or the signature was changed")


def _verify_chain(envelope: _Envelope, trust: ModelTrust, now: datetime) -> Signer:
    if not trust.authorities:
        raise WrongSignerError("the model is signed with a certificate, but no CA certificate is trusted")
    listing = envelope.material["x509CertificateChain"]["certificates"]
    if not isinstance(listing, list) or not 0 < len(listing) <= MAX_CHAIN:
        raise _malformed(f"the chain must have between 1 and {MAX_CHAIN} certificates")
    leaf, *between = [_certificate(item["rawBytes"]) for item in listing]
    _check_usage(leaf)
    key: Any = leaf.public_key()
    signature_hash(key)
    root = _chain_root(leaf, between, trust, now)
    if not _is_signed_by(key, envelope):
        raise TamperedError("the signature does not match its certificate: the signature file was changed")
    return Signer(
        "certificate",
        key=fingerprint(key),
        issuer=leaf.issuer.rfc4514_string(),
        subject=_subject(leaf),
        ca="sha256:" + root.fingerprint(hashes.SHA256()).hex(),
    )


def _verify_keyless(envelope: _Envelope, trust: ModelTrust, now: datetime) -> Signer:
    entries = envelope.material.get("tlogEntries")
    if not isinstance(entries, list) or not entries:
        raise _malformed("a keyless signature needs an entry of a transparency log (tlogEntries)")
    if not trust.signers.identities:
        raise WrongSignerError("the model is signed without a key, but no identity is trusted")
    identities = Trust(identities=trust.signers.identities, root=trust.signers.root)
    verified = verify_bundle(envelope.raw, identities, now)
    if verified.payload != envelope.payload:
        raise _malformed("its envelope has two readings")
    leaf = _certificate(envelope.material["certificate"]["rawBytes"])
    public: Any = leaf.public_key()
    key = fingerprint(public)
    return Signer("sigstore", key=key, issuer=verified.signer.issuer, subject=verified.signer.subject)


def _chain_root(
    leaf: x509.Certificate, between: list[x509.Certificate], trust: ModelTrust, now: datetime
) -> x509.Certificate:
    """The trusted CA certificate at which the chain ends. Extensions of private CAs differ, so few are required."""
    authority = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, _require_ca
    )
    builder = PolicyBuilder().store(Store(list(trust.authorities))).time(now).max_chain_depth(MAX_CHAIN)
    builder = builder.extension_policies(ca_policy=authority, ee_policy=ExtensionPolicy.permit_all())
    try:
        return builder.build_client_verifier().verify(leaf, between).chain[-1]
    except VerificationError as error:
        expired = not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc
        if expired:
            raise ExpiredError("the signing certificate is expired or not valid yet") from None
        raise UntrustedError(f"no trusted CA issued the signing certificate: {_short(str(error))}") from None


def _require_ca(
    _policy: object, _certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is None or not constraints.ca:
        raise ValueError("the issuer is not a CA")


def _check_usage(leaf: x509.Certificate) -> None:
    """Require key usage digitalSignature, or without that extension the extended usage codeSigning."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    except (ValueError, x509.DuplicateExtension):
        raise MalformedError("the signing certificate is malformed") from None
    if usage is not None:
        if usage.digital_signature:
            return
        raise MalformedError("the signing certificate may not sign: key usage digitalSignature is missing")
    try:
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise MalformedError("the signing certificate may not sign: it has no key usage") from None
    if ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise MalformedError("the signing certificate may not sign: codeSigning is missing")


def _subject(leaf: x509.Certificate) -> str:
    """The first subject alternative name that is an e-mail address, URI or DNS name; otherwise the subject."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return leaf.subject.rfc4514_string()
    for name in names:
        if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier | x509.DNSName):
            return str(name.value)
    return leaf.subject.rfc4514_string()


def _is_signed_by(key: Any, envelope: _Envelope) -> bool:
    algorithm = ec.ECDSA(signature_hash(key))
    try:
        key.verify(envelope.signature, pae(envelope.payload_type, envelope.payload), algorithm)
    except InvalidSignature:
        return False
    return True


def _signed_model(statement: dict[str, Any], signer: Signer, bundle: str) -> SignedModel:
    predicate, subjects = statement["predicate"], statement["subject"]
    if len(subjects) != 1 or not isinstance(subjects[0]["name"], str) or not subjects[0]["name"]:
        raise _malformed("the statement must have exactly one subject with a name")
    serialization = predicate["serialization"]
    hash_type, shard_size = serialization["hash_type"], _shard_size(serialization)
    if hash_type not in _DIGEST_SIZES:
        raise MalformedError(f"the signature uses hash algorithm {_short(hash_type)}, which is not supported")
    resources = predicate["resources"]
    if not isinstance(resources, list) or not 0 < len(resources) <= MAX_RESOURCES:
        raise _malformed(f"it must list between 1 and {MAX_RESOURCES} resources")
    root = hashlib.sha256()
    names: dict[str, bytes] = {}
    # The specification requires the name of the hash; `model-signing` 1.1 writes another name for shards.
    algorithms = {hash_type, _sharded(hash_type, shard_size)} if shard_size else {hash_type}
    for resource in resources:
        if resource["algorithm"] not in algorithms:
            raise _malformed("a resource has another hash algorithm than hash_type")
        digest = _digest(resource["digest"], hash_type)
        name = resource["name"]
        if not isinstance(name, str) or name in names:
            raise _malformed("two resources have the same name, or one has none")
        names[name] = digest
        root.update(digest)
    expected = subjects[0]["digest"]["sha256"]
    if not isinstance(expected, str) or not hmac.compare_digest(
        expected.encode("utf-8", "replace"), root.hexdigest().encode()
    ):
        raise TamperedError("the signature is inconsistent: its root digest does not match its resources")
    symlinks = serialization["allow_symlinks"]
    if not isinstance(symlinks, bool):
        raise _malformed("allow_symlinks is not a boolean")
    files = _shards(names, shard_size) if shard_size else _files(names)
    if SINGLE in files and len(files) > 1:
        raise _malformed("it lists a directory as a file")
    signature = ModelSignature(
        signer,
        f"sha256:{expected}",
        _printable(subjects[0]["name"]),
        "shards" if shard_size else "files",
        hash_type,
        len(files),
        bundle,
    )
    return SignedModel(signature, files, hash_type, shard_size, symlinks, _ignored(serialization))


def _sharded(hash_type: str, shard_size: int) -> str:
    return f"{hash_type}-sharded-{shard_size}"


def _shard_size(serialization: dict[str, Any]) -> int:
    method, size = serialization["method"], serialization.get("shard_size")
    if type(size) is float and size.is_integer():
        size = int(size)  # `model-signing` writes numbers as protobuf does, all of them with a fraction
    if method == "files" and size is None:
        return 0
    if method == "shards" and type(size) is int and 0 < size < 1 << 62:
        return size
    raise _malformed("the serialization is neither files nor shards with a shard_size")


def _files(names: dict[str, bytes]) -> dict[str, FileDigests]:
    return {_path(name): FileDigests((digest,)) for name, digest in names.items()}


def _shards(names: dict[str, bytes], shard_size: int) -> dict[str, FileDigests]:
    parts: dict[str, dict[int, tuple[int, bytes]]] = {}
    for name, digest in names.items():
        match = _SHARD.fullmatch(name)
        if match is None:
            raise _malformed(f"resource {_short(name)} is not a shard")
        begin, end = int(match["start"]), int(match["end"])
        if begin % shard_size or not begin < end <= begin + shard_size:
            raise _malformed(f"shard {_short(name)} does not match the shard size")
        shards = parts.setdefault(_path(match["path"]), {})
        if begin in shards:
            raise _malformed(f"two shards of {_short(match['path'])} begin at the same byte")
        shards[begin] = end, digest
    return {path: _joined(path, shards, shard_size) for path, shards in parts.items()}


def _joined(path: str, shards: dict[int, tuple[int, bytes]], shard_size: int) -> FileDigests:
    digests, offset = [], 0
    for begin in sorted(shards):
        end, digest = shards[begin]
        if begin != offset or (end - begin != shard_size and begin != max(shards)):
            raise _malformed(f"the shards of {_short(path)} do not cover the whole file")
        digests.append(digest)
        offset = end
    return FileDigests(tuple(digests), offset)


def _ignored(serialization: dict[str, Any]) -> tuple[str, ...]:
    listing = serialization.get("ignore_paths", [])
    if not isinstance(listing, list) or len(listing) > MAX_IGNORED:
        raise _malformed("ignore_paths is not a list, or too long")
    if not all(isinstance(name, str) for name in listing):
        raise _malformed("an entry of ignore_paths is not a text")
    # An entry for the model itself excludes nothing: it would otherwise exclude every file.
    return tuple(sorted({*IGNORED, *(_path(name.rstrip("/")) for name in listing)} - {SINGLE}))


def _path(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_PATH:
        raise _malformed("a path is missing or too long")
    if name == SINGLE:
        return name
    if any(part in {"", ".", ".."} for part in name.split("/")) or not name.isprintable():
        raise _malformed(f"path {_short(name)} is not canonical")
    return name


def _digest(value: Any, hash_type: str) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _malformed("a digest is not lower-case hexadecimal")
    raw = bytes.fromhex(value)
    if len(raw) != _DIGEST_SIZES[hash_type]:
        raise _malformed(f"a digest does not have the size of {hash_type}")
    return raw


def _certificate(value: Any) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(_bytes(value, "rawBytes", _MAX_CERTIFICATE))
    except ValueError:
        raise MalformedError("the signing certificate is malformed") from None


def _parse(raw: bytes, what: str) -> dict[str, Any]:
    if raw.count(b"{") + raw.count(b"[") > _MAX_STRUCTURE or raw.count(b",") > _MAX_STRUCTURE:
        raise MalformedError(f"the {what} has too many fields")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise MalformedError(f"the {what} is not JSON") from None
    if not isinstance(document, dict):
        raise MalformedError(f"the {what} is not a JSON object")
    return document


def _bytes(value: Any, name: str, limit: int = MAX_BUNDLE) -> bytes:
    if not isinstance(value, str) or not value or len(value) > 2 * limit:
        raise _malformed(f"{name} is missing or too long")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(f"{name} is not base64") from None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:253])


def _short(value: Any) -> str:
    return repr(value if isinstance(value, str) else type(value).__name__)[:200]


def _malformed(why: str) -> MalformedError:
    return MalformedError(f"the signature file is malformed: {why}")
