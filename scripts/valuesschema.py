"""Generate the part of the chart's values.schema.json that describes the configuration file, from the pydantic models.

Values override the chart's configuration, so no field is required, except in the items of lists, which replace the
whole list.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from webhook.api.broker import BrokerSettings
from webhook.api.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

Json = dict[str, Any]

_PLACES: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    (("config",), Config),
    (("broker", "config"), BrokerSettings),
)
# "title" repeats the name of a field, and the program applies defaults.
_DROPPED = frozenset({"title", "default", "$defs"})
_FROM, _TO = "#/$defs/", "#/definitions/"


def with_configuration(text: str) -> str:
    """Return the schema with the configuration generated again."""
    schema = json.loads(text)
    definitions: Json = {}
    for path, model in _PLACES:
        whole = model.model_json_schema(by_alias=True)
        shared = whole.get("$defs", {})
        listing = _listed(whole, shared)
        definitions |= {name: _draft7(node, whole=name in listing) for name, node in shared.items()}
        *parents, last = path
        place = schema
        for step in parents:
            place = place["properties"][step]
        place["properties"][last] = _draft7(whole, whole=False)
    schema["definitions"] = dict(sorted(definitions.items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _draft7(node: Any, *, whole: bool) -> Any:
    """Convert a pydantic schema. ``whole``: the value replaces another one, so its fields can be required."""
    if isinstance(node, list):
        return [_draft7(item, whole=whole) for item in node]
    if not isinstance(node, dict):
        return node
    result: Json = {}
    for key, value in node.items():
        if key in _DROPPED or (key == "required" and not whole):
            continue
        if key == "properties":
            result[key] = {name: _draft7(field, whole=whole) for name, field in value.items()}
        elif key == "$ref":
            result[key] = value.replace(_FROM, _TO)
        elif key == "description":
            result[key] = " ".join(value.split())
        else:
            result[key] = _draft7(value, whole=whole or key == "items")
    if result.get("type") == "number":
        # `helm --set` passes fractions as text, which the program reads as numbers.
        result |= {"type": ["number", "string"], "pattern": r"^[0-9]+\.[0-9]+$"}
    return result


def _listed(whole: Json, shared: Json) -> frozenset[str]:
    """Return the definitions that are used in the items of lists."""
    names: set[str] = set()
    waiting = [name for node in (whole, *shared.values()) for name in _references(node, within=False)]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += _references(shared[name], within=True)
    return frozenset(names)


def _references(node: Any, *, within: bool) -> Iterator[str]:
    """Yield the definitions that items of lists refer to. ``within`` an item, yield all."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item, within=within)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and within:
                yield value.removeprefix(_FROM)
            else:
                yield from _references(value, within=within or key == "items")
