"""Templates whose service account is not known yet: a partial pod, a placeholder, a reference that does not resolve.

Decisions that depend on the account follow at the pod. Two rules keep this from being a bypass. First, a model that no
account of the namespace has a grant for is decided now. Second, the pods may run as any account with a grant, and a
controller may then create them in the name of the account: therefore the requester must be allowed to use each of them.

Worked example: mallory creates a Workflow with ``serviceAccountName: "{{inputs.parameters.sa}}"`` in a namespace where
``server`` has a grant. Argo would create its pods as ``server``, so mallory needs ``use`` on ``server`` now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.cel.authz import AccessCheck
from webhook.core.facts.model import Deferred, Facts
from webhook.core.policies.policy import Finding
from webhook.core.workloads.parts import SELECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.cel.authz import Answers
    from webhook.core.access.model import Grant
    from webhook.core.facts import TemplateFacts
    from webhook.core.kube.review import AdmissionRequest

_OURS = "weightlock"
_LATER = "decided when pods are created"
# Routes that entitlement of the service account allows. Every other route to a device is decided now.
_ENTITLED = frozenset({"resource", "claim"})


def defer(facts: TemplateFacts, request: AdmissionRequest, grants: Iterable[Grant]) -> TemplateFacts:
    """Move the facts that depend on the service account to the deferred decisions. ``grants`` are all active ones."""
    grantable = {
        grant.model
        for grant in _in_namespace(facts, grants)
        if _may_count(grant, facts, request.user.username)
    }
    weights = tuple(use for use in facts.facts.weights if use.model not in grantable)
    devices = tuple(use for use in facts.facts.devices if use.via not in _ENTITLED)
    remaining = Facts(weights, devices, facts.facts.escapes)
    if remaining == facts.facts:
        return facts
    note = Deferred(codes.DECIDED_LATER, f"the service account is not known yet; {_LATER}")
    return replace(facts, facts=remaining, deferred=tuple(sorted({*facts.deferred, note})))


def violations(
    facts: TemplateFacts, request: AdmissionRequest, grants: Iterable[Grant], answers: Answers
) -> Iterator[Finding]:
    """Yield a finding for each granted account that the requester is not allowed to use.

    Raises `UnansweredError` if an RBAC decision is missing; all questions are then in ``answers``.
    """
    namespace = _namespace(facts)
    accounts = sorted(
        {
            grant.subject.name
            for grant in _in_namespace(facts, grants)
            if grant.subject.kind == "ServiceAccount" and grant.subject.namespace == namespace
        }
    )
    user = request.user
    extra = tuple((name, tuple(values)) for name, values in sorted(user.extra.items()))
    open_questions = []
    for account in accounts:
        if user.username == f"system:serviceaccount:{namespace}:{account}":
            continue
        question = AccessCheck(
            user.username,
            user.groups,
            user.uid,
            extra,
            "use",
            "",
            "*",
            "serviceaccounts",
            "",
            namespace,
            account,
        )
        decision = answers.decisions.get(question)
        if decision is None:
            open_questions.append(question)
        elif not decision.allowed:
            yield _finding(facts, user.username, account)
    for question in open_questions[1:]:
        answers.open.add(question)
    if open_questions:
        answers.check(open_questions[0])


def _finding(facts: TemplateFacts, username: str, account: str) -> Finding:
    workload = facts.workload or {}
    place = f"{workload.get('namespace')}/"
    if ((facts.pod or {}).get("spec") or {}).get("serviceAccountName") == SELECTED:
        return Finding(
            codes.SERVICE_ACCOUNT_USE,
            _OURS,
            f"{workload.get('kind')} {place}{workload.get('name')} is not allowed to change pods of other service "
            f"accounts: {place}{account} has a grant, but {username} is not allowed to use that service account",
            f'request the RBAC verb "use" on serviceaccounts/{account}',
            path=facts.path,
        )
    return Finding(
        codes.SERVICE_ACCOUNT_USE,
        _OURS,
        f"{workload.get('kind')} {place}{workload.get('name')} is not allowed to leave its service account open: "
        f"its pods could run as {place}{account}, which has a grant, but {username} is not allowed to use that "
        "service account",
        f'name the service account in the object, or request the RBAC verb "use" on serviceaccounts/{account}',
        path=facts.path,
    )


def _namespace(facts: TemplateFacts) -> str:
    return str(facts.workload["namespace"]) if facts.workload is not None else ""


def _in_namespace(facts: TemplateFacts, grants: Iterable[Grant]) -> Iterator[Grant]:
    namespace = _namespace(facts)
    return (grant for grant in grants if grant.model and namespace in grant.namespaces)


def _may_count(grant: Grant, facts: TemplateFacts, username: str) -> bool:
    """Whether a grant may cover the pods: of an account of the namespace, or of the requester."""
    subject = grant.subject
    if subject.kind == "ServiceAccount":
        return subject.namespace == _namespace(facts)
    return subject.kind == "User" and subject.name == username
