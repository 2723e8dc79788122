"""The question-and-answer side of the evaluation that is running now, for functions the engine calls back.

The engine hands a Python callback its arguments only, so the other inputs of ``authorizer`` (the recorded
decisions, and the requester) are here, per thread, while a program runs. Nothing here outlives an evaluation.
"""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cel.authz import Answers


class User(NamedTuple):
    """The requester: ``request.userInfo`` of the AdmissionReview."""

    username: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def from_user_info(cls, info: object) -> User:
        """Build from ``userInfo`` as JSON gives it; entries of the wrong type are left out."""
        if not isinstance(info, dict):
            return cls()
        groups = info.get("groups")
        extra = info.get("extra")
        return cls(
            username=_text(info.get("username")),
            groups=_texts(groups),
            uid=_text(info.get("uid")),
            extra=tuple(sorted((str(key), _texts(values)) for key, values in extra.items()))
            if isinstance(extra, dict)
            else (),
        )


class Frame(NamedTuple):
    """The decisions of one evaluation, its request and its requester."""

    answers: Answers
    user: User
    request: Mapping[str, object]
    params: object = None


class _Current(local):
    frame: Frame | None = None


_CURRENT = _Current()


def current() -> Frame:
    """Return the frame of the running evaluation.

    Raises LookupError outside an evaluation, for instance while the engine folds constants.
    """
    frame = _CURRENT.frame
    if frame is None:
        raise LookupError("no evaluation is running")
    return frame


def swap(frame: Frame | None) -> Frame | None:
    """Make ``frame`` the current one and return the previous one, to be restored with another `swap`."""
    before = _CURRENT.frame
    _CURRENT.frame = frame
    return before


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(values: object) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()
