"""The end of a run, when its manifest is in force: what only the generation before needed goes, then the journal.

What has to go is noted before the manifest is put in force, so that the next run ends one that was cut short between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.keys.rawio import sync_directory
from webhook.keys.sealed.manifest import manifest_key
from webhook.keys.sealed.paths import check_relative, partial_path

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.manifest import Manifest
    from webhook.keys.secret import Secret

SEAL, REENCRYPT = "seal", "reencrypt"


def clear_up(directory: Path, manifest: Manifest, journal: Journal) -> None:
    """Delete what ``journal`` says has to go, unless ``manifest``, which is in force, lists it; then the journal."""
    current = {entry.file for entry in manifest.files}
    parents = set()
    for name in journal.dropped:
        final = directory / check_relative(name)
        if name not in current and final.parent.is_dir():
            final.unlink(missing_ok=True)
            partial_path(final).unlink(missing_ok=True)
            parents.add(final.parent)
    for parent in parents:
        sync_directory(parent)
    journal.remove()


def finish_cut_run(directory: Path, manifest: Manifest, key: Secret, journal: Journal) -> str:
    """End the run that made ``manifest``, when it was cut short after that; gives its operation, or nothing.

    ``journal`` still tells afterwards what the run did. A journal that was not written with ``key`` is left alone.
    """
    if not journal.resume(manifest_key(key, manifest.model)):
        return ""
    operation = str(journal.head.get("operation"))
    if operation not in {SEAL, REENCRYPT} or journal.head.get("generation") != manifest.generation:
        return ""
    clear_up(directory, manifest, journal)
    return operation
