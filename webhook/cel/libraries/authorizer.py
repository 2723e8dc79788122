"""The ``authorizer`` library: RBAC checks, answered from the decisions of the running evaluation.

Follows k8s.io/apiserver ``pkg/cel/library/authz.go``. Nothing here queries a cluster: a check without a decision
is recorded and stops the evaluation, and the shell repeats it with the decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Final, Self

from webhook.cel import authz, context
from webhook.cel.libraries import k8s_names, opaque
from webhook.cel.libraries.declarations import BOOL, STRING, CelType, Overload, method
from webhook.cel.libraries.selectors import field_requirements, label_requirements

_OF_THE_REQUEST: Final = "of the request"
_LONGEST: Final = 4096
_fields = lru_cache(maxsize=256)(field_requirements)
_labels = lru_cache(maxsize=256)(label_requirements)


@dataclass(frozen=True, slots=True)
class Authorizer:
    """The subject of the checks: a service account, or the requesting user if both names are empty."""

    TYPE: ClassVar[str] = opaque.AUTHORIZER

    namespace: str = ""
    name: str = ""

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return self.namespace, self.name

    @classmethod
    def of(cls, namespace: str, name: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(namespace, name)

    def check(self, **question: Any) -> Decision:
        """Return the recorded decision.

        Raises UnansweredError without one, LookupError outside an evaluation, and ValueError for a question that no
        authorizer should be sent.
        """
        frame = context.current()
        if any(len(part) > _LONGEST for part in question.values()):
            raise ValueError(f"authorization check with more than {_LONGEST} characters or requirements")
        if self.name:
            check = authz.AccessCheck(
                user=f"system:serviceaccount:{self.namespace}:{self.name}",
                groups=("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"),
                **question,
            )
        else:
            user = frame.user
            check = authz.AccessCheck(
                user=user.username, groups=user.groups, uid=user.uid, extra=user.extra, **question
            )
        decision = frame.answers.check(check)
        return Decision(decision.allowed and not decision.error, decision.reason, decision.error)


@dataclass(frozen=True, slots=True)
class PathCheck:
    """A question about a path that belongs to no resource."""

    TYPE: ClassVar[str] = opaque.PATH_CHECK

    authorizer: Authorizer
    path: str

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return *self.authorizer.parts(), self.path

    @classmethod
    def of(cls, namespace: str, name: str, path: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(Authorizer(namespace, name), path)

    def check(self, verb: str) -> Decision:
        """Check whether ``verb``, an HTTP method in lower case, is allowed on the path."""
        return self.authorizer.check(verb=verb, path=self.path)


@dataclass(frozen=True, slots=True)
class GroupCheck:
    """The beginning of a question about a resource: its API group."""

    TYPE: ClassVar[str] = opaque.GROUP_CHECK

    authorizer: Authorizer
    group: str

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return *self.authorizer.parts(), self.group

    @classmethod
    def of(cls, namespace: str, name: str, group: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(Authorizer(namespace, name), group)


@dataclass(frozen=True, slots=True)
class ResourceCheck:
    """A check of a resource; an empty part stands for all of its kind."""

    TYPE: ClassVar[str] = opaque.RESOURCE_CHECK

    authorizer: Authorizer
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return (
            *self.authorizer.parts(),
            *(self.group, self.resource, self.subresource, self.namespace, self.name),
            *(self.field_selector, self.label_selector),
        )

    @classmethod
    def of(cls, *parts: str) -> Self:
        """See `opaque.Opaque`. ``authorizer.requestResource`` travels without its parts, the same in every request."""
        if parts == (_OF_THE_REQUEST,):
            return cls.of_request()
        namespace, name, group, resource, *rest = parts
        return cls(Authorizer(namespace, name), group, resource, *rest)

    @classmethod
    def of_request(cls) -> Self:
        """Return the question about the resource of the running request, as it was sent."""
        request = context.current().request
        resource = request.get("requestResource") or request.get("resource")
        subresource = request.get("requestSubResource") or request.get("subResource")
        return cls(
            Authorizer(),
            _text(resource, "group"),
            _text(resource, "resource"),
            subresource if isinstance(subresource, str) else "",
            _text(request, "namespace"),
            _text(request, "name"),
        )

    def check(self, verb: str) -> Decision:
        """Check whether ``verb`` is allowed."""
        return self.authorizer.check(
            verb=verb,
            group=self.group,
            resource=self.resource,
            subresource=self.subresource,
            namespace=self.namespace,
            name=self.name,
            field_selector=_fields(self.field_selector),
            label_selector=_labels(self.label_selector),
        )


@dataclass(frozen=True, slots=True)
class RequestResource:
    """What ``authorizer.requestResource`` is in every request, until someone looks."""

    TYPE: ClassVar[str] = opaque.RESOURCE_CHECK

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return (_OF_THE_REQUEST,)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of the authorizer."""

    TYPE: ClassVar[str] = opaque.DECISION

    allowed: bool
    reason: str = ""
    error: str = ""

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return "allowed" if self.allowed else "", self.reason, self.error

    @classmethod
    def of(cls, allowed: str, reason: str, error: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(allowed == "allowed", reason, error)


def _text(mapping: Any, key: str) -> str:
    value = mapping.get(key) if hasattr(mapping, "get") else None
    return value if isinstance(value, str) else ""


def _path(authorizer: Authorizer, path: str) -> PathCheck:
    if not path.strip():
        raise ValueError("path must not be empty")
    return PathCheck(authorizer, path)


def _service_account(_authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    if k8s_names.dns_1123_subdomain(name):
        raise ValueError("Invalid service account name")
    if k8s_names.dns_1123_label(namespace):
        raise ValueError("Invalid service account namespace")
    return Authorizer(namespace, name)


def _resource(group: GroupCheck, resource: str) -> ResourceCheck:
    if not resource.strip():
        raise ValueError("resource must not be empty")
    return ResourceCheck(group.authorizer, group.group, resource)


def _setter(function: str, identity: str, field: str) -> Overload:
    return method(
        function,
        identity,
        (_RESOURCE_CHECK, STRING),
        _RESOURCE_CHECK,
        lambda check, value: replace(check, **{field: value}),
    )


def _check(identity: str, parameter: CelType, implementation: Any) -> Overload:
    return Overload(
        "check", identity, (parameter, STRING), _DECISION, implementation, member=True, pure=False
    )


_AUTHORIZER: Final = CelType(opaque.AUTHORIZER)
_PATH_CHECK: Final = CelType(opaque.PATH_CHECK)
_GROUP_CHECK: Final = CelType(opaque.GROUP_CHECK)
_RESOURCE_CHECK: Final = CelType(opaque.RESOURCE_CHECK)
_DECISION: Final = CelType(opaque.DECISION)

OVERLOADS: Final = (
    method("path", "authorizer_path", (_AUTHORIZER, STRING), _PATH_CHECK, _path),
    method("group", "authorizer_group", (_AUTHORIZER, STRING), _GROUP_CHECK, GroupCheck),
    method(
        "serviceAccount",
        "authorizer_serviceaccount",
        (_AUTHORIZER, STRING, STRING),
        _AUTHORIZER,
        _service_account,
    ),
    method("resource", "groupcheck_resource", (_GROUP_CHECK, STRING), _RESOURCE_CHECK, _resource),
    _setter("subresource", "resourcecheck_subresource", "subresource"),
    _setter("namespace", "resourcecheck_namespace", "namespace"),
    _setter("name", "resourcecheck_name", "name"),
    _setter("fieldSelector", "authorizer_fieldselector", "field_selector"),
    _setter("labelSelector", "authorizer_labelselector", "label_selector"),
    _check("pathcheck_check", _PATH_CHECK, PathCheck.check),
    _check("resourcecheck_check", _RESOURCE_CHECK, ResourceCheck.check),
    method("allowed", "decision_allowed", (_DECISION,), BOOL, lambda decision: decision.allowed),
    method("reason", "decision_reason", (_DECISION,), STRING, lambda decision: decision.reason),
    method("errored", "decision_errored", (_DECISION,), BOOL, lambda decision: decision.error != ""),
    method("error", "decision_error", (_DECISION,), STRING, lambda decision: decision.error),
)
