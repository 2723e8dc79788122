"""``weightlock weights sign`` for plain model files: a standard OpenSSF Model Signing signature, ``model.sig``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, KmsUnavailableError
from webhook.keys.rawio import replace_file
from webhook.keys.sealed.format.paths import MANIFEST_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.transfer import Progress

_MAX_PEM = 256 << 10
_MODEL_OPTIONS = (
    "certificate", "certificate_chain", "keyless", "identity_token", "trust_config", "signature", "ignore_path",
    "shard_size",
)  # fmt: skip


def add_signing(parser: argparse.ArgumentParser) -> None:
    """Add the options of a signature to ``weights sign``."""
    parser.add_argument(
        "--signing-key",
        metavar="FILE|URL",
        help="private key in PEM form: elliptic curve for a model, Ed25519 for a manifest; or for a model the URL of "
        "a key, vault://, aws:// or pkcs11://",
    )
    model = parser.add_argument_group("signature of a model")
    model.add_argument(
        "--signature", type=Path, metavar="FILE", help="signature file to write (default: model.sig in DIR)"
    )
    model.add_argument(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="certificate of the signing key, PEM; it is then included",
    )
    model.add_argument(
        "--certificate-chain",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="CA certificates between the certificate and the root, PEM (repeatable)",
    )
    model.add_argument(
        "--keyless", action="store_true", help="sign with a short-lived certificate of a Sigstore instance"
    )
    model.add_argument(
        "--identity-token",
        type=Path,
        metavar="FILE",
        help="OpenID Connect token for --keyless (default: the token of the CI job)",
    )
    model.add_argument(
        "--trust-config",
        type=Path,
        metavar="FILE",
        help="client trust configuration of a private Sigstore instance, for --keyless",
    )
    model.add_argument(
        "--ignore-path",
        action="append",
        default=[],
        metavar="PATH",
        help="exclude this path of the model, relative to DIR (repeatable)",
    )
    model.add_argument(
        "--shard-size",
        type=_shard_size,
        default=0,
        metavar="BYTES",
        help="sign shards of this size instead of whole files",
    )


def is_sealed(directory: Path) -> bool:
    """Whether the directory contains a manifest of sealed weights."""
    return (directory / MANIFEST_NAME).exists()


def refuse_model_options(args: argparse.Namespace) -> None:
    """Reject options that have no meaning for a sealed directory. Raises `BadInputError`."""
    if any(getattr(args, name) for name in _MODEL_OPTIONS):
        raise BadInputError(f"{args.directory} is sealed: its manifest is signed with --signing-key only")


def sign_model(args: argparse.Namespace, progress: Progress) -> tuple[dict[str, Any], list[str]]:
    """Sign the files of a model, and write the signature file. Returns the facts as JSON and as lines.

    Raises:
        KeysError: one sentence; no signature file was written.
    """
    from webhook.keys.sealed.hashing import digests_of  # noqa: PLC0415 - other commands start without these
    from webhook.keys.sealed.sealing import plain_items  # noqa: PLC0415
    from webhook.provenance.models import SIGNATURE_NAME, SINGLE, Resource, statement_of  # noqa: PLC0415

    source: Path = args.directory
    sign = _signer(args)
    output = args.signature or (source if source.is_dir() else source.parent) / SIGNATURE_NAME
    ignored = [_ignored(path) for path in args.ignore_path]
    inside = _inside(output, source)
    if inside:
        ignored.append(inside)
    items = [item for item in plain_items(source) if not _excluded(item, ignored)]
    resources = [
        Resource(name, digest) for name, digest in digests_of(items, args.shard_size, args.jobs, progress)
    ]
    if not resources:
        raise BadInputError(f"{source} contains no file to sign")
    name = source.resolve().name
    if not source.is_dir():
        resources = [
            Resource(SINGLE + resource.name.removeprefix(items[0].path), resource.digest)
            for resource in resources
        ]
    payload = statement_of(name, resources, ignored, args.shard_size)
    raw, signer = sign(payload)
    replace_file(output, raw, 0o644)
    facts = {"signature": str(output), "name": name, "resources": len(resources), "signer": signer}
    count = f"{len(items)} file" if len(items) == 1 else f"{len(items)} files"
    return facts, [f"Signed {count} of {source} as {signer}", f"Signature: {output}"]


def _signer(args: argparse.Namespace) -> Callable[[bytes], tuple[bytes, str]]:
    """Return what signs a statement, after every option was checked."""
    if args.keyless:
        if args.signing_key or args.certificate:
            raise BadInputError("--keyless excludes --signing-key and --certificate")
        return lambda payload: _sign_keyless(payload, args.identity_token, args.trust_config)
    if not args.signing_key:
        raise BadInputError("name the signer: --signing-key FILE|URL, or --keyless")
    if args.identity_token or args.trust_config:
        raise BadInputError("--identity-token and --trust-config need --keyless")
    from webhook.provenance.models import bundle_of  # noqa: PLC0415
    from webhook.provenance.signatures import fingerprint  # noqa: PLC0415

    public, sign = _key(args.signing_key, production=args.production)
    chain = _chain(args, public)
    label = f"certificate {chain[0].subject.rfc4514_string()}" if chain else f"key {fingerprint(public)}"
    return lambda payload: (bundle_of(payload, public, sign, chain), label)


def _key(name: str, *, production: bool) -> tuple[Any, Callable[[bytes], bytes]]:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    from webhook.provenance.errors import MalformedError  # noqa: PLC0415
    from webhook.provenance.models import signature_hash  # noqa: PLC0415

    if "://" in name:
        from webhook.keys.kms.signing import open_signing_key  # noqa: PLC0415

        key = open_signing_key(name, production=production)
        return key.public, key.sign
    try:
        private = load_pem_private_key(Path(name).read_bytes(), password=None)
    except OSError as error:
        raise BadInputError(f"cannot read the signing key {name}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise BadInputError(f"{name} is not an unencrypted private key in PEM form") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise BadInputError(
            f"{name} is not an elliptic curve key, which model signatures need: create one with `openssl ecparam "
            "-name prime256v1 -genkey -noout`"
        )
    try:
        algorithm = signature_hash(private.public_key())
    except MalformedError as error:
        raise BadInputError(str(error)) from None
    return private.public_key(), lambda message: private.sign(message, ec.ECDSA(algorithm))


def _chain(args: argparse.Namespace, public: Any) -> tuple[x509.Certificate, ...]:
    from cryptography import x509  # noqa: PLC0415

    if not args.certificate:
        if args.certificate_chain:
            raise BadInputError("--certificate-chain needs --certificate")
        return ()
    try:
        certificates = tuple(
            certificate
            for path in (args.certificate, *args.certificate_chain)
            for certificate in x509.load_pem_x509_certificates(path.read_bytes()[:_MAX_PEM])
        )
    except OSError as error:
        raise BadInputError(f"cannot read a certificate: {error}") from None
    except ValueError:
        raise BadInputError("a certificate is not in PEM form") from None
    if certificates[0].public_key() != public:
        raise BadInputError(f"{args.certificate} is not the certificate of the signing key")
    return certificates


def _sign_keyless(payload: bytes, token: Path | None, trust_config: Path | None) -> tuple[bytes, str]:
    try:
        from webhook.provenance.keyless_signing import sign  # noqa: PLC0415 - needs the package sigstore
    except ImportError:
        raise BadInputError(
            "--keyless needs a package that is not installed: pip install 'weightlock[provenance]'"
        ) from None
    from webhook.provenance.errors import ProvenanceError  # noqa: PLC0415

    try:
        return sign(
            payload,
            "" if token is None else token.read_text().strip(),
            None if trust_config is None else trust_config.read_text(),
        )
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot sign without a key: {error}") from None
    except ProvenanceError as error:
        raise KmsUnavailableError(f"cannot sign without a key: {error}") from None


def _excluded(item: Item, ignored: list[str]) -> bool:
    from webhook.provenance.models import IGNORED  # noqa: PLC0415

    names = (*IGNORED, *ignored)
    return any(item.path == name or item.path.startswith(f"{name}/") for name in names)


def _inside(output: Path, source: Path) -> str:
    """The path of the signature file inside the model, or empty."""
    try:
        return (output.parent.resolve() / output.name).relative_to(source.resolve()).as_posix()
    except ValueError:
        return ""


def _ignored(path: str) -> str:
    name = path.rstrip("/")
    if not name or name.startswith("/") or set(name.split("/")) & {"", ".", ".."} or set(name) & set("*?["):
        raise BadInputError(f"--ignore-path {path[:200]!r} is not a relative path without patterns")
    return name


def whole_number(text: str, least: int, most: int, fault: str, base: int = 10) -> int:
    """The value of an option. Raises `argparse.ArgumentTypeError` with the sentence ``fault``."""
    try:
        number = int(text, base)
    except ValueError:
        raise argparse.ArgumentTypeError(fault) from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(fault)
    return number


def _shard_size(text: str) -> int:
    return whole_number(text, 1 << 10, 1 << 50, "must be a number between 1024 bytes and 1 PiB")
