"""Python functions that the engine may call, without what each call would cost for good.

cel-expr-python 0.1.3 never gives back the tuple of arguments it makes for a callback, nor the result it takes from one.
A policy that looks into a long annotation would keep a copy of it with every review. Here results and large arguments
are given back; what remains is some hundred bytes a call.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import wraps
from threading import local
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel

if TYPE_CHECKING:
    from collections.abc import Callable

# Arguments smaller than this, in bytes, are not worth the search for the tuple that holds them (some 20 µs).
_LARGE: Final = 256
_CONTAINERS: Final = (list, dict)
# There is one of each, which cannot leak.
_SHARED: Final = (bool, type(None))

_release: Final = ctypes.pythonapi.Py_DecRef
_release.argtypes = [ctypes.py_object]
_release.restype = None


class _Kept(local):
    """What the engine holds on to since the last `settle`. It still reads a result after the callback has ended."""

    def __init__(self) -> None:
        self.objects: list[Any] = []


_KEPT: Final = _Kept()


def released(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` for use as a callback of the engine, after whose evaluation `settle` is called."""

    @wraps(function)
    def callback(*arguments: Any) -> Any:
        if any(isinstance(item, _CONTAINERS) or sys.getsizeof(item) >= _LARGE for item in arguments):
            _KEPT.objects += _holders(arguments)
        result = function(*arguments)
        if _KEEPS_RESULTS and not isinstance(result, _SHARED):
            _KEPT.objects.append(result)
        return result

    return callback


def settle() -> None:
    """Give back what the callbacks of this thread left behind, now that their evaluation has ended."""
    kept = _KEPT.objects
    if kept:
        _KEPT.objects = []
        for item in kept:
            _release(item)


def _holders(arguments: tuple[Any, ...]) -> list[Any]:
    """Return the engine's tuple of ``arguments``. It is young, and nothing else holds what was made for this call."""
    return [
        item
        for item in gc.get_objects(generation=0)
        if type(item) is tuple
        and item is not arguments
        and len(item) == len(arguments)
        and all(mine is theirs for mine, theirs in zip(arguments, item, strict=True))
    ]


def _keeps_results() -> bool:
    """Tell whether the engine has the fault: a mended one must be left alone."""
    results: list[str] = []

    def result() -> str:
        results.append(f"a text that nothing else refers to: {len(results)}")
        return results[-1]

    function = cel.FunctionDecl("result", [cel.Overload("result_0", cel.Type.STRING, [], False, result)])
    env = cel.NewEnv(functions=[function])
    env.compile("result() == ''").eval()
    # One reference in the list, one of the call itself; any other is the engine's.
    return sys.getrefcount(results[0]) > 2


_KEEPS_RESULTS: Final = _keeps_results()
