"""The end of a run whose manifest is in force: delete the files that only the previous generation needed.

The names of these files are in the journal before the manifest is in force, so the next run completes an interrupted
cleanup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.keys.sealed.format.manifest import manifest_key
from webhook.keys.sealed.format.paths import check_relative, partial_name, tags_name
from webhook.keys.sealed.storage.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.format.manifest import Manifest
    from webhook.keys.sealed.journal import Journal
    from webhook.keys.secret import Secret

SEAL, REENCRYPT = "seal", "reencrypt"


def clean_up(directory: Path, manifest: Manifest, journal: Journal) -> None:
    """Delete the files that ``journal`` lists, unless ``manifest``, which is in force, lists them; then the journal."""
    current = {entry.file for entry in manifest.files}
    current |= {tags_name(entry.file) for entry in manifest.files if entry.tags}
    parents = set()
    with Tree(directory) as tree:
        for name in journal.dropped:
            check_relative(name)
            if not (directory / name).parent.is_dir():
                continue
            for file in (name, tags_name(name)):
                if file not in current:
                    tree.unlink(file)
                    tree.unlink(partial_name(file))
            parents.add(name.rpartition("/")[0])
        tree.sync(parents)
    journal.remove()


def finish_interrupted_run(directory: Path, manifest: Manifest, key: Secret, journal: Journal) -> str:
    """Complete the run that made ``manifest`` if it was interrupted after that. Returns its operation, or "".

    ``journal`` still describes the run afterwards. A journal that was not written with ``key`` is unchanged.
    """
    if not journal.resume(manifest_key(key, manifest.model)):
        return ""
    operation = str(journal.head.get("operation"))
    if operation not in {SEAL, REENCRYPT} or journal.head.get("generation") != manifest.generation:
        return ""
    clean_up(directory, manifest, journal)
    return operation
