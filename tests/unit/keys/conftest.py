"""A small tree of weights whose sizes sit on the segment boundaries, and a local KMS to seal it with."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress

SUPPORT = Path(__file__).resolve().parents[2] / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from keyworld import World, serving  # noqa: E402 -- the path to it is set just above

SEGMENT = 1 << 20
FIRST = SEGMENT - 56
SIZES = {
    "config.json": 17,
    "empty.txt": 0,
    "shards/first-full.bin": FIRST,
    "shards/one-more.bin": FIRST + 1,
    "shards/deep/three.bin": 3 * SEGMENT + 5,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "plain"
    for name, size in SIZES.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return source


@pytest.fixture
def service(tmp_path: Path) -> KeyService:
    return KeyService(f"local://{tmp_path}/keyset.json")


@pytest.fixture
def work() -> Work:
    return Work(2, NoProgress(), "2026-11-23T00:00:00Z")


@pytest.fixture
def sealed(tree: Path, tmp_path: Path, service: KeyService, work: Work) -> Path:
    directory = tmp_path / "sealed"
    operations.seal(tree, directory, service, "atlas-70b", "k1", work)
    return directory


@pytest.fixture
def same():
    """Whether two trees hold the same files with the same content."""

    def compare(one: Path, other: Path) -> bool:
        contents = [
            {
                path.relative_to(root).as_posix(): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            for root in (one, other)
        ]
        return contents[0] == contents[1]

    return compare


_CRASH = """
import os, sys
from pathlib import Path
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work

class Crash:
    left = {after}
    def start(self, what, size, files): pass
    def advance(self, size):
        self.left -= size
        if self.left <= 0:
            os._exit(9)

work = Work(1, Crash(), "2026-11-23T00:00:00Z")
service = KeyService({url!r})
{code}
"""


@pytest.fixture
def crash(service: KeyService):
    """Run an operation in a process of its own that dies, as by a power cut, after so many bytes of plaintext."""

    def run(code: str, after: int) -> None:
        script = _CRASH.format(after=after, url=service.url, code=code)
        result = subprocess.run(
            [sys.executable, "-c", script], check=False, cwd=Path.cwd(), capture_output=True
        )
        assert result.returncode == 9, result.stderr.decode()

    return run


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path, datetime.now(UTC))
    return await world.wrap()


@pytest.fixture
async def served(world, tmp_path):
    async with serving(world, tmp_path) as served:
        yield served
