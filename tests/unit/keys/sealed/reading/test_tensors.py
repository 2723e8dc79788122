"""Tensors through the interface of safetensors: the same values as safetensors itself gives for the plain file."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import weightlock

from webhook.keys.errors import BadInputError, KeysError, SealedDataError
from webhook.keys.sealed import operations

RANDOM = np.random.default_rng(3)
TENSORS = {
    "f32": RANDOM.normal(size=(40, 30)).astype("f4"),
    "f16": RANDOM.normal(size=(7,)).astype("f2"),
    "i64": RANDOM.integers(-9, 9, (3, 4, 5)),
    "u8": RANDOM.integers(0, 255, (1000, 1700), "u1"),
    "bool": np.array([[True, False], [False, True]]),
    "scalar": np.array(3.5, "f8"),
    "empty": np.zeros((0, 4), "f4"),
}


@pytest.fixture
def plain(tmp_path):
    source = tmp_path / "plain"
    (source / "sharded").mkdir(parents=True)
    safetensors.numpy.save_file(TENSORS, source / "model.safetensors", {"format": "np"})
    names = list(TENSORS)
    shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for shard, part in shards.items():
        safetensors.numpy.save_file({name: TENSORS[name] for name in part}, source / "sharded" / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (source / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "sharded" / "bad.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    (source / "sharded" / "junk.index.json").write_text("[]")
    return source


@pytest.fixture
def sealed(plain, tmp_path, service, work):
    manifest = operations.seal(plain, tmp_path / "sealed", service, "atlas-70b", "k1", work)
    (tmp_path / "keys" / "atlas-70b").mkdir(parents=True)
    with service.unwrap(manifest.key, "atlas-70b") as secret, secret.view() as view:
        (tmp_path / "keys" / "atlas-70b" / "k1").write_bytes(view)
    return tmp_path / "sealed"


@pytest.fixture
def safe_open(sealed, tmp_path):
    def opener(path="model.safetensors", framework="np", **options):
        return weightlock.safe_open(str(sealed / path), framework, keys=tmp_path / "keys", **options)

    return opener


PLACES = ["model.safetensors", "", "sharded", "sharded/model.safetensors.index.json"]


@pytest.mark.parametrize("place", PLACES)
def test_all_tensors_are_the_same(safe_open, place):
    with safe_open(place) as tensors:
        assert sorted(tensors.keys()) == sorted(tensors.offset_keys()) == sorted(TENSORS)
        for name, expected in TENSORS.items():
            array = tensors.get_tensor(name)
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            assert np.array_equal(array, expected)


def test_names_metadata_and_slices_are_those_of_safetensors(safe_open, plain):
    with safe_open() as mine, safetensors.safe_open(plain / "model.safetensors", "np") as theirs:
        assert sorted(mine.keys()) == sorted(theirs.keys())
        assert mine.offset_keys() == theirs.offset_keys()
        assert mine.metadata() == theirs.metadata()
        for name in ("f32", "i64", "u8"):
            one, other = mine.get_slice(name), theirs.get_slice(name)
            assert one.get_shape() == other.get_shape()
            assert one.get_dtype() == other.get_dtype()
            for index in (
                np.s_[1:3],
                np.s_[:, 1:2],
                np.s_[1:, :1],
                np.s_[0],
                np.s_[...],
                np.s_[:0],
            ):
                assert np.array_equal(one[index], other[index]), (name, index)


def test_a_slice_reads_only_its_rows(safe_open, monkeypatch):
    with safe_open() as tensors:
        part = tensors.get_slice("u8")
        read, sizes = weightlock.Tensors.read_into, []

        def spy(self, name, buffer, skip=0):
            sizes.append(len(buffer))
            read(self, name, buffer, skip)

        monkeypatch.setattr(weightlock.Tensors, "read_into", spy)
        assert np.array_equal(part[500:502, 3], TENSORS["u8"][500:502, 3])
        assert np.array_equal(part[-1], TENSORS["u8"][-1])
        assert sizes == [3400, 1700]
        with pytest.raises(IndexError):
            part[1000]
        with pytest.raises(ValueError, match="step"):
            part[::2]


def test_load_file(sealed, tmp_path):
    loaded = weightlock.load_file(sealed / "sharded", "np", keys=tmp_path / "keys")
    assert all(np.array_equal(loaded[name], expected) for name, expected in TENSORS.items())


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nothing.safetensors", BadInputError, "has no file 'nothing.safetensors'"),
        ("sharded/bad.index.json", SealedDataError, "has no tensor 'x'"),
        ("sharded/junk.index.json", SealedDataError, "is not an index of shards"),
        ("../plain/model.safetensors", BadInputError, "is not in a sealed directory"),
    ],
)
def test_an_open_error_is_one_sentence(safe_open, path, error, message):
    with pytest.raises(error, match=message) as raised:
        safe_open(path)
    assert "\n" not in str(raised.value)


def test_an_unknown_framework_or_one_that_is_not_installed(safe_open):
    with pytest.raises(BadInputError, match="use 'pt' or 'np'"):
        safe_open(framework="tf")
    with pytest.raises(KeyError), safe_open() as tensors:
        tensors.get_tensor("nothing")


def test_a_damaged_segment_gives_no_tensor(safe_open, sealed):
    path = sealed / "model.safetensors.sealed"
    raw = bytearray(path.read_bytes())
    raw[1_200_000] ^= 1
    path.write_bytes(raw)
    with safe_open() as tensors:
        assert np.array_equal(tensors.get_tensor("scalar"), TENSORS["scalar"])
        with pytest.raises(SealedDataError, match="does not authenticate"):
            tensors.get_tensor("u8")


def test_torch_tensors(safe_open, sealed, tmp_path):
    torch = pytest.importorskip("torch")
    import weightlock.torch

    with safe_open(framework="pt") as tensors:
        for name, expected in TENSORS.items():
            tensor = tensors.get_tensor(name)
            assert tuple(tensor.shape) == expected.shape
            assert np.array_equal(np.array(tensor.tolist(), expected.dtype).reshape(expected.shape), expected)
        assert tensors.get_slice("f32")[3:5, 2].shape == (2,)
    loaded = weightlock.torch.load_file(str(sealed), keys=tmp_path / "keys")
    assert set(loaded) == set(TENSORS)
    if torch.cuda.is_available():
        on_device = weightlock.torch.load_file(str(sealed), device="cuda", keys=tmp_path / "keys")
        assert all(tensor.is_cuda for tensor in on_device.values())


def test_a_key_file_opens_it_without_a_sidecar(sealed, tmp_path):
    key_file = tmp_path / "keys" / "atlas-70b" / "k1"
    with weightlock.safe_open(sealed, "np", key_file=key_file) as tensors:
        assert tensors.get_tensor("scalar") == 3.5
    key_file.write_bytes(os.urandom(32))
    with pytest.raises(KeysError, match="does not match the manifest"):
        weightlock.safe_open(sealed, "np", key_file=key_file)
