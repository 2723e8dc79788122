"""Which files of a sealed directory still hold what a plain directory holds, found by opening and comparing them.

A sealed file that turns out damaged counts as changed, so that sealing an update also mends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import SealedDataError
from webhook.keys.sealed.files import SealedSource
from webhook.keys.sealed.streaming import associated_data
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.files import Scratch
    from webhook.keys.sealed.manifest import Entry, Manifest
    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.streaming import Span
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret


@dataclass(slots=True)
class MatchSink:
    """Takes segments and compares them with a sealed file's; never fails because of what the sealed file holds."""

    sealed: SealedSource
    same: bool = True

    def open(self) -> None:
        """Open the sealed file."""
        try:
            self.sealed.open()
        except SealedDataError:
            self.same = False

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Compare one segment; after the first difference nothing more is read."""
        if not self.same:
            return
        mine, scratch.plain, scratch.spare = scratch.plain, scratch.spare, scratch.plain
        try:
            self.same = self.sealed.read(span, scratch) == plain
        except SealedDataError:
            self.same = False
        finally:
            scratch.plain, scratch.spare = mine, scratch.plain

    def commit(self) -> dict[str, Any]:
        """Compare the whole with its digest."""
        if self.same:
            try:
                self.sealed.check()
            except SealedDataError:
                self.same = False
        return {"same": self.same}

    def close(self, *, discard: bool) -> None:  # noqa: ARG002 - nothing is ever written
        """Close the sealed file."""
        self.sealed.close()


def unchanged(
    directory: Path, manifest: Manifest, key: Secret, items: list[Item], jobs: int, progress: Progress
) -> dict[str, Entry]:
    """The entries of ``manifest`` whose sealed files hold exactly what ``items`` hold now, by path.

    Raises:
        KeysError: a plain file changed while it was read.
        StorageError: the system refused to read.
    """
    entries = {entry.path: entry for entry in manifest.files}
    same: dict[str, Entry] = {}

    def task(item: Item) -> Task:
        entry = entries[item.path]
        sealed = SealedSource(directory / entry.file, entry, key, associated_data(manifest.model, entry.path))

        def done(record: dict[str, Any]) -> None:
            if record["same"]:
                same[item.path] = entry

        return Task(item.path, item.source(), MatchSink(sealed), done)

    alike = [item for item in items if item.path in entries and entries[item.path].size == item.size]
    progress.start("comparing", sum(item.size for item in alike), len(alike))
    transfer((task(item) for item in alike), jobs, progress)
    return same
