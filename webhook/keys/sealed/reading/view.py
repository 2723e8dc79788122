"""Sealed files as a read-only file system, for programs that can read only files.

A directory of the view is mounted with FUSE. Each read is decrypted in memory: plaintext exists only in a cache of
segments with a limit, and in the kernel's page cache, where all processes of the node share it. It is never on a disk.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, KeysError, StorageError
from webhook.keys.sealed.reading.client import SegmentCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from webhook.keys.sealed.reading.client import SealedFile, Weights

DEVICE = "/dev/fuse"
MAX_OPEN = 4096
_POLL_SECONDS = 1.0
_BLOCK = 4096
_ENDED = (7, 8)  # what fuse_main returns after a signal ended its loop: libfuse 3.0 to 3.x


class View:
    """The operations of the file system; the names and arguments are those of libfuse. Errors are `OSError`.

    ``cache`` is the number of decrypted segments of 1 MiB that are kept. ``report`` receives each failed read.
    """

    use_ns = True

    def __init__(self, weights: Weights, cache: int, report: Callable[[str], None]) -> None:
        self._weights, self._report = weights, report
        self._cache = SegmentCache(cache)
        self._sizes = {f"/{path}": weights.size(path) for path in weights.files}
        self._children = _tree(self._sizes)
        self._open: dict[int, SealedFile] = {}
        self._next = 1
        self._lock = threading.Lock()
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002 - libfuse's arguments
        """The attributes of a file or directory."""
        if path in self._sizes:
            size = self._sizes[path]
            blocks = -(-size // 512)
            facts = {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": size, "st_blocks": blocks}
            return {**facts, **self._owner}
        if path in self._children:
            return {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2, **self._owner}
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        """The names in a directory."""
        if path not in self._children:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return [".", "..", *sorted(self._children[path])]

    def statfs(self, path: str) -> dict[str, int]:  # noqa: ARG002
        """The size of the file system; no space is free."""
        blocks = sum(-(-size // _BLOCK) for size in self._sizes.values())
        files = len(self._sizes)
        return {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": blocks, "f_files": files, "f_namemax": 255}

    def open(self, path: str, flags: int) -> int:
        """Open a file, and verify that its version is the one in the manifest."""
        if path not in self._sizes:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        with self._lock:
            if len(self._open) >= MAX_OPEN:
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        stream = self._guarded(lambda: self._weights.raw(path[1:], self._cache))
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._open[number] = stream
        return number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        """Read and authenticate a part of a file."""
        stream = self._open.get(fh)
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        buffer = bytearray(size)
        count: int = self._guarded(lambda: stream.read_at(offset, buffer))
        return bytes(buffer) if count == size else bytes(buffer[:count])

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        """Close a file."""
        with self._lock:
            stream = self._open.pop(fh, None)
        if stream is not None:
            stream.close()
        return 0

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            streams, self._open = list(self._open.values()), {}
        for stream in streams:
            stream.close()

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (KeysError, OSError) as error:
            self._report(str(error))
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None


def mount(view: View, mountpoint: Path, *, allow_other: bool, name: str) -> None:
    """Mount ``view`` until the process gets SIGTERM or SIGINT, or the file system is unmounted.

    Raises:
        BadInputError: FUSE is not available here, or the directory cannot be mounted on.
        StorageError: the mount failed.
    """
    fuse = available()
    if not mountpoint.is_dir() or any(mountpoint.iterdir()):
        raise BadInputError(f"cannot mount on {mountpoint}: it is not an empty directory")
    options: dict[str, Any] = {"ro": True, "nosuid": True, "nodev": True, "noexec": True}
    options |= {"fsname": f"weightlock:{name}", "subtype": "weightlock", "default_permissions": True}
    if allow_other:
        options["allow_other"] = True
    # libfuse unmounts on a signal, but only if no other handler is installed. Python's would never run here.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        fuse.FUSE(_operations(fuse, view), str(mountpoint), foreground=True, **options)
    except RuntimeError as error:
        if error.args[0] in _ENDED:
            return
        raise StorageError(f"cannot mount on {mountpoint}: libfuse reports error {error}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def available() -> Any:
    """The module that speaks FUSE.

    Raises:
        BadInputError: FUSE is not available, in one sentence.
    """
    try:
        import mfusepy  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
    except ImportError:
        raise BadInputError(
            "cannot mount: the package mfusepy is not installed (pip install mfusepy)"
        ) from None
    except (OSError, AttributeError):
        raise BadInputError("cannot mount: libfuse is not installed (Debian: fuse3)") from None
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise BadInputError(f"cannot mount: FUSE is not available, {DEVICE}: {error.strerror}") from None
    return mfusepy


def watch(path: Path, stop: threading.Event, gone: Callable[[], None]) -> threading.Thread:
    """Call ``gone`` once when the delivered key ``path`` is wiped, checked each second by a thread."""

    def run() -> None:
        while not stop.wait(_POLL_SECONDS):
            if not path.is_file():
                gone()
                return

    thread = threading.Thread(target=run, name="weightlock-key", daemon=True)
    thread.start()
    return thread


def _operations(fuse: Any, view: View) -> Any:
    names = ("getattr", "readdir", "statfs", "open", "read", "release")
    methods = {name: staticmethod(getattr(view, name)) for name in names}
    return type("WeightlockView", (fuse.Operations,), {"use_ns": True, **methods})()


def _tree(paths: dict[str, int]) -> dict[str, set[str]]:
    """The names in each directory, by the path of the directory."""
    children: dict[str, set[str]] = {"/": set()}
    for path in paths:
        child = PurePosixPath(path)
        while child.name:
            children.setdefault(str(child.parent), set()).add(child.name)
            child = child.parent
    return children
