"""Which files of a run are already in place, which can be resumed, and which must be started.

The decision uses the authenticated journal and the status of files. It never opens a file's content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.storage.tree import Tree

# A file that a run will write: its name, its path in the output, and the identity of its source.
Planned = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class Progressed:
    """``finished``: names and records of complete files. ``resumable``: files that this run may have begun.

    ``existing``: files with the name of an output that this run did not write.
    """

    finished: dict[str, dict[str, Any]]
    resumable: frozenset[str]
    existing: frozenset[str]


def compare(journal: Journal, tree: Tree, planned: Iterable[Planned]) -> Progressed:
    """Compare the plan with the journal and the output. The journal is unchanged; see `record`."""
    finished, resumable, existing = {}, set(), set()
    for name, final, identity in planned:
        if name not in journal.planned or journal.planned[name] != identity:
            if name not in journal.planned and tree.stat(final) is not None:
                existing.add(name)
        elif (progress := journal.done.get(name)) is not None and in_place(tree, final, progress):
            finished[name] = progress
        else:
            resumable.add(name)
    return Progressed(finished, frozenset(resumable), frozenset(existing))


def record(journal: Journal, planned: Iterable[Planned]) -> None:
    """Record in the journal what is new in the plan."""
    journal.plan((name, identity) for name, _, identity in planned if journal.planned.get(name) != identity)


def in_place(tree: Tree, final: str, done: dict[str, Any]) -> bool:
    """Whether ``final`` is still the file that was complete when the record ``done`` was made."""
    status = tree.stat(final)
    if status is None:
        return False
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "inode": status.st_ino,
    }.items() <= done.items()
