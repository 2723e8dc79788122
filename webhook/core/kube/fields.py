"""Access to parsed objects of unknown shape: each access checks, and none repairs.

Absent and null are the same, as they are to the API server; another type raises `MalformedObjectError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


Document = dict[str, Any]


class MalformedObjectError(ValueError):
    """A part of an object that does not match its kind. ``path`` is its position, ``message`` the expected form."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or 'the object'}: {message}")
        self.path = path
        self.message = message


def object_at(parent: Mapping[str, Any], key: str, path: str) -> Document:
    """A member that must be an object; empty where it is absent. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedObjectError(join(path, key), "must be an object")
    return value


def list_at(parent: Mapping[str, Any], key: str, path: str) -> list[Document]:
    """A member that must be a list of objects; empty where it is absent. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedObjectError(join(path, key), "must be a list")
    for item in value:
        if not isinstance(item, dict):
            raise MalformedObjectError(join(path, key), "must be a list of objects")
    return value


def text_at(parent: Mapping[str, Any], key: str, path: str) -> str:
    """A member that must be a string; empty where it is absent. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedObjectError(join(path, key), "must be a string")
    return value


def flag_at(parent: Mapping[str, Any], key: str, path: str) -> bool:
    """A member that must be true or false; false where it is absent. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedObjectError(join(path, key), "must be true or false")
    return value


def without_nulls(value: Any) -> Any:
    """Return a value without null members of objects; the same value if it contains none.

    Decoding into a typed object drops them. Custom resources with preserved unknown fields keep them.
    """
    if isinstance(value, dict):
        result = {key: without_nulls(item) for key, item in value.items() if item is not None}
        if len(result) == len(value) and all(result[key] is value[key] for key in result):
            return value
        return result
    if isinstance(value, list):
        items = [without_nulls(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def join(path: str, key: str) -> str:
    """A path one member longer."""
    return f"{path}.{key}" if path else key
