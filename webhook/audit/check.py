"""Verify all logs in a directory, each by itself and against what the other logs state about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError
from webhook.audit.keys import KEYS, verifier_keys
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import Checkpoint, parse_checkpoint
from webhook.core.audit.notes import NoteError
from webhook.core.audit.proof import ProofError, parse_proof
from webhook.core.audit.tiles import CHECKPOINT, TileNodes, split_hashes
from webhook.core.audit.verify import Report, compare, first_difference, read_tile, verify_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from webhook.core.audit.notes import VerifierKey
    from webhook.core.audit.tiles import Tile
    from webhook.core.audit.verify import LogReader

    OnEntry = Callable[[str, int, dict[str, Any]], None]

NO_WITNESS = (
    "no witness and no later checkpoint is given: a truncation to an older checkpoint cannot be detected"
)
OWN_KEYS = f"the keys come from {KEYS} in the log itself: pass --keys with keys from another source"


@dataclass(slots=True)
class Checked:
    """One log and the result of its verification."""

    place: Path
    report: Report
    notes: list[str] = field(default_factory=list)


def verify_directory(
    root: Path,
    keys: Sequence[VerifierKey] = (),
    *,
    witnesses: Sequence[VerifierKey] = (),
    quorum: int = 0,
    earlier: Iterable[Checkpoint] = (),
    against: Path | None = None,
    on_entry: OnEntry | None = None,
) -> list[Checked]:
    """Verify every log below ``root``.

    Raises:
        AuditError: the directory contains no log, or keys are missing or invalid.
    """
    earlier = list(earlier)
    results = []
    for place in logs_below(root):
        notes = []
        log_keys = list(keys)
        if not log_keys:
            log_keys = list(verifier_keys(place / KEYS, Directory(place).read(KEYS)))
            notes.append(OWN_KEYS)
        origin = place.relative_to(root).as_posix()
        hook = None if on_entry is None else _bound(on_entry, origin)
        report = verify_log(
            Directory(place), log_keys, witnesses=witnesses, quorum=quorum, earlier=earlier, on_entry=hook
        )
        checked = Checked(place, report, notes)
        if against is not None and report.whole:
            _compare_copies(checked, against / origin if origin != "." else against, log_keys)
        results.append(checked)
    origins = _compare_heads(results)
    for checked in results:
        report = checked.report
        if (
            report.whole
            and not report.witnesses
            and report.origin not in origins | {each.origin for each in earlier}
        ):
            checked.notes.append(NO_WITNESS)
        _missing(checked, results)
    return results


def _bound(on_entry: OnEntry, origin: str) -> Callable[[int, dict[str, Any]], None]:
    return lambda index, document: on_entry(origin, index, document)


def _compare_heads(results: list[Checked]) -> set[str]:
    """Check each log against the checkpoints that other logs recorded. Return the origins with such a checkpoint."""
    by_origin = {checked.report.origin: checked for checked in results}
    origins = set()
    for checked in results:
        for origin, size, head_root, index in checked.report.heads:
            other = by_origin.get(origin)
            if other is None or not other.report.whole or origin == checked.report.origin:
                continue
            origins.add(origin)
            nodes = TileNodes(_tiles(Directory(other.place)), other.report.size)
            compare(
                other.report,
                nodes,
                size,
                head_root,
                f"the checkpoint in entry {index} of {checked.report.origin}",
            )
    return origins


def _missing(checked: Checked, results: list[Checked]) -> None:
    """Report logs that a log of heads names and that are not in the directory."""
    present = {other.report.origin for other in results}
    missing = {origin for origin, _, _, _ in checked.report.heads} - present - {checked.report.origin}
    for origin in sorted(missing):
        checked.report.fault("entries", f"log {origin} is missing: this log recorded its checkpoints")


def _compare_copies(checked: Checked, place: Path, keys: Sequence[VerifierKey]) -> None:
    report, other = checked.report, Directory(place)
    raw = other.read(CHECKPOINT)
    if raw is None:
        raise AuditError(f"{place} contains no log to compare with")
    try:
        signed = parse_checkpoint(raw)
        signed.verify(keys)
    except NoteError as error:
        raise AuditError(f"{place}: {error}") from None
    difference = first_difference(Directory(checked.place), report.size, other, signed.checkpoint.size)
    if difference is not None:
        report.fault("entries", f"the copies are forked: entry {difference} differs", index=difference)
    elif signed.checkpoint.size > report.size:
        report.fault(CHECKPOINT, f"the log is truncated: the copy has {signed.checkpoint.size} entries")


def _tiles(reader: LogReader) -> Callable[[Tile], Sequence[bytes]]:
    def read(tile: Tile) -> Sequence[bytes]:
        data, path, width = read_tile(reader, tile)
        if data is None:
            raise AuditError(f"{path} is missing")
        return split_hashes(data, width)

    return read


def log_nodes(place: Path, size: int) -> TileNodes:
    """Return a reader of the perfect subtrees of a log of ``size`` entries."""
    return TileNodes(_tiles(Directory(place)), size)


def recorded(path: Path, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Read a checkpoint or the checkpoint of a receipt, to compare a log with.

    Raises:
        AuditError: the file is neither, or a signature by a known key is invalid.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        signed = (
            parse_proof(raw).checkpoint if raw.startswith(b"c2sp.org/tlog-proof") else parse_checkpoint(raw)
        )
        if keys:
            signed.verify(keys)
    except (NoteError, ProofError) as error:
        raise AuditError(f"{path}: {error}") from None
    return signed.checkpoint
