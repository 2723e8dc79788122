"""Authorization decisions of the API server by SubjectAccessReview, with a short cache.

A decision that is not available is a `Decision` with an error, never an allowance. Allowances are cached for 5 seconds
and denials for 1, so that a change of RBAC takes effect soon.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from webhook.cel.authz import AccessCheck, Decision
from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.cel.authz import SelectorRequirement
    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

ALLOWED_SECONDS = 5.0
DENIED_SECONDS = 1.0
MAX_CACHED = 4096
_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_QUESTION_SECONDS = 5.0


class Authorizer:
    """Decides access checks; equal concurrent checks cause one request."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._cache: OrderedDict[AccessCheck, tuple[Decision, float]] = OrderedDict()
        self._pending: dict[AccessCheck, asyncio.Task[Decision]] = {}

    async def decide(self, questions: Iterable[AccessCheck]) -> dict[AccessCheck, Decision]:
        """Return a decision for each check."""
        checks = tuple(questions)
        decisions = await asyncio.gather(*(self._decide(check) for check in checks))
        return dict(zip(checks, decisions, strict=True))

    async def _decide(self, question: AccessCheck) -> Decision:
        cached = self._cache.get(question)
        if cached is not None and cached[1] > time.monotonic():
            return cached[0]
        task = self._pending.get(question)
        if task is None:
            task = asyncio.create_task(self._request(question))
            self._pending[question] = task
            task.add_done_callback(lambda _: self._pending.pop(question, None))
        # A cancelled caller must not cancel the request of the others.
        return await asyncio.shield(task)

    async def _request(self, question: AccessCheck) -> Decision:
        try:
            answer = await self._api.request("POST", _PATH, body=review(question), seconds=_QUESTION_SECONDS)
        except ApiError as error:
            return Decision(allowed=False, error=f"cannot query the API server: {error}")
        decision = decision_of(answer)
        if not decision.error:
            self._store(question, decision)
        return decision

    def _store(self, question: AccessCheck, decision: Decision) -> None:
        seconds = ALLOWED_SECONDS if decision.allowed else DENIED_SECONDS
        self._cache[question] = (decision, time.monotonic() + seconds)
        self._cache.move_to_end(question)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)


def review(question: AccessCheck) -> Document:
    """Return the SubjectAccessReview for a check (k8s.io/api authorization/v1)."""
    spec: Document = {
        "user": question.user,
        "groups": list(question.groups),
        "uid": question.uid,
        "extra": {name: list(values) for name, values in question.extra},
    }
    if question.path:
        spec["nonResourceAttributes"] = {"path": question.path, "verb": question.verb}
    else:
        attributes: Document = {
            "verb": question.verb,
            "group": question.group,
            "version": question.version,
            "resource": question.resource,
            "subresource": question.subresource,
            "namespace": question.namespace,
            "name": question.name,
        }
        for field, requirements in (
            ("fieldSelector", question.field_selector),
            ("labelSelector", question.label_selector),
        ):
            if requirements:
                attributes[field] = {"requirements": _requirements(requirements)}
        spec["resourceAttributes"] = attributes
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def decision_of(answer: Document) -> Decision:
    """Return the decision of a SubjectAccessReview. An explicit denial wins over an allowance."""
    status: Any = answer.get("status")
    if not isinstance(status, dict):
        return Decision(allowed=False, error="the API server's response has no status")
    reason = str(status.get("reason", ""))
    if status.get("allowed") is True and status.get("denied") is not True:
        return Decision(allowed=True, reason=reason)
    return Decision(allowed=False, reason=reason, error=str(status.get("evaluationError", "")))


def _requirements(requirements: Sequence[SelectorRequirement]) -> list[Document]:
    return [
        {"key": item.key, "operator": item.operator, "values": list(item.values)} for item in requirements
    ]
