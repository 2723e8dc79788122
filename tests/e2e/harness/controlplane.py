"""A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager.

Nothing is simulated but the nodes: there are none, so pods are stored and never run. Every component has its
own certificate, listens on 127.0.0.1 only and logs into the cluster's temporary directory.
"""

import contextlib
import hashlib
import json
import signal
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster
from harness.etcd import Etcd
from harness.pki import Authority, KeyPair, signing_key
from harness.process import Component, Reaper, free_port, remove_directory
from harness.programs import programs_in
from harness.waiting import eventually

START_SECONDS = 180.0
ISSUER = "https://kubernetes.default.svc"
SERVICE_RANGE = "10.96.0.0/16"
WEBHOOK_PLUGINS = ("ValidatingAdmissionWebhook", "MutatingAdmissionWebhook")
# What the API server is called in the certificate it shows to webhooks.
WEBHOOK_CLIENT = "kube-apiserver-admission"

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a test may want otherwise than usual.

    `authentication` is an AuthenticationConfiguration (structured authentication, for OIDC); `plugins` are
    further entries of the AdmissionConfiguration; the `*_arguments` are appended to the command lines. `address` is
    that of the API server: another one than loopback is for a cluster with real nodes, whose health it then manages.
    """

    controllers: bool = True
    scheduler: bool = False
    authentication: Mapping[str, Any] | None = None
    plugins: Sequence[Mapping[str, Any]] = ()
    webhook_client_certificate: bool = True
    apiserver_arguments: Sequence[str] = ()
    controller_arguments: Sequence[str] = ()
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def nodes(self) -> bool:
        """Whether kubelets register."""
        return self.address != "127.0.0.1"


class ControlPlane(Cluster):
    """One control plane. `start` it, use it as any cluster, `stop` it; also a context manager.

    Files of interest: `webhook_client_ca` (the CA of the certificate that the API server shows to webhooks),
    `ca` (that of the API server itself), `audit_log` and the components' logs in `directory`.
    """

    own = True

    def __init__(self, programs: Path, options: Options | None = None) -> None:
        directory = Path(tempfile.mkdtemp(prefix="weightlock-e2e-"))
        super().__init__(directory, programs_in(programs))
        self.options = options or Options()
        self.controllers = self.options.controllers and "kube-controller-manager" in self.programs
        self.reaper = Reaper()
        self.reaper.tell("directory", directory)
        self.port = self.options.port or free_port()
        self.server = f"https://{self.options.address}:{self.port}"
        self.audit_log = directory / "audit.log"
        self._components: dict[str, Component] = {}
        self._make_credentials()
        self.etcd = Etcd(directory, self.component("etcd"), self._etcd_client)

    def _make_credentials(self) -> None:
        """Make one authority for each trust: the API's clients, etcd, the aggregation layer, webhooks."""
        pki = self.directory / "pki"
        self._authority = Authority(pki / "cluster", "cluster-ca")
        self._front_proxy = Authority(pki / "front-proxy", "front-proxy-ca")
        self._webhook_authority = Authority(pki / "webhooks", "webhook-client-ca")
        self._serving = self._authority.server(
            "kube-apiserver",
            [
                "127.0.0.1",
                "localhost",
                "10.96.0.1",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                self.options.address,
            ],
        )
        self._kubelet_client = self._authority.client("kube-apiserver-kubelet-client", ["system:masters"])
        self._proxy_client = self._front_proxy.client("front-proxy-client")
        self._account_key = signing_key(pki / "service-accounts")
        etcd = Authority(pki / "etcd", "etcd-ca")
        self._etcd_client = etcd.client("kube-apiserver-etcd-client")
        self._etcd_files = (etcd, etcd.server("etcd", ["127.0.0.1", "localhost"]))

    @property
    def ca(self) -> Path:
        """The PEM file with the CA of the API server's certificate and of its users' certificates."""
        return self._authority.certificate

    @property
    def webhook_client_ca(self) -> Path:
        """The PEM file of the CA of the certificate that the API server shows to webhooks, and no other."""
        return self._webhook_authority.certificate

    @property
    def webhook_client(self) -> KeyPair:
        """The certificate that the API server shows to webhooks, for tests that speak to one in its place."""
        return self._webhook_client

    def component(self, name: str) -> Component:
        """The component called `name` (etcd, kube-apiserver, …): its log, its process id, its signals."""
        if name not in self._components:
            self._components[name] = Component(name, self.directory / f"{name}.log", self.reaper)
        return self._components[name]

    def __enter__(self) -> "ControlPlane":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> "ControlPlane":
        """Start every component; wait until pods can be created. Raises AssertionError with a log's end."""
        try:
            self._write_configuration()
            authority, files = self._etcd_files
            self.etcd.start(self.programs["etcd"], authority, files)
            self._start_apiserver()
            self._start_controllers()
            self._wait_for_accounts()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop every component and remove the directory. Does nothing the second time."""
        super().stop()
        # These serve only throw-away data, so an orderly shutdown is not needed.
        for component in reversed(self._components.values()):
            component.kill()
        remove_directory(self.directory)
        self.reaper.close()

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.directory / name
        path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
        return path

    def _write_configuration(self) -> None:
        """Write what the API server reads from files: audit policy, admission, authentication."""
        self._write("audit-policy.yaml", AUDIT_POLICY)
        self._webhook_client = self._webhook_authority.client(WEBHOOK_CLIENT)
        user = {
            "client-certificate": str(self._webhook_client.certificate),
            "client-key": str(self._webhook_client.key),
        }
        kubeconfig = self._write(
            "webhook-client.kubeconfig",
            {"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]},
        )
        client = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": str(kubeconfig),
        }
        display = WEBHOOK_PLUGINS if self.options.webhook_client_certificate else ()
        plugins = [{"name": plugin, "configuration": client} for plugin in display]
        self._write(
            "admission.yaml",
            {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "AdmissionConfiguration",
                "plugins": [*plugins, *self.options.plugins],
            },
        )
        if self.options.authentication is not None:
            self._write("authentication.yaml", self.options.authentication)

    def _start_apiserver(self) -> None:
        component = self.component("kube-apiserver")
        component.start([self.programs["kube-apiserver"], *self._apiserver_arguments()])
        component.wait_ready(lambda: self.client().get("/readyz").status == 200, START_SECONDS)

    def _apiserver_arguments(self) -> list[str]:
        gates = ",".join(f"{gate}={str(on).lower()}" for gate, on in self.options.feature_gates.items())
        files = self.directory
        values = {
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "tls-cert-file": self._serving.certificate,
            "tls-private-key-file": self._serving.key,
            "client-ca-file": self.ca,
            "etcd-servers": self.etcd.url,
            "etcd-cafile": self._etcd_files[0].certificate,
            "etcd-certfile": self._etcd_client.certificate,
            "etcd-keyfile": self._etcd_client.key,
            "service-cluster-ip-range": SERVICE_RANGE,
            "service-account-issuer": ISSUER,
            "service-account-key-file": self._account_key.certificate,
            "service-account-signing-key-file": self._account_key.key,
            "requestheader-client-ca-file": self._front_proxy.certificate,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": self._proxy_client.certificate,
            "proxy-client-key-file": self._proxy_client.key,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "admission-control-config-file": files / "admission.yaml",
            "audit-policy-file": files / "audit-policy.yaml",
            "audit-log-path": self.audit_log,
            # The endpoints of the `kubernetes` service may not be a loopback address.
            "endpoint-reconciler-type": "none",
            # Without it a stopping API server waits for every watch to end by itself.
            "shutdown-watch-termination-grace-period": "1s",
            "allow-privileged": "true",
            "profiling": "false",
        }
        optional = {
            "feature-gates": gates,
            "authentication-config": files / "authentication.yaml" if self.options.authentication else "",
        }
        values |= {name: value for name, value in optional.items() if value}
        if self.options.nodes:
            values |= {
                "bind-address": "0.0.0.0",
                "advertise-address": self.options.address,
                "endpoint-reconciler-type": "lease",
                "kubelet-client-certificate": self._kubelet_client.certificate,
                "kubelet-client-key": self._kubelet_client.key,
                "kubelet-certificate-authority": self.ca,
                "kubelet-preferred-address-types": "InternalIP",
            }
        return [*(f"--{name}={value}" for name, value in values.items()), *self.options.apiserver_arguments]

    def _controller_manager_arguments(self) -> list[str]:
        return [
            f"--service-account-private-key-file={self._account_key.key}",
            f"--root-ca-file={self.ca}",
            # Each controller acts as the service account it has in any cluster, so that admission sees it.
            "--use-service-account-credentials=true",
            # Nodes that tests make up send no heartbeats.
            f"--controllers=*{'' if self.options.nodes else ',-node-lifecycle-controller'}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            *self.options.controller_arguments,
        ]

    def _start_controllers(self) -> None:
        if self.controllers:
            self._start_with_kubeconfig("kube-controller-manager", self._controller_manager_arguments())
        if self.options.scheduler:
            self._start_with_kubeconfig("kube-scheduler", [])

    def _start_with_kubeconfig(self, name: str, arguments: Sequence[str]) -> None:
        """Start a component that is a client of the API under the identity `system:NAME`."""
        port = free_port()
        kubeconfig = self.kubeconfig(f"system:{name}")
        common = ["--bind-address=127.0.0.1", f"--secure-port={port}", "--leader-elect=false"]
        common += [f"--{use}kubeconfig={kubeconfig}" for use in ("", "authentication-", "authorization-")]
        self.component(name).start([self.programs[name], *common, *arguments])

    def _wait_for_accounts(self) -> None:
        """Wait until pods can be created: the default namespace has its default service account."""
        manager = self.component("kube-controller-manager")
        if self.controllers:
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            manager.wait_ready(lambda: self.client().get(path).status == 200, START_SECONDS)
        else:
            eventually(
                lambda: self.client().get("/api/v1/namespaces/default").status == 200, "namespace default"
            )
            self._default_account("default")

    def restart_apiserver(self, *, crash: bool = False) -> None:
        """Stop the API server (with SIGKILL where `crash`), start it on the same port, wait for readiness."""
        self.stop_apiserver(crash=crash)
        self.start_apiserver()

    def stop_apiserver(self, *, crash: bool = False) -> None:
        """Stop the API server and leave it so; `start_apiserver` brings it back."""
        component = self.component("kube-apiserver")
        if crash:
            component.kill()
        else:
            component.stop(grace=10.0)

    def start_apiserver(self) -> None:
        """Start the API server again after `stop_apiserver`, and wait until it is ready.

        The controllers are restarted, as those of a real cluster restart after they lost their lease. Otherwise
        they reconnect only after a back-off that grows to half a minute.
        """
        self._start_apiserver()
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.component(name).kill()
        self._start_controllers()

    def pause_etcd(self) -> None:
        """Freeze etcd (SIGSTOP): requests of the API server hang until `resume_etcd`."""
        self.component("etcd").send(signal.SIGSTOP)

    def resume_etcd(self) -> None:
        """Let a frozen etcd go on."""
        self.component("etcd").send(signal.SIGCONT)

    @contextlib.contextmanager
    def etcd_paused(self) -> Iterator[None]:
        """Freeze etcd for the length of a `with` block."""
        self.pause_etcd()
        try:
            yield
        finally:
            self.resume_etcd()

    def server_certificate(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """A server certificate of the cluster's CA, such as a kubelet's."""
        return self._authority.server(name, hosts)

    def kubeconfig(self, user: str | None = None, groups: Sequence[str] = ()) -> Path:
        """The path of a kubeconfig with a client certificate for `user` in `groups`; else the admin's."""
        name, organizations = ("admin", ["system:masters"]) if user is None else (user, list(groups))
        digest = hashlib.sha256(json.dumps([name, organizations]).encode()).hexdigest()[:16]
        path = self.directory / f"{digest}.kubeconfig"
        if not path.exists():
            pair = self._authority.client(name, organizations, file=f"user-{digest}")
            self._write_kubeconfig(
                path, {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
            )
        return path

    def token_kubeconfig(self, token: str) -> Path:
        """The path of a kubeconfig that authenticates with a bearer token, such as a service account's."""
        path = self.directory / f"token-{hashlib.sha256(token.encode()).hexdigest()[:16]}.kubeconfig"
        self._write_kubeconfig(path, {"token": token})
        return path

    def _write_kubeconfig(self, path: Path, user: Mapping[str, str]) -> None:
        path.touch(mode=0o600)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": self.server, "certificate-authority": str(self.ca)}}
            ],
            "users": [{"name": "user", "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        self._write(path.name, content)

    def audit_events(self, **expected: str) -> list[dict[str, Any]]:
        """The API server's audit events, oldest first; `user="alice"` and `verb="create"` narrow them."""
        lines = self.audit_log.read_text().splitlines() if self.audit_log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        facts = {"user": lambda event: event["user"].get("username"), "verb": lambda event: event["verb"]}
        return [e for e in events if all(facts[name](e) == value for name, value in expected.items())]


def serving_certificate(server: str) -> str:
    """The PEM certificate that the server at HOST:PORT shows, unverified; for tests of rotation."""
    host, _, port = server.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))
