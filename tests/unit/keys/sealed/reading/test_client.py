"""The reader library: streams, whole files, memory maps and safetensors, from sealed files and the delivered key."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webhook.cli import key as key_command
from webhook.keys.errors import BadInputError, SealedDataError, WrongKeyError
from webhook.keys.sealed import operations
from webhook.keys.sealed.reading.client import Tensors, open_weights

ROOT = Path(__file__).resolve().parents[5]
SEGMENT = 1 << 20
TENSORS = {"layers.0.weight": ("F32", [4, 8], os.urandom(128)), "layers.1.bias": ("BF16", [3], os.urandom(6))}


def safetensors_bytes(tensors=TENSORS):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def keys(tree, tmp_path, service, work):
    """The tree with a safetensors file, sealed; its key where the sidecar would put it."""
    (tree / "model.safetensors").write_bytes(safetensors_bytes())
    (tree / "junk.safetensors").write_bytes((10**9).to_bytes(8, "little") + b"{}")
    (tree / "odd.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    manifest = operations.seal(tree, tmp_path / "sealed", service, "atlas-70b", "k1", work)
    directory = tmp_path / "keys" / "atlas-70b"
    directory.mkdir(parents=True)
    with service.unwrap(manifest.key, "atlas-70b") as secret, secret.view() as view:
        (directory / "k1").write_bytes(view)
    return tmp_path / "keys"


@pytest.fixture
def weights(keys, tmp_path):
    with open_weights(tmp_path / "sealed", keys=keys) as weights:
        yield weights


def test_every_way_to_read_gives_the_same(weights, tree):
    for name in weights.files:
        content = (tree / name).read_bytes()
        assert weights.size(name) == len(content)
        assert weights.read(name) == content
        with weights.open(name) as stream:
            assert stream.read() == content
        if content:
            with weights.map(name) as memory:
                assert memory[:] == content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3 * SEGMENT + 100), st.integers(0, 2 * SEGMENT)), min_size=1, max_size=5
    )
)
def test_any_seek_and_read(weights, tree, places):
    content = (tree / "shards/deep/three.bin").read_bytes()
    with weights.raw("shards/deep/three.bin") as stream:
        for offset, size in places:
            stream.seek(offset)
            buffer = bytearray(size)
            count = stream.readinto(buffer)
            assert buffer[:count] == content[offset : offset + size]
            assert stream.tell() == max(offset, min(offset + size, len(content)))


def test_seeking(weights):
    with weights.raw("config.json") as stream:
        assert stream.seekable()
        assert stream.readable()
        assert not stream.writable()
        assert stream.seek(-5, io.SEEK_END) == 12
        assert stream.seek(2, io.SEEK_CUR) == 14
        assert len(stream.readall()) == 3
        with pytest.raises(ValueError, match="negative"):
            stream.seek(-1)
    assert stream.closed


def test_no_plaintext_is_written_anywhere(weights, tmp_path):
    before = set(tmp_path.rglob("*"))
    weights.read("shards/deep/three.bin")
    weights.map("shards/deep/three.bin").close()
    assert set(tmp_path.rglob("*")) == before


def test_missing_files_and_models_are_errors(weights, keys, tmp_path, tree):
    with pytest.raises(BadInputError, match="has no file 'nothing'"):
        weights.open("nothing")
    no_key = pytest.raises(BadInputError, match=r"contains model .atlas-70b., not .other-model.")
    with no_key, open_weights(tmp_path / "sealed", model="other-model", keys=keys):
        pass
    with pytest.raises(BadInputError, match="is not a sealed directory"), open_weights(tree, keys=keys):
        pass


def test_a_wrong_key(keys, tmp_path):
    (keys / "atlas-70b" / "k1").write_bytes(bytes(32))
    with pytest.raises(WrongKeyError), open_weights(tmp_path / "sealed", keys=keys):
        pass


def test_another_version_does_not_open_and_a_damaged_segment_does_not_read(weights, tmp_path):
    path = tmp_path / "sealed" / "shards/deep/three.bin.sealed"
    raw = bytearray(path.read_bytes())
    raw[2 * SEGMENT + 500] ^= 1
    path.write_bytes(raw)
    with weights.raw("shards/deep/three.bin") as stream:
        assert len(stream.read(1000)) == 1000
        stream.seek(2 * SEGMENT)
        with pytest.raises(SealedDataError, match="segment 3 of 4"):
            stream.read(1000)
        whole = bytearray(b"x" * stream.size)
        stream.seek(0)
        with pytest.raises(SealedDataError, match="segment 3 of 4"):
            stream.readinto(whole)
        content, start = (tmp_path / "plain/shards/deep/three.bin").read_bytes(), 2 * (SEGMENT - 16) - 40
        assert whole[:start] == content[:start]
        assert not any(whole[start : start + SEGMENT - 16]), "nothing that does not authenticate is shown"
    raw[5] ^= 1
    path.write_bytes(raw)
    (path.parent / (path.name + ".tags")).unlink()
    with pytest.raises(SealedDataError, match="damaged, swapped or rolled back"):
        weights.raw("shards/deep/three.bin")


def test_safetensors_one_tensor_at_a_time(weights):
    with weights.safetensors("model.safetensors") as tensors:
        assert list(tensors) == list(TENSORS)
        assert tensors.metadata == {"format": "pt"}
        for name, (dtype, shape, content) in TENSORS.items():
            assert tensors.info(name) == (dtype, tuple(shape))
            assert tensors.bytes(name) == content
        with pytest.raises(KeyError):
            tensors.bytes("nothing")


def test_the_safetensors_library_reads_the_same(weights):
    loaded = dict(safetensors.deserialize(weights.read("model.safetensors")))
    for name, (_, shape, content) in TENSORS.items():
        assert (loaded[name]["shape"], bytes(loaded[name]["data"])) == (shape, content)


# Fails at the first file that any code opens for writing.
_NO_WRITING = """
import os, runpy, sys

def look(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
        raise RuntimeError(f"{arguments[0]} is opened for writing")

sys.dont_write_bytecode = True
sys.addaudithook(look)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_trains_from_sealed_tensors_and_writes_nothing(tree, tmp_path, keys, service, work):
    random = np.random.default_rng(1)
    tensors = {"head.weight": random.normal(size=(3, 500_000)), "head.bias": random.normal(size=3)}
    small = {"head.weight": random.normal(size=(3, 8)).astype("f4"), "head.bias": np.zeros(3, "f2")}
    safetensors.numpy.save_file(tensors, tree / "large.safetensors")
    safetensors.numpy.save_file(small, tree / "head.safetensors")
    sealed = tmp_path / "sealed"
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    with open_weights(sealed, keys=keys) as weights, weights.safetensors("large.safetensors") as opened:
        for name, value in tensors.items():
            assert (np.frombuffer(opened.bytes(name), "<f8").reshape(value.shape) == value).all()
    example = ROOT / "examples" / "training" / "train.py"
    command = [
        sys.executable,
        "-c",
        _NO_WRITING,
        example,
        sealed,
        "--file=head.safetensors",
        f"--keys={keys}",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    messages = re.fullmatch(r"head.safetensors: 2 tensors\nloss (\S+) -> (\S+) in 100 steps\n", done.stdout)
    assert float(messages[2]) < float(messages[1]) / 100


class _Slow:
    """A lock for which one waits so long that every other thread gets to do what it does before taking it."""

    def __init__(self):
        self._lock = threading.Lock()

    def __enter__(self):
        time.sleep(0.002)
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


def test_threads_share_one_file_and_each_gets_its_own_tensor(tree, tmp_path, keys, service, work):
    tensors = {f"t{number}": ("U8", [70_000], bytes([number]) * 70_000) for number in range(48)}
    (tree / "many.safetensors").write_bytes(safetensors_bytes(tensors))
    operations.seal(tree, tmp_path / "sealed", service, "atlas-70b", "k1", work, update=True)
    with (
        open_weights(tmp_path / "sealed", keys=keys) as weights,
        weights.safetensors("many.safetensors") as opened,
        ThreadPoolExecutor(8) as pool,
    ):
        opened._stream._cache._lock = _Slow()
        queries = [*tensors] * 2
        for name, content in zip(queries, pool.map(opened.bytes, queries), strict=True):
            assert content == tensors[name][2]


def test_reading_at_an_offset_leaves_the_position(weights, tree):
    content, buffer = (tree / "config.json").read_bytes(), bytearray(8)
    with weights.raw("config.json") as stream:
        stream.seek(3)
        assert stream.read_at(12, buffer) == 5
        assert buffer[:5] == content[12:]
        assert stream.read_at(100, buffer) == 0
        assert stream.tell() == 3
        with pytest.raises(ValueError, match="negative"):
            stream.read_at(-1, buffer)


def test_a_generation_older_than_required_does_not_open(tree, tmp_path, keys, service, work):
    sealed = tmp_path / "sealed"
    shutil.copytree(sealed, tmp_path / "old")
    (tree / "config.json").write_bytes(b"new")
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    with open_weights(sealed, keys=keys, generation=2) as weights:
        assert weights.read("config.json") == b"new"
    rolled_back = pytest.raises(SealedDataError, match="was rolled back: it contains generation 1")
    with rolled_back, open_weights(tmp_path / "old", keys=keys, generation=2):
        pass


class _Plain(io.BytesIO):
    """What `Tensors` needs of a sealed file."""

    @property
    def size(self):
        return len(self.getbuffer())

    def read_at(self, offset, buffer):
        matches = self.getvalue()[offset : offset + len(buffer)]
        buffer[: len(matches)] = matches
        return len(matches)


def _tensors(**changes):
    items = {
        "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        "b": {"dtype": "U8", "shape": [0], "data_offsets": [4, 4]},
        "c": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8], **changes},
    }
    text = json.dumps(items).encode()
    return Tensors(_Plain(len(text).to_bytes(8, "little") + text + bytes(8)))


@pytest.mark.parametrize(
    ("offsets", "output"),
    [
        ([-4, 0], "its header is damaged"),
        ([4], "its header is damaged"),
        ([4, 6, 8], "its header is damaged"),
        (["4", "8"], "its header is damaged"),
        ([4.0, 8], "its header is damaged"),
        ([True, 8], "its header is damaged"),
        (None, "its header is damaged"),
        ([2, 6], "exceeds the file or overlaps"),
        ([8, 4], "exceeds the file or overlaps"),
        ([4, 9], "exceeds the file or overlaps"),
        ([2**62, 2**63], "exceeds the file or overlaps"),
    ],
)
def test_tensors_that_lie_nowhere_or_on_one_another(offsets, output):
    assert list(_tensors()) == ["a", "b", "c"]
    with pytest.raises(SealedDataError, match=output):
        _tensors(data_offsets=offsets)


@pytest.mark.parametrize("change", [{"dtype": 3}, {"shape": "44"}, {"shape": [-1]}, {"shape": [1.5]}])
def test_tensors_of_no_shape(change):
    with pytest.raises(SealedDataError, match="its header is damaged"):
        _tensors(**change)


@pytest.mark.parametrize("name", ["junk.safetensors", "odd.safetensors", "config.json", "empty.txt"])
def test_other_files_than_safetensors_are_errors(weights, name):
    with pytest.raises(SealedDataError, match="is not safetensors"), weights.safetensors(name):
        pass


def test_the_helper(keys, tmp_path, tree, capsysbinary):
    sealed = str(tmp_path / "sealed")
    assert key_command.main([f"--keys={keys}", "cat", sealed, "shards/one-more.bin"]) == 0
    assert capsysbinary.readouterr().out == (tree / "shards/one-more.bin").read_bytes()
    assert key_command.main([f"--keys={keys}", "list", sealed]) == 0
    assert b"      17 B  config.json\n" in capsysbinary.readouterr().out
    for words, code in (
        ([f"--keys={keys}", "cat", sealed, "nothing"], 2),
        (["--keys=/nonexistent", "list", sealed], 2),
        ([f"--keys={keys}", "--model=other", "list", sealed], 2),
    ):
        assert key_command.main(words) == code
        captured = capsysbinary.readouterr()
        assert captured.out == b""
        assert captured.err.startswith(b"weightlock-key: ")
        assert captured.err.count(b"\n") == 1
    (keys / "atlas-70b" / "k1").write_bytes(bytes(32))
    assert key_command.main([f"--keys={keys}", "list", sealed]) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: (sealed / "weightlock.json").unlink() or (sealed / "weightlock.json").mkdir(),
        lambda sealed: (
            (sealed / "config.json.sealed").unlink()
            or (sealed / "config.json.sealed").symlink_to("config.json.sealed")
        ),
    ],
    ids=["manifest", "file"],
)
def test_the_helper_reports_an_unreadable_file_in_one_sentence(keys, tmp_path, capsysbinary, spoil):
    spoil(tmp_path / "sealed")
    assert key_command.main([f"--keys={keys}", "cat", str(tmp_path / "sealed"), "config.json"]) in {1, 3}
    err = capsysbinary.readouterr().err
    assert err.startswith(b"weightlock-key: ")
    assert err.count(b"\n") == 1


def test_the_helper_refuses_an_older_generation(keys, tmp_path, capsysbinary):
    assert key_command.main([f"--keys={keys}", "--generation=2", "list", str(tmp_path / "sealed")]) == 1
    assert b"was rolled back" in capsysbinary.readouterr().err


def test_a_closed_pipe_causes_no_traceback(keys, tmp_path):
    words = [sys.executable, "-m", "webhook.cli.key", f"--keys={keys}", "cat", str(tmp_path / "sealed")]
    with subprocess.Popen(
        [*words, "shards/deep/three.bin"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
