"""Which files of a run are already in place, which can be gone on with, and which have to be begun.

It decides from the authenticated journal and from what the file system says; it never opens a file's content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.journal import Journal


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that a run will write: its final name in the output, and what tells that its source is the same."""

    final: Path
    identity: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """``finished`` maps names to the records they finished with; ``resumable`` may be half written by us."""

    finished: dict[str, dict[str, Any]]
    resumable: frozenset[str]


def settle(journal: Journal, planned: dict[str, Planned], *, replace: bool = False) -> Settled:
    """Compare the plan with the journal, and note in the journal what is new in it.

    Raises:
        BadInputError: a file of that name is there which this run did not write, and ``replace`` is not set.
    """
    finished, resumable, fresh = {}, set(), {}
    for name, plan in planned.items():
        if journal.planned.get(name) != plan.identity:
            if name not in journal.planned and not replace and plan.final.exists():
                raise BadInputError(
                    f"{plan.final} exists already and was not written by this run; nothing was changed"
                )
            fresh[name] = plan.identity
        elif (record := journal.done.get(name)) is not None and in_place(plan.final, record):
            finished[name] = record
        else:
            resumable.add(name)
    journal.plan(fresh)
    return Settled(finished, frozenset(resumable))


def in_place(final: Path, record: dict[str, Any]) -> bool:
    """Whether ``final`` is still the file that was put there when ``record`` was made."""
    try:
        status = final.stat(follow_symlinks=False)
    except OSError:
        return False
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "inode": status.st_ino,
    }.items() <= record.items()
