"""What ``weightlock audit`` prints: reports of a verification and entries on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from webhook.audit.storage import Directory
from webhook.core.audit.entries import kind_of
from webhook.core.audit.tiles import WIDTH, Tile
from webhook.core.kube.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.audit.check import Checked

_MAX_LISTED = 10


def report(checked: Checked) -> Iterator[str]:
    """Yield the lines for one log. The first fault comes first.

    The owner of the volume chooses the names of files, so each line is printable.
    """
    for line in _report(checked):
        indent = line[: len(line) - len(line.lstrip(" "))]
        yield f"{indent}{one_line(line)}"


def _report(checked: Checked) -> Iterator[str]:
    result = checked.report
    name = result.origin or str(checked.place)
    if result.whole:
        yield f"{name}: WHOLE, {result.size} entries, root sha256:{result.root.hex()}"
    else:
        yield f"{name}: TAMPERED OR INCOMPLETE, first fault: {result.faults[0]}"
        for fault in result.faults[1:_MAX_LISTED]:
            yield f"  also: {fault}"
        if len(result.faults) > _MAX_LISTED:
            yield f"  and {len(result.faults) - _MAX_LISTED} more"
    if result.types:
        yield "  " + ", ".join(f"{count} {kind}" for kind, count in sorted(result.types.items()))
        yield f"  from {result.first_time} to {result.last_time}"
    yield f"  witnesses: {', '.join(result.witnesses) or 'none'}"
    if result.pruned:
        yield f"  pruned: entries 0 to {result.pruned - 1}, by a signed statement in the log"
    for note in (*checked.notes, *result.notes[:_MAX_LISTED]):
        yield f"  note: {note}"


def as_json(checked: Checked) -> dict[str, Any]:
    """Return one log's result for programs."""
    result = checked.report
    return {
        "log": result.origin,
        "directory": one_line(str(checked.place)),
        "whole": result.whole,
        "size": result.size,
        "root": f"sha256:{result.root.hex()}",
        "witnesses": list(result.witnesses),
        "pruned": result.pruned,
        "types": result.types,
        "faults": [
            {
                "path": one_line(each.path),
                "message": one_line(each.message),
                "offset": each.offset,
                "entry": each.index,
            }
            for each in result.faults
        ],
        "notes": [one_line(note) for note in (*checked.notes, *result.notes)],
    }


def entry(origin: str, index: int, document: dict[str, Any], output: str) -> str:
    """Return one entry as JSON or on one line."""
    if output == "json":
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    data = document["data"]
    user = data.get("user") or data.get("requester") or data.get("approver") or {}
    parts = [
        document["time"][:23] + "Z",
        f"{origin}#{index}",
        kind_of(document),
        _outcome(data),
        str(user.get("username", "")),
        str(document.get("subject", "")),
        ",".join(data.get("codes", ())) or str(data.get("code", "")),
    ]
    return "  ".join(_printable(part) for part in parts if part)


def _outcome(data: dict[str, Any]) -> str:
    outcome = str(data.get("decision") or data.get("state") or data.get("change") or data.get("event") or "")
    return f"{outcome} ({data['phase']})" if data.get("phase") == "mutate" else outcome


def first_entry(place: Path) -> int:
    """Return the first entry that retention has not removed."""
    reader, number = Directory(place), 0
    if reader.read(Tile(None, 0).path) is not None or not (place / "tile" / "1").is_dir():
        return 0
    while (
        reader.read(Tile(None, number).path) is None
        and reader.read(Tile(1, number // WIDTH).path) is not None
    ):
        number += 1
    return number * WIDTH


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
