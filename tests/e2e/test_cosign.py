"""cosign signs in a real registry, with keys and with a private Sigstore, and our verifiers accept and deny.

{annotations by cosign 2, annotations by cosign 3, bundle v0.3} x {key, CI identity, user identity} x {signature, SLSA,
SBOM} x {good, wrong signer, tampered, expired, missing, revoked trust}. Annotations cannot hold entries of Rekor v2,
and no server of Rekor v1 runs here, so cosign 2 uploads nothing and its certificates have a timestamp. Entries of
Rekor v1 are in the unit tests. A certificate that expired before the signature cannot be made here: `expired` removes
the proof of the time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from harness.cluster import Result, run
from harness.process import Reaper
from harness.registry import Registry, registry_program
from harness.sigstore import COSIGN_2, Cosign, Sigstore, programs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.signed_images import INDEX  # noqa: E402
from tests.support.sigstore_world import new_key, pem  # noqa: E402
from webhook.provenance.errors import UntrustedError, WrongSignerError  # noqa: E402
from webhook.provenance.images import ImageResult, verify_image  # noqa: E402
from webhook.provenance.models import ModelTrust, verify  # noqa: E402
from webhook.provenance.registry.client import Endpoint, RegistryClient  # noqa: E402
from webhook.provenance.registry.source import Reference  # noqa: E402
from webhook.provenance.signatures import load_public_key  # noqa: E402
from webhook.provenance.trust import Identity, Trust, TrustedKey  # noqa: E402
from webhook.provenance.trusted_root import TrustedRoot  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMS, SIGNERS = ("cosign 2", "annotations", "bundle"), ("key", "keyless", "private")
KINDS = {"signature": "", "SLSA": "slsaprovenance1", "SBOM": "spdxjson"}
TYPES = {"SLSA": "https://slsa.dev/provenance/v1", "SBOM": "https://spdx.dev/Document"}
STATES = ("good", "wrong signer", "tampered", "expired", "missing", "revoked trust")
EMAIL = "release@example.com"
PREDICATES = {
    "slsaprovenance1": {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {"workflow": {"ref": "refs/heads/main"}},
            "resolvedDependencies": [],
        },
        "runDetails": {
            "builder": {"id": "https://github.com/actions/runner/github-hosted"},
            "metadata": {"invocationId": "1"},
        },
    },
    "spdxjson": {
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "dataLicense": "CC0-1.0",
        "name": "trainer",
        "documentNamespace": "https://example.com/sbom",
        "creationInfo": {"created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"]},
        "packages": [],
    },
}
EXPECTED = {
    "wrong signer": {"WrongSigner"},
    "tampered": {"Tampered", "WrongSigner"},
    "expired": {"Expired"},
    "missing": {"Unsigned"},
    "revoked trust": {"Untrusted", "WrongSigner"},
}


class World:
    """cosign, a registry and a private Sigstore, with one signed image for each form, signer and kind."""

    def __init__(
        self, directory: Path, binaries: Path, cosign2: Path | None, registry: Path, reaper: Reaper
    ) -> None:
        self.registry = Registry(registry, directory / "registry", reaper)
        self.sigstore = Sigstore(directory / "sigstore", binaries, reaper)
        self.cosign = Cosign(binaries / "cosign", directory / "cosign")
        self.cosign2 = cosign2 and Cosign(cosign2 / "cosign2", directory / "cosign")
        self._images: dict[tuple[str, ...], str] = {}
        self.number = 0

    def start(self) -> World:
        self.registry.start()
        self.sigstore.start()
        self.key = self.cosign.key_pair("release")
        for name, predicate in PREDICATES.items():
            (self.cosign.directory / f"{name}.json").write_text(json.dumps(predicate))
        return self

    def stop(self) -> None:
        self.sigstore.stop()
        self.registry.stop()

    def new_image(self) -> tuple[str, str]:
        """Push an image to a repository of its own. Return the repository and the digest."""
        self.number += 1
        repository = f"acme/image{self.number}"
        return repository, self.registry.push(repository, f"image {self.number}")

    def signed(self, form: str, signer: str, kind: str) -> tuple[str, str]:
        """Return the repository and the digest of an image with one signature or attestation."""
        key = (form, signer, kind)
        if key not in self._images:
            repository, digest = self.new_image()
            self.sign(f"{self.registry.address}/{repository}@{digest}", form, signer, KINDS[kind])
            self._images[key] = f"{repository}@{digest}"
        repository, _, digest = self._images[key].partition("@")
        return repository, digest

    def sign(self, image: str, form: str, signer: str, predicate: str, key: Path | None = None) -> None:
        """Sign an image, or attest a predicate."""
        command = ["attest", "--type", predicate, "--predicate", f"{self.cosign.directory}/{predicate}.json"]
        words = [*(command if predicate else ["sign"]), *self._form(form, signer)]
        if signer == "key":
            words += ["--key", str(key or self.key.with_suffix(".key"))]
        elif signer == "keyless":
            words += ["--identity-token", self.sigstore.workflow_token()]
        else:
            words += ["--identity-token", self.sigstore.token(EMAIL)]
        cosign = self.version_2() if form == "cosign 2" else self.cosign
        cosign.run(*words, image, SIGSTORE_CT_LOG_PUBLIC_KEY_FILE=str(self.sigstore.ct_key)).ok()

    def version_2(self) -> Cosign:
        """Return cosign 2. Without it, the tests of its annotations are skipped."""
        if self.cosign2 is None:
            pytest.skip("cosign 2 is not here: make sigstore builds it")
        return self.cosign2

    def _form(self, form: str, signer: str) -> list[str]:
        if form == "bundle":
            # The user's Sigstore has no log.
            config = self.sigstore.signing_config(log=signer != "private")
            root = self.sigstore.root_file(log=signer != "private")
            return ["--signing-config", str(config), "--trusted-root", str(root)]
        # The default of cosign 2 is what cosign 3 has to be asked for.
        old = ["--new-bundle-format=false", "--use-signing-config=false"] if form == "annotations" else []
        return [
            *old,
            "--tlog-upload=false",
            f"--timestamp-server-url={self.sigstore.url('timestamp-server')}/api/v1/timestamp",
            *([f"--fulcio-url={self.sigstore.url('fulcio')}"] if signer != "key" else []),
        ]

    def trust(self, form: str, signer: str, state: str) -> Trust:
        """Return whom a rule trusts."""
        now = datetime.now(UTC)
        log = form == "bundle" and signer != "private"
        if signer == "key":
            root = TrustedRoot.from_json(json.dumps(self.sigstore.trusted_root(log=log)).encode())
            other = state in ("wrong signer", "revoked trust")
            key = load_public_key(pem(new_key()) if other else self.key.read_bytes())
            return Trust(
                keys=(TrustedKey(key, now - timedelta(days=1) if state == "expired" else None),), root=root
            )
        ended = now - timedelta(days=1) if state == "revoked trust" else None
        root = TrustedRoot.from_json(json.dumps(self.sigstore.trusted_root(log=log, ended=ended)).encode())
        issuer = self.sigstore.pipelines.url if signer == "keyless" else self.sigstore.people.url
        subject = EMAIL if signer == "private" else ""
        pattern = r"https://github\.com/acme/[a-z]+/\.github/workflows/release\.yml@refs/heads/main"
        if state == "wrong signer":
            subject, pattern = (
                ("eve@example.com", "") if signer == "private" else ("", "https://github.com/acme")
            )
        return Trust(identities=(Identity(issuer, subject, "", "" if subject else pattern),), root=root)

    def verify(self, repository: str, digest: str, trust: Trust) -> ImageResult:
        """Verify an image of the registry."""

        async def verify() -> ImageResult:
            client = RegistryClient(None, {self.registry.address: Endpoint(plain_http=True)})
            try:
                image = Reference.parse(f"{self.registry.address}/{repository}@{digest}")
                return (await verify_image(client, image, [trust], datetime.now(UTC)))[0]
            finally:
                await client.close()

        return asyncio.run(verify())

    # Changes of what is stored

    def changed(self, form: str, kind: str, repository: str, digest: str, state: str) -> str:
        """Copy an image with a changed signature into another repository, and return that."""
        self.number += 1
        target = f"acme/changed{self.number}"
        self._copy(repository, target, self._manifest(repository, digest), digest)
        tag = f"{digest.replace(':', '-')}.{'sig' if kind == 'signature' else 'att'}"
        for name in [tag] if form != "bundle" else self._referrers(repository, digest):
            manifest = self._manifest(repository, name)
            for layer in manifest["layers"]:
                content = self._get(f"{repository}/blobs/{layer['digest']}").content
                content, annotations = _change(content, layer.get("annotations", {}), state)
                layer.update(self.registry._blob(self._base(target), content, layer["mediaType"]))
                if annotations:
                    layer["annotations"] = annotations
            self._copy(repository, target, {**manifest, "layers": []}, "")
            if form != "bundle":
                self.registry.put(target, manifest, tag)
                continue
            stored = self.registry.put(target, manifest, f"bundle{self.number}")
            # This registry has no referrers API.
            entry = {
                "mediaType": manifest["mediaType"],
                "digest": stored,
                "size": len(json.dumps(manifest).encode()),
                "artifactType": manifest["artifactType"],
            }
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
            self.registry.put(target, index, digest.replace(":", "-", 1))
        return target

    def _copy(self, source: str, target: str, manifest: dict[str, Any], digest: str) -> None:
        for blob in [manifest["config"], *manifest["layers"]]:
            content = self._get(f"{source}/blobs/{blob['digest']}").content
            self.registry._blob(self._base(target), content, blob["mediaType"])
        if digest:
            answer = requests.put(
                f"{self._base(target)}/manifests/{digest}",
                data=self._get(f"{source}/manifests/{digest}").content,
                headers={"Content-Type": manifest["mediaType"]},
                timeout=30,
            )
            assert answer.status_code == 201, answer.text

    def _base(self, repository: str) -> str:
        return f"http://{self.registry.address}/v2/{repository}"

    def _get(self, path: str) -> requests.Response:
        accept = {
            "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        }
        answer = requests.get(
            f"http://{self.registry.address}/v2/{path}",
            headers=accept if "/manifests/" in path else {},
            timeout=30,
        )
        answer.raise_for_status()
        return answer

    def _manifest(self, repository: str, name: str) -> dict[str, Any]:
        return dict(self._get(f"{repository}/manifests/{name}").json())

    def _referrers(self, repository: str, digest: str) -> list[str]:
        answer = requests.get(f"{self._base(repository)}/referrers/{digest}", timeout=30)
        listed = (
            answer.json()
            if answer.status_code == 200
            else self._manifest(repository, digest.replace(":", "-", 1))
        )
        return [str(item["digest"]) for item in listed["manifests"]]


def _change(content: bytes, annotations: dict[str, str], state: str) -> tuple[bytes, dict[str, str]]:
    """Change what is signed, or remove the proof of its time."""
    document = json.loads(content)
    if state == "expired":
        kept = {
            name: text
            for name, text in annotations.items()
            if "timestamp" not in name and "bundle" not in name
        }
        if "verificationMaterial" in document:
            document["verificationMaterial"].pop("timestampVerificationData", None)
            return json.dumps(document).encode(), kept
        return content, kept
    envelope = document.get("dsseEnvelope", document)
    if "payload" not in envelope:
        return content.replace(
            b"cosign container image signature", b"cosign container image Signature"
        ), annotations
    payload = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(
        payload.replace(b'"predicateType"', b'"a":1,"predicateType"')
    ).decode()
    return json.dumps(document).encode(), annotations


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    binaries, registry = programs(), registry_program()
    if binaries is None or registry is None:
        pytest.skip("cosign, a Sigstore or a registry is not here: make sigstore registry builds them")
    reaper = Reaper()
    world = World(tmp_path_factory.mktemp("world"), binaries, programs(COSIGN_2), registry, reaper)
    try:
        yield world.start()
    finally:
        world.stop()
        reaper.close()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("form", FORMS)
def test_matrix(world: World, form: str, signer: str, kind: str, state: str) -> None:
    repository, digest = world.new_image() if state == "missing" else world.signed(form, signer, kind)
    if state == "tampered" or (state == "expired" and signer != "key"):
        repository = world.changed(form, kind, repository, digest, state)
    result = world.verify(repository, digest, world.trust(form, signer, state))
    if state != "good":
        assert result.reason in EXPECTED[state], result
        assert not result.signers
        assert not result.attestations
        return
    assert [item.type for item in result.attestations] == ([] if kind == "signature" else [TYPES[kind]]), (
        result
    )
    if kind == "SBOM":
        assert result.reason == "Unsigned"
        return
    assert result.verified, result
    (found,) = result.signers
    if signer == "keyless":
        assert found.subject == (
            "https://github.com/acme/trainer/.github/workflows/release.yml@refs/heads/main"
        )
        assert found.issuer == world.sigstore.pipelines.url
    elif signer == "private":
        assert (found.subject, found.issuer) == (EMAIL, world.sigstore.people.url)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("cosign 2", "p384"),
        ("cosign 2", "rsa"),
        ("cosign 2", "ed25519"),
        ("annotations", "p384"),
        ("annotations", "rsa"),
        ("bundle", "p384"),
        ("bundle", "rsa"),
        # cosign 3.1.3 cannot verify its own bundle by an Ed25519 key, so it stores none.
        ("annotations", "ed25519"),
    ],
)
def test_each_kind_of_key(world: World, form: str, name: str) -> None:
    """Keys that cosign imports. Its Ed25519 keys sign the digest of a message (Ed25519ph)."""
    keys = {
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 3072),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    public = world.cosign.directory / f"{name}.pub"
    if not public.exists():
        world.cosign.import_key(name, keys[name]())
    repository, digest = world.new_image()
    image = f"{world.registry.address}/{repository}@{digest}"
    world.sign(image, form, "key", "", public.with_suffix(".key"))
    root = TrustedRoot.from_json(json.dumps(world.sigstore.trusted_root(log=form == "bundle")).encode())
    trust = Trust(keys=(TrustedKey(load_public_key(public.read_bytes())),), root=root)
    result = world.verify(repository, digest, trust)
    assert result.verified, result


@pytest.mark.parametrize("without", ["ctlogs", "tlogs", "timestampAuthorities"])
def test_a_root_without_a_part(world: World, without: str) -> None:
    """Without a part in the trusted root, its proof is not required. Only the time of Rekor v2 needs the authority."""
    repository, digest = world.signed("bundle", "keyless", "signature")
    trust = world.trust("bundle", "keyless", "good")
    root = TrustedRoot.from_json(json.dumps(world.sigstore.trusted_root(without=without)).encode())
    result = world.verify(repository, digest, Trust(identities=trust.identities, root=root))
    assert result.verified == (without != "timestampAuthorities"), result


def test_cosign_agrees(world: World) -> None:
    """cosign verifies the same images with the same root."""
    repository, digest = world.signed("bundle", "private", "signature")
    image = f"{world.registry.address}/{repository}@{digest}"
    words = ["verify", "--trusted-root", str(world.sigstore.root_file(log=False)), "--use-signed-timestamps"]
    words += ["--certificate-oidc-issuer", world.sigstore.people.url, "--insecure-ignore-tlog"]
    world.cosign.run(*words, "--certificate-identity", EMAIL, image).ok()
    world.cosign.run(*words, "--certificate-identity", "eve@example.com", image).failed()


@pytest.mark.parametrize("signer", ["key", "private"])
def test_cosign_2_agrees(world: World, signer: str) -> None:
    """cosign 2 verifies the annotations of cosign 3, and its own, as we do."""
    cosign = world.version_2()
    words = ["verify", "--insecure-ignore-tlog", "--private-infrastructure"]
    if signer == "key":
        good, wrong = ["--key", str(world.key)], ["--key", str(world.cosign.key_pair(f"other-{signer}"))]
    else:
        root = str(world.sigstore.root_file(log=False))
        words += ["--trusted-root", root, "--use-signed-timestamps"]
        words += ["--certificate-oidc-issuer", world.sigstore.people.url]
        good, wrong = (["--certificate-identity", name] for name in (EMAIL, "eve@example.com"))
    for form in ("cosign 2", "annotations"):
        repository, digest = world.signed(form, signer, "signature")
        image = f"{world.registry.address}/{repository}@{digest}"
        cosign.run(*words, *good, image).ok()
        cosign.run(*words, *wrong, image).failed()


# Models


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory with two files."""
    directory = tmp_path / "model"
    directory.mkdir()
    for number in range(2):
        (directory / f"model-{number}.safetensors").write_bytes(f"weights {number}".encode() * 1000)
    return directory


def tool(*words: str | Path, **environment: str) -> Result:
    """Run a Python module of this environment."""
    return run([sys.executable, "-m", *map(str, words)], environment={**os.environ, **environment})


def test_our_signature_of_a_model(world: World, model: Path, tmp_path: Path) -> None:
    """`weights sign --keyless` with the real Fulcio, Rekor v2 and timestamp authority. Three verifiers agree."""
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    token = tmp_path / "token"
    token.write_text(world.sigstore.token(EMAIL))
    words = ["webhook.cli.main", "weights", "sign", model, "--keyless", "--identity-token", token]
    signature = tmp_path / "model.sig"
    tool(*words, "--signature", signature, "--trust-config", world.sigstore.client_config()).ok()
    root = TrustedRoot.from_json(json.dumps(world.sigstore.trusted_root()).encode())

    def trust(subject: str) -> ModelTrust:
        return ModelTrust(Trust(identities=(Identity(world.sigstore.people.url, subject),), root=root))

    signed = verify(signature.read_bytes(), trust(EMAIL), datetime.now(UTC))
    assert set(signed.files) == {"model-0.safetensors", "model-1.safetensors"}
    with pytest.raises(WrongSignerError):
        verify(signature.read_bytes(), trust("eve@example.com"), datetime.now(UTC))
    theirs = ["model_signing", "verify", "sigstore", model, "--signature", signature]
    theirs += ["--trust_config", str(world.sigstore.client_config())]
    theirs += ["--identity_provider", world.sigstore.people.url]
    tool(*theirs, "--identity", EMAIL).ok()
    tool(*theirs, "--identity", "eve@example.com").failed()
    words = ["verify-blob-attestation", "--bundle", str(signature), "--check-claims=false"]
    words += ["--trusted-root", str(world.sigstore.root_file()), "--use-signed-timestamps"]
    words += ["--type", "https://model_signing/signature/v1.0"]
    words += ["--certificate-oidc-issuer", world.sigstore.people.url]
    world.cosign.run(*words, "--certificate-identity", EMAIL).ok()
    world.cosign.run(*words, "--certificate-identity", "eve@example.com").failed()


def test_their_signature_of_a_model(world: World, model: Path, tmp_path: Path) -> None:
    """model-signing signs with the real Sigstore, and our verifier accepts it until its CA is revoked."""
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    signature = model / "model.sig"
    words = ["model_signing", "sign", "sigstore", model, "--signature", signature]
    words += ["--identity_token", world.sigstore.token(EMAIL)]
    # It reads the issuer's discovery document, also with a token.
    authority = str(world.sigstore.people.certificate)
    config = world.sigstore.client_config()
    tool(*words, "--trust_config", config, REQUESTS_CA_BUNDLE=authority, SSL_CERT_FILE=authority).ok()
    root = TrustedRoot.from_json(json.dumps(world.sigstore.trusted_root()).encode())
    identities = (Identity(world.sigstore.people.url, EMAIL),)
    trust = ModelTrust(Trust(identities=identities, root=root))
    signed = verify(signature.read_bytes(), trust, datetime.now(UTC))
    assert set(signed.files) == {"model-0.safetensors", "model-1.safetensors"}
    ended = datetime.now(UTC) - timedelta(days=1)
    root = TrustedRoot.from_json(json.dumps(world.sigstore.trusted_root(ended=ended)).encode())
    with pytest.raises(UntrustedError):
        verify(signature.read_bytes(), ModelTrust(Trust(identities=identities, root=root)), datetime.now(UTC))
