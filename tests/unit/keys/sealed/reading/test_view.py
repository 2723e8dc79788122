"""The view of a sealed directory as files: the same bytes, read-only and bounded, mounted by the real FUSE."""

from __future__ import annotations

import errno
import importlib.util
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import contextmanager
from pathlib import Path

import pytest

from webhook.keys.errors import BadInputError
from webhook.keys.sealed import operations
from webhook.keys.sealed.reading import view
from webhook.keys.sealed.reading.client import open_weights

TOOL = Path(__file__).resolve().parents[4] / "tools" / "debpackages.py"
SEGMENT = 1 << 20


@pytest.fixture
def sealed(tmp_path, service, work):
    plain = tmp_path / "plain"
    (plain / "sub" / "deep").mkdir(parents=True)
    (plain / "big.bin").write_bytes(os.urandom(9 * SEGMENT + 17))
    (plain / "sub" / "deep" / "config.json").write_text("{}")
    (plain / "empty").touch()
    manifest = operations.seal(plain, tmp_path / "sealed", service, "atlas-70b", "k1", work)
    with service.unwrap(manifest.key, "atlas-70b") as secret, secret.view() as content:
        (tmp_path / "key").write_bytes(content)
    return tmp_path / "sealed"


@pytest.fixture
def files(sealed, tmp_path):
    reports = []
    with open_weights(sealed, key_file=tmp_path / "key", threads=1) as weights:
        opened = view.View(weights, 3, reports.append)
        opened.reports = reports
        yield opened
        opened.close()


def test_the_view_lists_and_reads_the_files(files, tmp_path):
    assert files.readdir("/", 0) == [".", "..", "big.bin", "empty", "sub"]
    assert files.readdir("/sub/deep", 0) == [".", "..", "config.json"]
    assert files.getattr("/big.bin")["st_size"] == 9 * SEGMENT + 17
    content = (tmp_path / "plain" / "big.bin").read_bytes()
    handle = files.open("/big.bin", os.O_RDONLY)
    for offset, size in ((0, 10), (SEGMENT - 5, 10), (9 * SEGMENT, 1 << 17), (10 * SEGMENT, 5)):
        assert files.read("/big.bin", size, offset, handle) == content[offset : offset + size]
    files.release("/big.bin", handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.read("/big.bin", 1, 0, handle)
    empty = files.open("/empty", os.O_RDONLY)
    assert files.read("/empty", 10, 0, empty) == b""


def test_the_cache_has_one_limit_for_all_files(files):
    handles = [files.open("/big.bin", os.O_RDONLY) for _ in range(4)]
    for handle in handles:
        for index in range(9):
            files.read("/big.bin", 4096, index * SEGMENT, handle)
    assert len(files._cache._segments) == 3
    for handle in handles:
        files.release("/big.bin", handle)
    assert not files._cache._segments


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda files: files.getattr("/absent"), errno.ENOENT),
        (lambda files: files.getattr("/../plain"), errno.ENOENT),
        (lambda files: files.readdir("/big.bin", 0), errno.ENOTDIR),
        (lambda files: files.open("/absent", os.O_RDONLY), errno.ENOENT),
        (lambda files: files.open("/big.bin", os.O_RDWR), errno.EROFS),
        (lambda files: files.open("/big.bin", os.O_WRONLY), errno.EROFS),
    ],
)
def test_calls_that_the_view_rejects(files, call, number):
    with pytest.raises(OSError) as error:  # noqa: PT011 - the number is checked
        call(files)
    assert error.value.errno == number


def test_the_number_of_open_files_is_bounded(files, monkeypatch):
    monkeypatch.setattr(view, "MAX_OPEN", 2)
    files.open("/empty", os.O_RDONLY)
    files.open("/empty", os.O_RDONLY)
    with pytest.raises(OSError, match="Too many open files in system"):
        files.open("/empty", os.O_RDONLY)


def test_a_damaged_segment_is_an_input_output_error_and_is_reported(files, sealed):
    path = max(sealed.iterdir(), key=lambda item: item.stat().st_size)
    content = bytearray(path.read_bytes())
    content[5 * SEGMENT + 7] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    handle = files.open("/big.bin", os.O_RDONLY)
    assert files.read("/big.bin", 10, 0, handle)
    with pytest.raises(OSError, match="Input/output error"):
        files.read("/big.bin", 10, 5 * SEGMENT, handle)
    (report,) = files.reports
    assert "big.bin" in report
    path.unlink()
    with pytest.raises(OSError, match="Input/output error"):
        files.open("/big.bin", os.O_RDONLY)


def test_a_wiped_key_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(view, "_POLL_SECONDS", 0.01)
    key, absent, stop = tmp_path / "key", threading.Event(), threading.Event()
    key.write_bytes(bytes(32))
    thread = view.watch(key, stop, absent.set)
    assert not absent.wait(0.1)
    key.unlink()
    assert absent.wait(5)
    thread.join(5)
    assert not thread.is_alive()


def installed():
    # Not importorskip: the import itself fails without libfuse.
    if importlib.util.find_spec("mfusepy") is None:
        pytest.skip("mfusepy is not installed")


def run(*arguments, **environment):
    words = [sys.executable, "-m", "webhook.cli.main", "weights", "mount", *map(str, arguments)]
    return subprocess.Popen(
        words,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_fuse_the_command_says_so_in_one_sentence(sealed, tmp_path):
    installed()
    place = tmp_path / "mount"
    place.mkdir()
    library = str(tmp_path / "no-such-library.so")
    with run(sealed, place, "--key-file", tmp_path / "key", FUSE_LIBRARY_PATH=library) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors == "weightlock: cannot mount: libfuse is not installed (Debian: fuse3)\n"


def test_without_the_device_the_reason_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mfusepy", types.ModuleType("mfusepy"))
    monkeypatch.setattr(view, "DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(BadInputError, match=r"cannot mount: FUSE is not available, .*fuse: No such file"):
        view.available()


@contextmanager
def mounted(library, sealed, key, place, *options):
    place.mkdir()
    with run(sealed, place, "--key-file", key, *options, FUSE_LIBRARY_PATH=str(library)) as process:
        for _ in range(600):
            if os.path.ismount(place) or process.poll() is not None:
                break
            time.sleep(0.05)
        try:
            assert os.path.ismount(place), process.communicate(timeout=20)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert not os.path.ismount(place)


@pytest.fixture(scope="module")
def library():
    """The libfuse of Debian, unpacked; skips where the kernel or the user cannot mount."""
    installed()
    if os.geteuid() != 0:
        pytest.skip("mounting without fusermount3 needs root")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this machine has no /dev/fuse")
    matches = subprocess.run(
        [sys.executable, str(TOOL), "--find", "libfuse3-3"], capture_output=True, text=True, check=False
    )
    if matches.returncode:
        pytest.skip(f"libfuse is not prepared: {matches.stderr.strip()}")
    root = Path(matches.stdout.strip().splitlines()[-1])
    return next(root.glob("**/libfuse3.so.3"))


def test_programs_read_a_mounted_view(library, sealed, tmp_path):
    plain, place = tmp_path / "plain", tmp_path / "mount"
    with mounted(library, sealed, tmp_path / "key", place, "--cache", "2"):
        assert subprocess.run(["diff", "-r", plain, place], check=False).returncode == 0
        with (
            (place / "big.bin").open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as memory,
        ):
            assert memory[:] == (plain / "big.bin").read_bytes()
        for attempt in (
            (place / "new").touch,
            (place / "empty").unlink,
            lambda: (place / "empty").chmod(0o777),
        ):
            with pytest.raises(OSError) as error:  # noqa: PT011 - the number is checked
                attempt()
            assert error.value.errno == errno.EROFS


def test_a_mounted_view_ends_when_its_key_is_wiped(library, sealed, tmp_path):
    with mounted(library, sealed, tmp_path / "key", tmp_path / "mount") as process:
        (tmp_path / "key").unlink()
        assert process.wait(30) == 1
        assert process.stderr.read().endswith("the delivered key was wiped\n")
