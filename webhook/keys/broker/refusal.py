"""Why a key is not released: a stable code and a sentence, for the user whose pod waits for the key.

A refusal is final until its cause is removed. `UnavailableError` is for temporary causes: a retry may succeed.
"""

from __future__ import annotations

from webhook.api.codes import BAD_REQUEST, NONCE, NOT_A_POD, TOKEN

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
