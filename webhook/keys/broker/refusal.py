"""Why a key is not released: a stable code and a sentence, for the user whose pod waits for the key.

A refusal is final until its cause is removed. `UnavailableError` is for temporary causes: a retry may succeed.
"""

from __future__ import annotations

BAD_REQUEST = "WL320"
NONCE = "WL321"
TOKEN = "WL322"  # noqa: S105 - a reason code
NOT_A_POD = "WL323"
POD_GONE = "WL324"
NOT_ITS_MODEL = "WL325"
NO_GRANT = "WL326"
POLICY = "WL327"
WEBHOOKS_MODIFIED = "WL328"
NO_EVIDENCE = "WL329"
EVIDENCE = "WL330"
NO_KEY = "WL331"
KMS_REFUSED = "WL332"
TOO_OFTEN = "WL333"
REPLAYED = "WL334"

CLUSTER_UNAVAILABLE = "WL911"
KMS_UNAVAILABLE = "WL912"
ISSUER_UNAVAILABLE = "WL913"


# Refusals of callers that did not prove to be a pod.
UNPROVEN = frozenset({BAD_REQUEST, NONCE, TOKEN, NOT_A_POD})


class RefusedError(Exception):
    """The key is not released. ``str()`` is one sentence; ``code`` has its section in docs/denied.md."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class UnavailableError(Exception):
    """The broker cannot decide now; the same request may succeed later. No key was released."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
