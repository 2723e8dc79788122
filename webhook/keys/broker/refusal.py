"""Why a key is not released: a stable code and a sentence, for the person whose pod waits for it.

A refusal is an answer; asking again changes nothing until the reason is gone. What may pass by itself is `Unavailable`.
"""

from __future__ import annotations

from webhook.api.codes import BAD_REQUEST, NONCE, NOT_A_POD, TOKEN

# What somebody meets who has not shown to be a pod.
UNPROVEN = frozenset({BAD_REQUEST, NONCE, TOKEN, NOT_A_POD})


class RefusedError(Exception):
    """The key stays where it is. ``str()`` is one sentence; ``code`` has its section in docs/denied.md."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class UnavailableError(Exception):
    """It could not be decided now; the same request may succeed later. Nothing was released."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
