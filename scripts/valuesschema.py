"""The part of the chart's values.schema.json that describes the configuration file, made of the types that read it.

Values lie over what the chart writes, so nothing is required of them but in the items of lists, which replace others
whole.
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
# "title" repeats the name of a field, and a default is the program's to apply.
_DROPPED = frozenset({"title", "default", "$defs"})
_FROM, _TO = "#/$defs/", "#/definitions/"


def with_configuration(text: str) -> str:
    """The schema with what it says of the configuration made anew."""
    schema = json.loads(text)
    definitions: Json = {}
    for path, model in _PLACES:
        whole = model.model_json_schema(by_alias=True)
        shared = whole.get("$defs", {})
        listed = _listed(whole, shared)
        definitions |= {name: _draft7(node, whole=name in listed) for name, node in shared.items()}
        *parents, last = path
        place = schema
        for step in parents:
            place = place["properties"][step]
        place["properties"][last] = _draft7(whole, whole=False)
    schema["definitions"] = dict(sorted(definitions.items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _draft7(node: Any, *, whole: bool) -> Any:
    """A schema of pydantic's for a value that is given ``whole``, or over what is there already."""
    if isinstance(node, list):
        return [_draft7(item, whole=whole) for item in node]
    if not isinstance(node, dict):
        return node
    made: Json = {}
    for key, value in node.items():
        if key in _DROPPED or (key == "required" and not whole):
            continue
        if key == "properties":
            made[key] = {name: _draft7(field, whole=whole) for name, field in value.items()}
        elif key == "$ref":
            made[key] = value.replace(_FROM, _TO)
        elif key == "description":
            made[key] = " ".join(value.split())
        else:
            made[key] = _draft7(value, whole=whole or key == "items")
    if made.get("type") == "number":
        # `helm --set` knows no fractions and gives them as text, which the program reads as numbers.
        made |= {"type": ["number", "string"], "pattern": r"^[0-9]+\.[0-9]+$"}
    return made


def _listed(whole: Json, shared: Json) -> frozenset[str]:
    """The definitions that stand for items of lists."""
    found: set[str] = set()
    waiting = [name for node in (whole, *shared.values()) for name in _references(node, within=False)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(shared[name], within=True)
    return frozenset(found)


def _references(node: Any, *, within: bool) -> Iterator[str]:
    """The definitions named in the items of lists; ``within`` such an item, all that are named."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item, within=within)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and within:
                yield value.removeprefix(_FROM)
            else:
                yield from _references(value, within=within or key == "items")
