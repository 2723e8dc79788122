"""Real signers and a real registry: cosign, the registry of the distribution project, and a private Sigstore.

The Sigstore consists of Fulcio with a file CA, a certificate log (TesseraCT), Rekor v2 and a timestamp authority, each
as a process on 127.0.0.1. Its trusted root is the only thing that a verifier needs of it.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from harness.cluster import Result, run
from harness.oidc import Issuer
from harness.process import Component, Reaper, free_port
from harness.programs import ROOT

BUILDER = ROOT / "tests" / "tools" / "sigstoreparts.py"
COSIGN_2 = ROOT / "tests" / "tools" / "cosign2.py"
START = "2020-01-01T00:00:00Z"
AUDIENCE = "sigstore"
_READY_SECONDS = 60.0
_PASSWORD = "of-the-tests"
_WORKFLOW = "acme/trainer/.github/workflows/release.yml@refs/heads/main"


def programs(builder: Path = BUILDER) -> Path | None:
    """Return the directory of the programs that a builder makes, or None if they are not built."""
    answer = subprocess.run(
        [sys.executable, builder, "--find"], capture_output=True, text=True, check=False, timeout=60
    )
    return Path(answer.stdout.strip().splitlines()[-1]) if answer.returncode == 0 else None


class Cosign:
    """cosign with a home directory of its own. It contacts nothing that it is not given."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "HOME": str(directory),
            "PATH": os.environ["PATH"],
            "COSIGN_PASSWORD": _PASSWORD,
            "COSIGN_YES": "true",
            "DOCKER_CONFIG": str(directory),
        }

    def run(self, *arguments: str | Path, **environment: str) -> Result:
        """Run cosign in its directory."""
        command = [str(self._program), *map(str, arguments)]
        return run(command, environment={**self._environment, **environment})

    def key_pair(self, name: str) -> Path:
        """Generate a key pair, and return the public key's file. The private key is beside it."""
        self.run("generate-key-pair", "--output-key-prefix", self.directory / name).ok()
        return self.directory / f"{name}.pub"

    def import_key(self, name: str, key: Any) -> Path:
        """Import a private key, and return the public key's file."""
        source = self.directory / f"{name}.pem"
        source.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.run("import-key-pair", "--key", source, "--output-key-prefix", self.directory / name).ok()
        return self.directory / f"{name}.pub"


class Sigstore:
    """A private Sigstore. `start` it, give cosign a token and the signing configuration, `stop` it."""

    def __init__(self, directory: Path, binaries: Path, reaper: Reaper) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._binaries = binaries
        self._reaper = reaper
        self._components: list[Component] = []
        self.people, self.pipelines = Issuer(directory / "people"), Issuer(directory / "pipelines")
        self._ports = {name: free_port() for name in ("fulcio", "rekor", "tesseract", "timestamp-server")}
        self._urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca = _root("private sigstore", self._ca_key)
        self._ct_key = ec.generate_private_key(ec.SECP256R1())
        self._rekor_key = ed25519.Ed25519PrivateKey.generate()

    # Processes

    def start(self) -> "Sigstore":
        """Start all parts, in the order in which they need each other."""
        self.people.start()
        self.pipelines.start()
        self._write_keys()
        self._start_certificate_log()
        self._start_fulcio()
        self._start_rekor()
        self._start_timestamps()
        return self

    def stop(self) -> None:
        """Stop all parts."""
        for component in reversed(self._components):
            component.stop()
        self.people.stop()
        self.pipelines.stop()

    def _write_keys(self) -> None:
        encrypted = self._ca_key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_PASSWORD.encode())
        )
        files = {
            "ca.pem": self._ca.public_bytes(Encoding.PEM),
            "ca.key": encrypted,
            "ct.key": self._ct_key.private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
            ),
            "ct.pub": self._ct_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "rekor.key": self._rekor_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        }
        for name, content in files.items():
            (self._directory / name).write_bytes(content)

    def _start(self, name: str, probe: str, *arguments: str, **environment: str) -> None:
        component = Component(name, self._directory / f"{name}.log", self._reaper)
        self._components.append(component)
        component.start(
            [self._binaries / name, *arguments],
            {"HOME": str(self._directory), "PATH": os.environ["PATH"], **environment},
        )
        component.wait_ready(lambda: _get(f"{self._urls[name]}{probe}").ok, _READY_SECONDS)

    def _start_certificate_log(self) -> None:
        self._start(
            "tesseract",
            "/ct/v1/get-roots",
            f"--private_key={self._directory / 'ct.key'}",
            "--origin=ct.test",
            f"--storage_dir={self._directory / 'ct'}",
            f"--roots_pem_file={self._directory / 'ca.pem'}",
            "--ext_key_usages=CodeSigning",
            f"--http_endpoint=127.0.0.1:{self._ports['tesseract']}",
            "--checkpoint_interval=100ms",
        )

    def _start_fulcio(self) -> None:
        # Fulcio reads JSON before YAML, and the names of fields differ between the two.
        config = {
            "OIDCIssuers": {
                issuer.url: {
                    "IssuerURL": issuer.url,
                    "ClientID": AUDIENCE,
                    "Type": kind,
                    "CACert": issuer.certificate.read_text(),
                }
                for issuer, kind in ((self.people, "email"), (self.pipelines, "github-workflow"))
            }
        }
        (self._directory / "fulcio.yaml").write_text(json.dumps(config))
        self._start(
            "fulcio",
            "/healthz",
            "serve",
            "--host=127.0.0.1",
            f"--port={self._ports['fulcio']}",
            "--grpc-host=127.0.0.1",
            f"--grpc-port={free_port()}",
            f"--metrics-port={free_port()}",
            f"--legacy-unix-domain-socket={self._directory / 'fulcio.sock'}",
            "--ca=fileca",
            f"--fileca-cert={self._directory / 'ca.pem'}",
            f"--fileca-key={self._directory / 'ca.key'}",
            f"--fileca-key-passwd={_PASSWORD}",
            "--fileca-watch=false",
            f"--ct-log-url={self._urls['tesseract']}",
            f"--ct-log-public-key-path={self._directory / 'ct.pub'}",
            f"--config-path={self._directory / 'fulcio.yaml'}",
        )

    def _start_rekor(self) -> None:
        self._start(
            "rekor",
            "/healthz",
            "serve",
            f"--http-port={self._ports['rekor']}",
            f"--grpc-port={free_port()}",
            f"--http-metrics-port={free_port()}",
            "--hostname=rekor.test",
            f"--storage-dir={self._directory / 'rekor'}",
            f"--signer-filepath={self._directory / 'rekor.key'}",
            "--checkpoint-interval=500ms",
            "--batch-max-age=100ms",
        )

    def _start_timestamps(self) -> None:
        self._start(
            "timestamp-server",
            "/ping",
            "serve",
            "--host=127.0.0.1",
            f"--port={self._ports['timestamp-server']}",
            "--timestamp-signer=memory",
            "--disable-ntp-monitoring",
        )

    # What clients need

    def token(self, email: str) -> str:
        """Return a token of a person."""
        return self.people.token(email, aud=AUDIENCE, email=email, email_verified=True)

    def workflow_token(self, workflow: str = _WORKFLOW) -> str:
        """Return a token of a CI job, with the claims of GitHub Actions."""
        repository = "/".join(workflow.split("/")[:2])
        ref = workflow.partition("@")[2]
        return self.pipelines.token(
            "job",
            aud=AUDIENCE,
            sub=f"repo:{repository}:ref:{ref}",
            job_workflow_ref=workflow,
            job_workflow_sha="1" * 40,
            sha="1" * 40,
            event_name="push",
            repository=repository,
            repository_id="1",
            repository_owner=repository.partition("/")[0],
            repository_owner_id="2",
            repository_visibility="private",
            workflow="release",
            workflow_ref=workflow,
            workflow_sha="1" * 40,
            ref=ref,
            runner_environment="github-hosted",
            run_id="3",
            run_attempt="1",
        )

    def signing_config(self, *, log: bool = True) -> Path:
        """Write a signing configuration for cosign; without ``log``, signatures have only a timestamp."""

        def service(name: str, version: int, path: str = "") -> dict[str, Any]:
            return {
                "url": f"{self._urls[name]}{path}",
                "majorApiVersion": version,
                "validFor": {"start": START},
                "operator": "test",
            }

        config: dict[str, Any] = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service("fulcio", 1)],
            "tsaUrls": [service("timestamp-server", 1, "/api/v1/timestamp")],
            "tsaConfig": {"selector": "ANY"},
        }
        if log:
            config |= {
                "rekorTlogUrls": [service("rekor", 2)],
                "rekorTlogConfig": {"selector": "ANY"},
            }
        file = self._directory / f"signing-{'log' if log else 'stamp'}.json"
        file.write_text(json.dumps(config))
        return file

    def client_config(self) -> Path:
        """Write the client trust configuration: the trusted root and the signing configuration in one file."""
        file = self._directory / "client.json"
        document = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": json.loads(self.signing_config().read_text())
            | {"oidcUrls": [_oidc(self.people.url)]},
        }
        file.write_text(json.dumps(document))
        return file

    @property
    def ct_key(self) -> Path:
        """The public key of the certificate log, in PEM."""
        return self._directory / "ct.pub"

    def url(self, name: str) -> str:
        """Return the URL of a part."""
        return self._urls[name]

    def trusted_root(
        self, *, log: bool = True, ended: datetime | None = None, without: str = ""
    ) -> dict[str, Any]:
        """Return the trusted root: without Rekor, with a CA that is no longer trusted, or without a section."""
        chain = _get(f"{self._urls['timestamp-server']}/api/v1/timestamp/certchain").content
        end = {"end": ended.strftime("%Y-%m-%dT%H:%M:%SZ")} if ended is not None else {}
        rekor = self._rekor_key.public_key()
        raw = rekor.public_bytes(Encoding.Raw, PublicFormat.Raw)
        root: dict[str, Any] = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [
                {
                    "subject": {"organization": "acme", "commonName": "private sigstore"},
                    "uri": self._urls["fulcio"],
                    "certChain": _chain([self._ca]),
                    "validFor": {"start": START, **end},
                }
            ],
            "ctlogs": [_log("ct.test", self._ct_key.public_key(), "PKIX_ECDSA_P256_SHA_256")],
            "timestampAuthorities": [
                {
                    "subject": {"organization": "acme", "commonName": "timestamps"},
                    "uri": self._urls["timestamp-server"],
                    "certChain": _chain(x509.load_pem_x509_certificates(chain)),
                    "validFor": {"start": START},
                }
            ],
        }
        if log:
            entry = _log("rekor.test", rekor, "PKIX_ED25519")
            entry["logId"] = {"keyId": _b64(hashlib.sha256(b"rekor.test\n\x01" + raw).digest())}
            root["tlogs"] = [entry]
        root.pop(without, None)
        return root

    def root_file(self, **options: Any) -> Path:
        """Write the trusted root to a file."""
        file = self._directory / f"root-{time.monotonic_ns()}.json"
        file.write_text(json.dumps(self.trusted_root(**options)))
        return file


def _oidc(url: str) -> dict[str, Any]:
    return {"url": url, "majorApiVersion": 1, "validFor": {"start": START}, "operator": "test"}


def _get(url: str) -> requests.Response:
    try:
        return requests.get(url, timeout=10)
    except requests.ConnectionError as error:
        raise OSError(str(error)) from None


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _chain(certificates: list[x509.Certificate]) -> dict[str, Any]:
    return {"certificates": [{"rawBytes": _b64(item.public_bytes(Encoding.DER))} for item in certificates]}


def _log(name: str, key: Any, details: str) -> dict[str, Any]:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "baseUrl": f"https://{name}",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _b64(der), "keyDetails": details, "validFor": {"start": START}},
        "logId": {"keyId": _b64(hashlib.sha256(der).digest())},
    }


def _root(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "acme"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
