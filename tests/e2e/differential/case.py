"""What one triple of the differential test is: a policy with its binding, an object, and who writes it how.

A case speaks of one object of its own name, so that hundreds of policies can be in force at once and each request
meets exactly one of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]
API = "admissionregistration.k8s.io/v1"
NAMESPACE = "differential"
FALLBACK = "the message of the rule"
TEXTS = {
    "text": "Tacocat",
    "empty": "",
    "words": "one,two,three",
    "unicode": "naïve ☃ 𝄞",
    "spaced": "  padded\t",
    "number": "42",
    "size": "1500Mi",
    "version": "1.4.0-rc.1",
    "address": "10.1.2.3",
    "range": "10.0.0.0/8",
    "link": "https://user@example.com:8443/a%20b/c?x=1&x=2&y=#top",
    "image": "registry.example.com/team/app@sha256:0123456789abcdef",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks, as the API server authenticates or impersonates."""

    name: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all_groups(self) -> tuple[str, ...]:
        """The groups of a request of theirs: the API server adds one, and those of a service account."""
        parts = self.name.split(":")
        account = ("system:serviceaccounts", f"system:serviceaccounts:{parts[2]}") if len(parts) == 4 else ()
        return (*(self.groups or account), "system:authenticated")


ALICE = Person("alice", ("team-a", "researchers"))
BOB = Person("bob", ("team-b",), {"example.com/mfa": ("webauthn", "otp"), "risk": ("low",)})
ROBOT = Person(f"system:serviceaccount:{NAMESPACE}:robot")


@dataclass(frozen=True, slots=True)
class Case:
    """One triple. ``spec`` and ``binding`` are the policy's and its binding's; what matches is added to them.

    ``old`` is the object before an UPDATE, or what a DELETE or CONNECT is about; ``subresource`` its subresource.
    ``verb`` is ``apply`` or ``deletecollection``, where the request is made so; a ``real`` request changes the cluster.
    """

    name: str
    spec: Document
    binding: Document = field(default_factory=dict)
    document: Document = field(default_factory=dict)
    person: Person = ALICE
    operation: str = "CREATE"
    old: Document | None = None
    subresource: str = ""
    verb: str = ""
    real: bool = False

    @property
    def policy(self) -> dict[str, Any]:
        """The ValidatingAdmissionPolicy."""
        rule = {
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "operations": ["*"],
            "resources": ["*/*"],
            "resourceNames": [self.name],
        }
        constraints = {"resourceRules": [rule]}
        spec = {"matchConstraints": constraints, **self.spec}
        return {
            "apiVersion": API,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": self.name},
            "spec": spec,
        }

    @property
    def policy_binding(self) -> dict[str, Any]:
        """The ValidatingAdmissionPolicyBinding, of the same name."""
        return {
            "apiVersion": API,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": self.name},
            "spec": {"policyName": self.name, "validationActions": ["Deny"], **self.binding},
        }

    @property
    def subject(self) -> dict[str, Any]:
        """The object that is written, by default a ConfigMap with `TEXTS`."""
        return self._named(self.document or configmap())

    @property
    def before(self) -> dict[str, Any] | None:
        """The object that is there before the request."""
        return None if self.old is None else self._named(self.old)

    def _named(self, document: Document) -> dict[str, Any]:
        metadata = {"name": self.name, **document.get("metadata", {})}
        if document["kind"] not in ("Namespace", "ClusterRole", "PersistentVolume"):
            metadata = {"namespace": NAMESPACE, **metadata}
        return {**document, "metadata": metadata}


def configmap(data: Document | None = None, **metadata: Any) -> dict[str, Any]:
    """A ConfigMap; it gets the name of its case."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": dict(TEXTS if data is None else data),
    }


def rules(*expressions: str, **fields: Any) -> dict[str, Any]:
    """A policy's spec with these validations, each with ``fields``."""
    return {"validations": [{"expression": expression, **fields} for expression in expressions]}


def values(prefix: str, expressions: Iterable[str], template: str = "'%s'.format([{}])") -> Iterator[Case]:
    """One case for each expression: the denial's message is its value, so that the engines must agree on all of it."""
    for number, expression in enumerate(expressions, start=1):
        spec = rules("false", message=FALLBACK, messageExpression=template.format(expression))
        yield Case(f"{prefix}-value-{number}", spec)


def texts(prefix: str, expressions: Iterable[str]) -> Iterator[Case]:
    """As `values`, for expressions that are strings already."""
    return values(f"{prefix}-text", expressions, "{}")


def checks(prefix: str, expressions: Iterable[str], **fields: Any) -> Iterator[Case]:
    """One case for each boolean expression; it may be true, false, an error, or no expression at all."""
    for number, expression in enumerate(expressions, start=1):
        yield Case(f"{prefix}-{number}", rules(expression), **fields)


def people(prefix: str, expressions: Sequence[str], persons: Sequence[Person]) -> Iterator[Case]:
    """Each boolean expression for each person."""
    for person in persons:
        label = person.name.rpartition(":")[2]
        yield from checks(f"{prefix}-{label}", expressions, person=person)
