"""Asks the API server who may do what, by SubjectAccessReview, and remembers the answers for a moment.

An answer that cannot be had is a `Decision` with an error, never a yes. Yes is remembered for 5 seconds and no for 1,
so that a right which was taken away or given soon shows.
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
MAX_REMEMBERED = 4096
_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_QUESTION_SECONDS = 5.0


class Authorizer:
    """Answers questions; the same question asked twice at once goes out once."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._known: OrderedDict[AccessCheck, tuple[Decision, float]] = OrderedDict()
        self._asking: dict[AccessCheck, asyncio.Task[Decision]] = {}

    async def decide(self, questions: Iterable[AccessCheck]) -> dict[AccessCheck, Decision]:
        """An answer to each question."""
        wanted = tuple(questions)
        answers = await asyncio.gather(*(self._decide(question) for question in wanted))
        return dict(zip(wanted, answers, strict=True))

    async def _decide(self, question: AccessCheck) -> Decision:
        known = self._known.get(question)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._ask(question))
            self._asking[question] = task
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        # One asker that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, question: AccessCheck) -> Decision:
        try:
            answer = await self._api.request("POST", _PATH, body=review(question), seconds=_QUESTION_SECONDS)
        except ApiError as error:
            return Decision(allowed=False, error=f"the API server could not be asked: {error}")
        decision = decision_of(answer)
        if not decision.error:
            self._remember(question, decision)
        return decision

    def _remember(self, question: AccessCheck, decision: Decision) -> None:
        seconds = ALLOWED_SECONDS if decision.allowed else DENIED_SECONDS
        self._known[question] = (decision, time.monotonic() + seconds)
        self._known.move_to_end(question)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def review(question: AccessCheck) -> Document:
    """The SubjectAccessReview that asks a question (k8s.io/api authorization/v1)."""
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
    """What a SubjectAccessReview came back with. What was denied explicitly is denied, whatever else it says."""
    status: Any = answer.get("status")
    if not isinstance(status, dict):
        return Decision(allowed=False, error="the API server's answer has no status")
    reason = str(status.get("reason", ""))
    if status.get("allowed") is True and status.get("denied") is not True:
        return Decision(allowed=True, reason=reason)
    return Decision(allowed=False, reason=reason, error=str(status.get("evaluationError", "")))


def _requirements(requirements: Sequence[SelectorRequirement]) -> list[Document]:
    return [
        {"key": item.key, "operator": item.operator, "values": list(item.values)} for item in requirements
    ]
