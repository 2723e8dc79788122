"""Attestation where a model asks for it, against an issuer of ours with the claims of NVIDIA's."""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import sys
import threading
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness.waiting import eventually

from webhook.cli.processes.agent import collector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.broker import BrokerProcess
    from harness.keylab import KeyLab

_COLLECTOR = """
import hashlib, json, sys, time
import jwt

key = open({key!r}).read()
nonce, now = sys.argv[1], int(time.time())

def token(**claims):
    times = {{"iss": {issuer!r}, "iat": now, "nbf": now, "exp": now + 300, "eat_nonce": nonce}}
    return jwt.encode({{**times, **claims}}, key, algorithm="ES384", headers={{"kid": "nv"}})

gpu = token(**json.loads({claims!r}))
digest = hashlib.sha256(gpu.encode()).hexdigest()
overall = token(**{{"x-nvidia-overall-att-result": True}}, submods={{"GPU-0": ["DIGEST", ["SHA-256", digest]]}})
print(json.dumps([["JWT", overall], {{"GPU-0": gpu}}]))
"""
CHAIN = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
GPU = {
    "measres": "success",
    "secboot": True,
    "dbgstat": "disabled",
    "hwmodel": "GH100 A01 GSP BROM",
    "x-nvidia-gpu-driver-version": "575.57.08",
    "x-nvidia-gpu-attestation-report-nonce-match": True,
    "x-nvidia-gpu-attestation-report-signature-verified": True,
    "x-nvidia-gpu-attestation-report-cert-chain": CHAIN,
    "x-nvidia-gpu-driver-rim-signature-verified": True,
    "x-nvidia-gpu-driver-rim-cert-chain": CHAIN,
    "x-nvidia-gpu-vbios-rim-signature-verified": True,
    "x-nvidia-gpu-vbios-rim-cert-chain": CHAIN,
}


@pytest.fixture
def issuer(broker: BrokerProcess, tmp_path: Path) -> Iterator[Any]:
    """An attestation issuer of ours: its URL, and a function that writes an evidence command for a device's claims."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "issuer.key").write_bytes(pem)
    public = json.loads(jwt.algorithms.ECAlgorithm(hashlib.sha384).to_jwk(key.public_key()))
    document = json.dumps({"keys": [{**public, "kid": "nv"}]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: Any) -> None:
            """Not called."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = broker.certificate("issuer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving.certificate, serving.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    class Issuer:
        url = f"https://127.0.0.1:{server.server_port}"

        def command(self, **claims: Any) -> str:
            script = tmp_path / f"collect-{len(list(tmp_path.glob('collect-*')))}.py"
            device = json.dumps({**GPU, **claims})
            script.write_text(
                _COLLECTOR.format(key=str(tmp_path / "issuer.key"), issuer=self.url, claims=device)
            )
            return f"{sys.executable} {script}"

    yield Issuer()
    server.shutdown()
    thread.join()
    server.server_close()


def test_attestation(lab: KeyLab, issuer: Any, sidecar: Any) -> None:
    rule = "object.devices.all(d, d['x-nvidia-gpu-driver-version'] == '575.57.08')"
    lab.spec = {"attestation": {"required": True, "issuer": issuer.url, "rule": rule}}
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    assert lab.refusal(token).endswith("the sidecar sent no evidence [WL329]")
    for claims, output in (
        ({"measres": "fail"}, "the measurements of GPU-0 do not match (measres)"),
        ({"secboot": None}, "secboot of the token of GPU-0 is null"),
        ({"dbgstat": "enabled"}, "runs without secure boot or with debugging enabled"),
        (
            {"x-nvidia-gpu-driver-rim-cert-chain": {**CHAIN, "x-nvidia-cert-status": "revoked"}},
            "a certificate of GPU-0 is invalid (x-nvidia-cert-status)",
        ),
        ({"x-nvidia-gpu-driver-version": "550.0"}, "the devices do not meet the rule of this model"),
        ({"eat_nonce": "00" * 32}, "the token of GPU-0 was not issued for this release (nonce)"),
        ({"iss": "https://evil.example.com"}, "the token of GPU-0 is not signed by the issuer"),
    ):
        refusal = lab.refusal(token, collect=collector(issuer.command(**claims)))
        assert output in refusal
        assert refusal.endswith("[WL330]")
    agent = sidecar(lab, pod, token)
    eventually(lambda: "[WL329]" in agent.log.read_text(), "without evidence it waits", seconds=20)
    agent.stop()
    agent.arguments.append(f"--evidence-command={issuer.command()}")
    agent.start()
    eventually(agent.ready, "with evidence it is ready", seconds=20)
