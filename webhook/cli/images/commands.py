"""``weightlock image``: verify the signatures and attestations of an image, from a registry or from a layout."""

from __future__ import annotations

import asyncio
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import ValidationError

from webhook.api.faults import describe
from webhook.api.images import ImageTrust
from webhook.app.errors import ExitCode, IncompleteError, UsageError
from webhook.core.images.index import rule_of
from webhook.manifests.reader import ManifestError, read_path
from webhook.provenance.attestations import SLSA
from webhook.provenance.checker import trust_of
from webhook.provenance.errors import MalformedError, ProvenanceError, RegistryUnavailableError
from webhook.provenance.images import verify_image
from webhook.provenance.registry.auth import Anonymous, DockerConfig
from webhook.provenance.registry.client import Endpoint, RegistryClient
from webhook.provenance.registry.layout import Layout
from webhook.provenance.registry.source import Reference
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Identity, Trust, TrustedKey
from webhook.provenance.trusted_root import TrustedRoot

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from webhook.provenance.images import ImageResult
    from webhook.provenance.registry.auth import Keychain

_MAX_FILE: Final = 1024 * 1024
_TYPES: Final = {
    "slsa": SLSA,
    "spdx": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "vex": "https://openvex.dev/ns",
}


def add_parser(commands: Any) -> None:
    """Register the command and its verb."""
    parser = commands.add_parser(
        "image",
        help="verify the signatures of images",
        description="Verify signatures and attestations of images, offline or from a registry.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verify = verbs.add_parser(
        "verify",
        help="verify one image",
        description="Verify an image. Exit code 0: a trusted signer released it, 1: none did, or a required "
        "attestation is missing, 2: bad input, 3: the registry is not available.",
    )
    verify.add_argument("image", metavar="REF", help="image, by digest or by tag")
    verify.add_argument(
        "--key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="trusted public key in PEM (repeatable)",
    )
    verify.add_argument(
        "--certificate-identity", default="", metavar="TEXT", help="subject of the certificate, exact"
    )
    verify.add_argument(
        "--certificate-identity-regexp", default="", metavar="RE2", help="the same as a regular expression"
    )
    verify.add_argument(
        "--certificate-oidc-issuer", default="", metavar="URL", help="issuer of the identity, exact"
    )
    verify.add_argument(
        "--certificate-oidc-issuer-regexp", default="", metavar="RE2", help="the same as a regular expression"
    )
    verify.add_argument(
        "--trusted-root", type=Path, metavar="FILE", help="trusted root file of the Sigstore instance"
    )
    verify.add_argument(
        "--require-log", action="store_true", help="require a log entry also for signatures by a key"
    )
    verify.add_argument(
        "--trust",
        type=Path,
        metavar="PATH",
        help="manifests of ImageTrust objects instead of the arguments above",
    )
    verify.add_argument(
        "--attestation",
        action="append",
        default=[],
        metavar="TYPE",
        help="required attestation: slsa, spdx, cyclonedx, vex or a predicate type (repeatable)",
    )
    add_registry_arguments(verify)
    verify.add_argument("-o", "--output", choices=["text", "json"], default="text")
    verify.set_defaults(run=run_verify)


def add_registry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where images are read."""
    parser.add_argument(
        "--registry-layout",
        type=Path,
        metavar="DIR",
        help="read images from an OCI layout; contact no registry",
    )
    parser.add_argument(
        "--registry-config", type=Path, metavar="FILE", help="credentials, as config.json of Docker"
    )
    parser.add_argument("--registry-ca", type=Path, metavar="FILE", help="CA of the registry in PEM")
    parser.add_argument(
        "--registry-mirror", action="append", default=[], metavar="URL", help="mirror (repeatable)"
    )
    parser.add_argument("--plain-http", action="store_true", help="contact the registry without TLS")


def run_verify(options: argparse.Namespace) -> int:
    """Verify one image and print the result."""
    try:
        image = Reference.parse(options.image)
        trusts = _trusts(options, image)
    except MalformedError as error:
        raise UsageError(str(error)) from None
    results = asyncio.run(_verify(options, image, trusts))
    types = [_TYPES.get(name, name) for name in options.attestation]
    best = min(results, key=lambda result: bool(result.reason))
    lacking = [name for name in types if name not in {item.type for item in best.attestations}]
    if options.output == "json":
        sys.stdout.write(
            orjson.dumps(_json(image, best, lacking), option=orjson.OPT_INDENT_2).decode() + "\n"
        )
    else:
        _print(image, best, lacking)
    return ExitCode.SUCCESS if best.verified and not lacking else ExitCode.VERDICT


async def _verify(
    options: argparse.Namespace, image: Reference, trusts: Sequence[Trust]
) -> list[ImageResult]:
    now = datetime.now(UTC)
    if options.registry_layout is not None:
        try:
            return await verify_image(Layout(options.registry_layout), image, trusts, now)
        except RegistryUnavailableError as error:
            raise IncompleteError(str(error)) from None
        except ProvenanceError as error:
            raise UsageError(f"{options.registry_layout}: {error}") from None
    client = RegistryClient(keychain_of(options.registry_config), {image.registry: _endpoint(options)})
    try:
        return await verify_image(client, image, trusts, now)
    except ProvenanceError as error:
        raise IncompleteError(f"cannot verify {image}: {error}") from None
    finally:
        await client.close()


def keychain_of(path: Path | None) -> Keychain:
    """Return the credentials of a file. Raises `UsageError`."""
    if path is None:
        return Anonymous()
    try:
        return DockerConfig(read_file(path), helpers=True)
    except MalformedError as error:
        raise UsageError(f"{path}: {error}") from None


def _endpoint(options: argparse.Namespace) -> Endpoint:
    tls = None
    if options.registry_ca is not None:
        try:
            tls = ssl.create_default_context(cafile=str(options.registry_ca))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{options.registry_ca}: cannot read the CA: {error}") from None
    mirrors = tuple(mirror.rstrip("/") for mirror in options.registry_mirror)
    return Endpoint(mirrors, plain_http=options.plain_http, tls=tls)


def _trusts(options: argparse.Namespace, image: Reference) -> list[Trust]:
    """Return the trust of the arguments, or of the ImageTrust objects that cover the image. Raises `UsageError`."""
    by_hand = bool(options.key or options.certificate_identity or options.certificate_identity_regexp)
    if options.trust is not None:
        if by_hand:
            raise UsageError("--trust excludes --key and --certificate-identity")
        return _from_manifests(options.trust, image)
    if not by_hand:
        raise UsageError("name a trusted signer: --key, --certificate-identity or --trust")
    root = (
        TrustedRoot.from_json(read_file(options.trusted_root)) if options.trusted_root is not None else None
    )
    keys = tuple(TrustedKey(load_public_key(read_file(path))) for path in options.key)
    identities: tuple[Identity, ...] = ()
    if options.certificate_identity or options.certificate_identity_regexp:
        identities = (
            Identity(
                options.certificate_oidc_issuer,
                options.certificate_identity,
                options.certificate_oidc_issuer_regexp,
                options.certificate_identity_regexp,
            ),
        )
        if root is None:
            raise UsageError(
                "--certificate-identity needs --trusted-root FILE, as `cosign trusted-root create` writes it"
            )
    return [Trust(keys, identities, root, options.require_log)]


def _from_manifests(path: Path, image: Reference) -> list[Trust]:
    trusts = []
    try:
        for manifest in read_path(path):
            if manifest.document.get("kind") != "ImageTrust":
                continue
            resource = ImageTrust.model_validate(manifest.document)
            if any(pattern.fullmatch(image.name) for pattern in rule_of(resource).patterns):
                trusts.append(trust_of(resource.spec))
    except (ManifestError, OSError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {describe(error)}") from None
    if not trusts:
        raise UsageError(f"{path}: no ImageTrust covers {image.name}")
    return trusts


def read_file(path: Path) -> bytes:
    """Return the content of a small file. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise UsageError(f"{path}: larger than 1 MiB")
    return content


def _json(image: Reference, result: ImageResult, lacking: Sequence[str]) -> dict[str, Any]:
    attestations: dict[str, list[Any]] = {}
    for item in result.attestations:
        attestations.setdefault(item.type, []).append(item.predicate)
    return {
        "reference": str(image),
        "digest": result.digest,
        "verified": result.verified and not lacking,
        "signers": [
            {"key": item.key} if item.key else {"issuer": item.issuer, "subject": item.subject}
            for item in result.signers
        ],
        "attestations": attestations,
        "missingAttestations": list(lacking),
        "reason": result.reason,
        "message": result.message,
    }


def _print(image: Reference, result: ImageResult, lacking: Sequence[str]) -> None:
    print(
        f"{image.name}@{result.digest}: {'verified' if result.verified and not lacking else 'not verified'}"
    )
    for signer in result.signers:
        print(f"  signed by {signer}")
    for item in result.attestations:
        print(f"  attestation {item.type}")
    if result.reason:
        print(f"  {result.reason}: {result.message}")
    for name in lacking:
        print(f"  missing attestation {name}")
