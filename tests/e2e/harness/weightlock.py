"""Weightlock as a local process in front of a control plane of ours, installed as an admin would have it.

It runs the same command as the image, with a certificate of its own authority, under the identity and with
the rights that it has in a cluster.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness import manifests
from harness.cluster import Result, run
from harness.controlplane import WEBHOOK_CLIENT, ControlPlane
from harness.installed import Installed
from harness.pki import Authority
from harness.process import free_port
from harness.programs import ROOT

START_SECONDS = 90.0
POLICIES = ROOT / "policies"
COMMAND = Path(sys.executable).parent / "weightlock"


class Weightlock(Installed):
    """One Weightlock process; more than one can run beside a control plane under different names.

    `url` and `ca` reach it directly, `signing_key` is what it signs access objects with, `log` its log file;
    `broker_authority` is the CA of the key broker, and sidecars trust it.
    `settings` are those of its configuration file, `config` any other top-level keys of it, `policies` the
    directory of policies it starts with. `config` may be changed before a restart.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        *,
        name: str = "weightlock",
        policies: Path | None = POLICIES,
        settings: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cluster)
        self.control_plane = cluster
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._component = cluster.component(name)
        self._config_file = cluster.directory / f"{name}.yaml"
        self._authority = Authority(cluster.directory / "pki" / name, f"{name}-ca")
        serving = self._authority.server(name, ["127.0.0.1"])
        key = Ed25519PrivateKey.generate()
        self.signing_key = cluster.directory / "pki" / name / "signing.key"
        self.signing_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.broker_authority = Authority(cluster.directory / "pki" / f"{name}-broker", "broker-ca")
        injection = {"caFile": str(self.broker_authority.certificate)}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        self.config: dict[str, Any] = {
            "listen": {"host": "127.0.0.1", "port": self.port},
            "tls": {
                "certificate": str(serving.certificate),
                "key": str(serving.key),
                "clientCa": str(cluster.webhook_client_ca),
                "clientNames": [WEBHOOK_CLIENT],
            },
            "signing": {"key": str(self.signing_key)},
            "cluster": {"kubeconfig": str(cluster.kubeconfig(manifests.USERNAME, groups))},
            "policies": str(policies) if policies else "",
            # No endpoint is withdrawn here, so a stopping process does not wait for it.
            "drainSeconds": 0,
            "settings": {"injection": injection, **(settings or {})},
            **(config or {}),
        }

    @property
    def ca(self) -> Path:
        """The PEM file with the CA that vouches for Weightlock's certificate."""
        return self._authority.certificate

    @property
    def log(self) -> Path:
        """The file with all that Weightlock wrote, over all its restarts."""
        return self._component.log

    @property
    def pid(self) -> int:
        """The process id. Raises AssertionError when it does not run."""
        return self._component.pid

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._component.running

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises AssertionError with the end of its log."""
        self._config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        # What a killed process leaves behind is removed with the cluster's directory.
        environment = {**os.environ, "TMPDIR": str(self.cluster.directory)}
        self._component.start([COMMAND, "serve", "--config", self._config_file], environment)
        self._component.wait_ready(lambda: self.get("/readyz")[0] == 200, START_SECONDS)

    def stop(self) -> None:
        """End the process in an orderly way; the webhooks stay registered."""
        self._component.stop(grace=15.0)

    def kill(self) -> None:
        """End the process with SIGKILL; the webhooks stay registered, so calls of the API server fail."""
        self._component.kill()

    def logs(self) -> str:
        """What it wrote to its log, over all its restarts."""
        return self.log.read_text() if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of Weightlock's own port, such as `/readyz` or `/metrics`: status and text."""
        tls = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def command(self, *arguments: str, user: str | None = None, stdin: str | None = None) -> Result:
        """Run `weightlock …` as a person at a terminal would, with a kubeconfig for `user`."""
        environment = {**self.cluster.tool_environment(), "KUBECONFIG": str(self.cluster.kubeconfig(user))}
        return run([COMMAND, *arguments], stdin=stdin, environment=environment)

    def _client_config(self, path: str) -> Mapping[str, Any]:
        return {"url": f"{self.url}{path}", "caBundle": manifests.base64_of(self.ca)}
