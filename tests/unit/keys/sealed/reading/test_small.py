"""Small files in memory, for loaders that read configuration and tokenizer from a directory."""

from __future__ import annotations

import stat

import pytest
import weightlock

from webhook.keys.errors import BadInputError
from webhook.keys.sealed import operations
from webhook.keys.sealed.reading import small


@pytest.fixture
def opened(tree, tmp_path, service, work):
    manifest = operations.seal(tree, tmp_path / "sealed", service, "atlas-70b", "k1", work)
    with service.unwrap(manifest.key, "atlas-70b") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    (tmp_path / "memory").mkdir()
    return {"sealed": tmp_path / "sealed", "key_file": tmp_path / "key", "directory": tmp_path / "memory"}


def test_they_are_private_and_removed(opened, tree):
    with weightlock.small_files(**opened) as root:
        assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["config.json", "empty.txt"]
        assert (root / "config.json").read_bytes() == (tree / "config.json").read_bytes()
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE((root / "config.json").stat().st_mode) == 0o600
    assert not list(opened["directory"].iterdir())


def test_patterns_select_files_in_directories(opened, tree):
    with weightlock.small_files(**opened, patterns=("shards/deep/*",)) as root:
        assert (root / "shards/deep/three.bin").read_bytes() == (tree / "shards/deep/three.bin").read_bytes()


def test_large_files_are_not_small(opened, monkeypatch):
    monkeypatch.setattr(small, "_MAX_SIZE", 10)
    with pytest.raises(BadInputError, match="these are not small"), weightlock.small_files(**opened):
        pass
    assert not list(opened["directory"].iterdir())
