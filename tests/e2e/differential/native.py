"""The API server's side: its own ValidatingAdmissionPolicies judge requests that are dry runs, as any user.

People are impersonated by the admin, since that carries groups and extra without a certificate for each.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harness.controlplane import ControlPlane
from harness.rest import Answer, Client
from harness.waiting import eventually

from differential.case import API, NAMESPACE, Case, Person, rules
from differential.verdict import Outcome, Said, refused

POLICIES = f"/apis/{API}/validatingadmissionpolicies"
BINDINGS = f"/apis/{API}/validatingadmissionpolicybindings"
PATHS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
    "Namespace": "/api/v1/namespaces",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Thing": "/apis/{version}/namespaces/{namespace}/things",
}
MANAGER = "differential"
# How the API server words it when a rule could not be evaluated, rather than being false.
ERRORS = (
    re.compile(r"expression '.*' resulted in error: (?P<cause>.*)", re.DOTALL),
    re.compile(r"failed to configure (?:binding|policy): (?P<cause>.*)", re.DOTALL),
)
DENIAL = re.compile(
    r"ValidatingAdmissionPolicy '(?P<policy>[^']+)'(?: with binding '[^']+')? denied request: (?P<message>.*)",
    re.DOTALL,
)
WARNING = re.compile(
    r'299 - "Validation failed for ValidatingAdmissionPolicy \'[^\']+\' with binding \'[^\']+\': (?P<text>.*)"',
    re.DOTALL,
)
SENTINEL = "sentinel"
EXEC_OPTIONS = {
    "apiVersion": "v1",
    "kind": "PodExecOptions",
    "stdout": True,
    "stderr": True,
    "command": ["ls"],
}
FAILURES = "validation.policy.admission.k8s.io/validation_failure"


class Native:
    """A control plane to ask. ``refused`` holds what it said of policies it did not accept, by case."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._admin = cluster.client()
        self._people: dict[str, Client] = {}
        self.refused: dict[str, Answer] = {}

    def collection(self, document: Mapping[str, Any]) -> str:
        """The path of the collection an object belongs to."""
        namespace = document["metadata"].get("namespace", NAMESPACE)
        return PATHS[document["kind"]].format(namespace=namespace, version=document["apiVersion"])

    def prepare(self, cases: Iterable[Case]) -> None:
        """Store what UPDATE, DELETE and CONNECT are about."""
        for case in cases:
            if case.before is not None:
                self._admin.post(self.collection(case.before), case.before).ok()

    def install(self, cases: Iterable[Case], name: str = SENTINEL) -> None:
        """Create the policies and their bindings, and wait until all of them are in force.

        ``name`` is that of one more, which tells when; it must be new.
        """
        sentinel = Case(name, rules("false"))
        for case in (*cases, sentinel):
            answer = self._admin.post(POLICIES, case.policy)
            if answer.status == 201:
                answer = self._admin.post(BINDINGS, case.policy_binding)
            if answer.status != 201:
                self.refused[case.name] = answer
        assert name not in self.refused, self.refused[name].message
        # Each kind is watched in order, so a server that has the last binding and policy has all the others.
        eventually(
            lambda: self.ask(sentinel).outcomes == {"denied"}, "the last policy is in force", every=0.2
        )

    def create(self, document: Mapping[str, Any]) -> Answer:
        """Try to create an object as the admin; nothing is stored."""
        return self._admin.post(self.collection(document), document, dryRun="All")

    def ask(self, case: Case) -> Said:
        """What the API server says of a case whose policy is in force."""
        if case.name in self.refused:
            return refused(self.refused[case.name].message)
        return read(self._request(case, self._client(case.person)), case)

    def admitted(self, case: Case) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The object and old object as admission sees them, with defaults and what the API server adds.

        To be asked for while no policy is in force; nothing is stored.
        """
        old = None
        if case.before is not None:
            old = self._admin.get(f"{self.collection(case.before)}/{case.name}").ok()
        if case.operation == "CONNECT":
            return dict(EXEC_OPTIONS), None
        if case.operation == "DELETE":
            return None, old
        return self._request(case, self._admin, rehearsal=True).ok(), old

    def audited(self) -> dict[str, dict[str, str]]:
        """The annotations of the audit events of all cases asked so far, by case."""
        events = (json.loads(line) for line in self._cluster.audit_log.read_text().splitlines())
        return {
            event["objectRef"].get("name", ""): event.get("annotations", {})
            for event in events
            if "impersonatedUser" in event
        }

    def _request(self, case: Case, client: Client, *, rehearsal: bool = False) -> Answer:
        place = self.collection(case.before or case.subject)
        tail = f"/{case.subresource}" if case.subresource else ""
        by_name = f"{place}/{case.name}{tail}"
        dry = {} if case.real and not rehearsal else {"dryRun": "All"}
        if case.verb == "deletecollection":
            return client.request("DELETE", place, fieldSelector=f"metadata.name={case.name}", **dry)
        if case.verb == "apply":
            return client.patch(by_name, case.subject, "apply", fieldManager=MANAGER, force="true", **dry)
        if case.operation == "DELETE":
            return client.request("DELETE", by_name, **dry)
        if case.operation == "CONNECT":
            return client.request("POST", by_name, command="ls", stdout="true")
        if case.operation == "UPDATE":
            return client.put(by_name, self._current(case), **dry)
        if case.subresource:
            return client.post(by_name, case.subject, **dry)
        return client.post(place, case.subject, **dry)

    def _current(self, case: Case) -> dict[str, Any]:
        """The object of an UPDATE. Custom resources need the version that they replace."""
        subject = case.subject
        if subject["kind"] != "Thing":
            return subject
        saved = self._admin.get(f"{self.collection(subject)}/{case.name}").ok()["metadata"]
        version = {"resourceVersion": saved["resourceVersion"]}
        return {**subject, "metadata": {**subject["metadata"], **version}}

    def _client(self, person: Person) -> Client:
        key = json.dumps([person.name, person.groups, {key: list(it) for key, it in person.extra.items()}])
        if key not in self._people:
            client = Client.from_kubeconfig(self._cluster.kubeconfig())
            client._headers += [("Impersonate-User", person.name)]
            client._headers += [("Impersonate-Group", group) for group in person.groups]
            client._headers += [
                (f"Impersonate-Extra-{name.replace('/', '%2F')}", value)
                for name, entries in person.extra.items()
                for value in entries
            ]
            self._people[key] = client
        return self._people[key]

    def close(self) -> None:
        """Close the connections."""
        for client in self._people.values():
            client.close()


def read(answer: Answer, case: Case) -> Said:
    """One answer of the API server. Raises AssertionError where something other than a policy refused."""
    warnings = frozenset(
        cause(matches["text"].replace('\\"', '"').replace("\\\\", "\\"))
        for text in answer.warnings
        if (matches := WARNING.fullmatch(text)) is not None
    )
    denial = DENIAL.search(answer.message) if answer.status >= 400 else None
    if denial is None:
        connected = case.operation == "CONNECT" and answer.status == 400
        assert answer.status < 300 or connected, f"{case.name}: {answer.status} {answer.message}"
        return Said(warnings=warnings)
    assert denial["policy"] == case.name, f"{case.name} met another policy: {answer.message}"
    message = cause(denial["message"])
    outcome: Outcome = "error" if message != denial["message"] else "denied"
    return Said(((outcome, message, answer.body["reason"]),), warnings)


def cause(message: str) -> str:
    """What went wrong in a rule that could not be evaluated, without which rule it was; other messages as they are."""
    return next(
        (matches["cause"] for form in ERRORS if (matches := form.fullmatch(message)) is not None), message
    )


def with_audit(output: Said, case: Case, annotations: Mapping[str, str]) -> Said:
    """An answer with what the API server noted of it in its audit log."""
    notes = tuple(
        (key.removeprefix(f"{case.name}/"), text)
        for key, text in annotations.items()
        if key.startswith(f"{case.name}/")
    )
    failures = json.loads(annotations.get(FAILURES, "[]"))
    return replace(output, audit=notes, audited=frozenset(cause(failure["message"]) for failure in failures))


def denial_of(answer: Answer) -> tuple[str, str] | None:
    """The policy that denied and its message, or None. Raises AssertionError where something else refused."""
    denial = DENIAL.search(answer.message) if answer.status >= 400 else None
    assert denial is not None or answer.status < 300, answer.message
    return (denial["policy"], denial["message"]) if denial is not None else None
