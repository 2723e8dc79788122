"""Engine values into plain Python values, around the faults of cel-expr-python 0.1.3.

A null is never converted: on CPython 3.11 ``value()`` and ``plain_value()`` of a null, also of one inside a list or
map, release a reference to None that they do not own, and after some thousands the process aborts.
"""

from __future__ import annotations

from typing import Any, Final

from webhook.cel.errors import EvaluationError, OpaqueValueError

_SCALARS: Final = frozenset({"BOOL", "INT", "UINT", "DOUBLE", "STRING", "DURATION", "TIMESTAMP", "TYPE"})


def plain(value: Any) -> Any:
    """Return ``value`` as None, bool, int, float, str, bytes, timedelta, datetime, list or dict.

    Raises EvaluationError when the value is an error or has no plain form (an optional, an opaque value).
    """
    name = value.type().name()
    if name in _SCALARS:
        return value.value()
    if name == "NULL":
        return None
    if name == "ERROR":
        raise _error(value)
    if name.startswith("LIST"):
        return [plain(item) for item in value.value()]
    if name.startswith("MAP"):
        return {key: plain(item) for key, item in value.value().items()}
    if name == "BYTES":
        return bytes(value.value())
    raise OpaqueValueError(name)


def _error(value: Any) -> EvaluationError:
    try:
        text = value.value()
    except TypeError:
        # The engine calls an optional an error, and then cannot convert it.
        return EvaluationError("the result is an optional, which has no plain form")
    return EvaluationError.parse(str(text))
