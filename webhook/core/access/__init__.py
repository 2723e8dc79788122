"""Requests, approvals and time to active grants; the rules admission holds them to; their signatures. All
of it pure.
"""

from webhook.core.access.grant_index import GrantIndex
from webhook.core.access.model import Grant, InvalidObject, Phase, RequestState, SubjectKey
from webhook.core.access.signing import Signer, Verifier

__all__ = [
    "Grant",
    "GrantIndex",
    "InvalidObject",
    "Phase",
    "RequestState",
    "Signer",
    "SubjectKey",
    "Verifier",
]
