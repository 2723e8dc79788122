"""A webhook that is not Weightlock: it records what the API server asks, and answers as a test says.

For tests of what the API server shows of itself, and of webhooks that change pods before or after Weightlock.
"""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from harness.controlplane import ControlPlane
from harness.manifests import base64_of
from harness.pki import Authority

Request = dict[str, Any]
Patch = list[dict[str, Any]]
# The creation of access objects.
ACCESS_RULE = {
    "apiGroups": ["weightlock.dev"],
    "apiVersions": ["v1alpha1"],
    "resources": ["accessrequests", "accessapprovals"],
    "operations": ["CREATE"],
}


def allow(_: Request) -> Patch:
    """Allow, and change nothing."""
    return []


class StrangerWebhook:
    """A mutating webhook for the pods of namespaces labelled `stranger: NAME`; a context manager.

    `answer` gets the admission request and returns a JSON patch; it may be changed meanwhile. Webhooks are asked in
    the order of their names; `reinvocation` says whether again after others changed the pod. `requests` holds what was
    asked, `callers` the common name in the client certificate of each caller.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        name: str,
        answer: Callable[[Request], Patch] = allow,
        reinvocation: str = "Never",
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        self.cluster, self.name, self.answer, self.reinvocation = cluster, name, answer, reinvocation
        # Without a rule of its own: the pods of labelled namespaces.
        self._rule = rule
        self.requests: list[Request] = []
        self.callers: list[str] = []
        self._authority = Authority(cluster.directory / "pki" / name, f"{name}-ca")
        pair = self._authority.server(name, ["127.0.0.1"])
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cluster.webhook_client_ca))
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(pair.certificate, pair.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def _configuration(self) -> dict[str, Any]:
        pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
        rule = dict(self._rule or pods)
        webhook = {
            "name": f"{self.name}.stranger.test",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": f"https://127.0.0.1:{self._server.server_port}/",
                "caBundle": base64_of(self._authority.certificate),
            },
            "rules": [rule],
            "namespaceSelector": {} if self._rule else {"matchLabels": {"stranger": self.name}},
            "failurePolicy": "Fail",
            "reinvocationPolicy": self.reinvocation,
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.name},
            "webhooks": [webhook],
        }

    def __enter__(self) -> "StrangerWebhook":
        self._thread.start()
        self.cluster.apply(self._configuration)
        return self

    def __exit__(self, *_: object) -> None:
        collection = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        self.cluster.client().delete(f"{collection}/{self.name}")
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stranger.callers.append(_common_name(self.connection))
                stranger.requests.append(review["request"])
                body = json.dumps(_response(review["request"]["uid"], stranger.answer(review["request"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Nothing: the requests are kept."""

        return Handler


def _response(uid: str, patch: Patch) -> Mapping[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        response |= {"patchType": "JSONPatch", "patch": encoded}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _common_name(connection: object) -> str:
    certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    if certificate is None:
        return ""
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value)
