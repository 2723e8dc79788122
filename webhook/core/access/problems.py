"""The reason codes of access: each one rule, said in one sentence, with what would be accepted instead."""

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
    """Why an object is refused: a code of `webhook.api.codes`, the rule that says so, and what would be accepted."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class AccessReview:
    """What the rules look at besides the object itself."""

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
