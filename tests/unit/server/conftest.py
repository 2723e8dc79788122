"""A webhook on a free port of the loopback, and a client that speaks to it over TLS or byte by byte."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.api.config import Config, Listen, Settings, Tls
from webhook.core.admission.provider import FetchedData, NotReadyError
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.server.run import Evaluation, Sockets, Webhook
from webhook.server.tls import self_signed

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def policy(expression: str = "true", name: str = "policy", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": {
            "code": "WL500",
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": expression, "message": "it is not so"}],
            **spec,
        },
    }


class FakeSource:
    """A snapshot of what it is given; ``trouble`` makes it not ready, ``answers`` is asked what it lacks."""

    def __init__(self, *documents: dict[str, Any], complete: bool = True) -> None:
        builder = SnapshotBuilder(Settings(), complete=complete, assumed_time=NOW)
        builder.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}})
        for document in documents:
            builder.put(document)
        self.state = builder.snapshot()
        self.trouble = ""
        self.needs: list[Any] = []
        self.answers: Callable[[Any], Awaitable[FetchedData]] = self._nothing
        self.seconds = 1.5

    def snapshot(self) -> Any:
        if self.trouble:
            raise NotReadyError(self.trouble)
        return self.state

    def age(self) -> float:
        return self.seconds

    async def fetch(self, needs: Any) -> FetchedData:
        self.needs.append(needs)
        return await self.answers(needs)

    async def _nothing(self, needs: Any) -> FetchedData:
        return FetchedData(objects=dict.fromkeys(needs.objects))


def review_document(**fields: Any) -> dict[str, Any]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train-7", "namespace": "research"},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/train:1"}]},
    }
    request = {
        "uid": "uid-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "train-7",
        "namespace": "research",
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["researchers"]},
        "object": pod,
        **fields,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@pytest.fixture
def make_policy() -> Callable[..., dict[str, Any]]:
    return policy


@pytest.fixture
def make_source() -> type[FakeSource]:
    return FakeSource


@pytest.fixture
def review() -> Callable[..., bytes]:
    return lambda **fields: orjson.dumps(review_document(**fields))


class Client:
    """Speaks to one webhook."""

    def __init__(self, webhook: Webhook, context: ssl.SSLContext, session: aiohttp.ClientSession) -> None:
        self.webhook = webhook
        self.context = context
        self.session = session
        self.port = int(webhook.address.rpartition(":")[2])

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with self.session.request(method, f"https://localhost:{self.port}{path}") as response:
            return response.status, await response.text()

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        inputs = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        url = f"https://localhost:{self.port}{path}"
        async with self.session.post(url, data=io.BytesIO(body), headers=inputs) as response:
            return response.status, await response.text()

    async def ask(self, body: bytes, path: str = "/validate") -> dict[str, Any]:
        status, text = await self.post(path, body)
        assert status == 200, text
        answer: dict[str, Any] = orjson.loads(text)["response"]
        return answer

    async def bytes(self, data: bytes, seconds: float = 3.0, pause: float = 0.0) -> bytes:
        """Send bytes as they are, and return whatever comes back until the connection ends or nothing more comes."""
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=self.context)
        writer.write(data)
        matches = b""
        try:
            async with asyncio.timeout(seconds):
                while chunk := await reader.read(65536):
                    matches += chunk
        except TimeoutError:
            pass
        writer.close()
        return matches


@pytest.fixture
async def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    # The clients of these tests ask nothing any more when they are done.
    monkeypatch.setattr("webhook.server.http.listener._QUIET_SECONDS", 0.0)
    async with AsyncExitStack() as stack:

        async def start(source: Any = None, *, signer: Any = None, **changes: Any) -> Client:
            produced = self_signed.make(["localhost", "127.0.0.1"])
            for name, content in (
                ("ca.crt", produced.authority),
                ("tls.crt", produced.certificate),
                ("tls.key", produced.key),
            ):
                (tmp_path / name).write_bytes(content)
            tls = {
                "certificate": str(tmp_path / "tls.crt"),
                "key": str(tmp_path / "tls.key"),
                **changes.pop("tls", {}),
            }
            listen = Listen(host="127.0.0.1", port=0)
            config = Config(listen=listen, tls=Tls.model_validate(tls), **changes)
            webhook = Webhook(config)
            evaluation = Evaluation(config, source or FakeSource(), signer, webhook.metrics)
            stack.push_async_callback(evaluation.close)
            running = webhook.running(
                Sockets.bind(config), evaluation.answer, evaluation.trouble, traced=bool(evaluation.tracer)
            )
            await stack.enter_async_context(running)
            context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
            )
            return Client(webhook, context, session)

        yield start


def client_pair(directory: Path, prefix: str, common_name: str, dns_name: str) -> None:
    """A client authority, and a certificate of it: PREFIX-ca.crt, PREFIX.crt and PREFIX.key."""
    keys = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{prefix} authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    for name, who, key, is_authority in (("-ca", issuer, keys[0], True), ("", subject, keys[1], False)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names = x509.SubjectAlternativeName([x509.DNSName(dns_name)])
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
        certificate = builder.sign(keys[0], hashes.SHA256())
        (directory / f"{prefix}{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key = keys[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (directory / f"{prefix}.key").write_bytes(key)


@pytest.fixture
def make_client_pair(tmp_path: Path) -> Callable[[str, str, str], None]:
    return lambda prefix, common_name, dns_name: client_pair(tmp_path, prefix, common_name, dns_name)
