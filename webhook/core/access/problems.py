"""The reason codes of access: one code per rule, with a sentence and a fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.api.access import AccessSettings
    from webhook.api.modelweights import ModelWeights
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest


class AccessProblem(NamedTuple):
    """One violation: a code from `webhook.api.codes`, the violated rule, and the fix."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class AccessReview:
    """The input of the rules in addition to the object itself."""

    request: AdmissionRequest
    index: GrantIndex
    models: Mapping[str, ModelWeights]
    now: datetime
    settings: AccessSettings
    lookup: Lookup | None

    @property
    def kind(self) -> str:
        """``AccessRequest`` or ``AccessApproval``."""
        return "AccessRequest" if self.request.resource.name == "accessrequests" else "AccessApproval"
