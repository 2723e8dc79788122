from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealedfiles import partial_path

from webhook.keys.errors import BadInputError
from webhook.keys.sealed.format.paths import check_key_id, check_model, check_relative, sealed_names


@pytest.mark.parametrize("path", ["a", "a/b", "..a/b..", "модель/вес.bin", "a b", "-x"])
def test_good_paths(path):
    assert check_relative(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", "a\nb", "a\x7f", "\udcff", "x" * 4097],
)
def test_bad_paths(path):
    with pytest.raises(BadInputError):
        check_relative(path)


@given(st.text(max_size=40))
def test_an_accepted_path_stays_inside(path):
    try:
        check_relative(path)
    except BadInputError:
        return
    assert Path("/root/inside", path).resolve().is_relative_to("/root/inside")


@pytest.mark.parametrize("model", ["", "A", "a/b", "-a", "a-", "a_b", "a\n", "x" * 254])
def test_bad_models(model):
    with pytest.raises(BadInputError, match="is not a valid model name"):
        check_model(model)


@pytest.mark.parametrize("key_id", ["", "a/b", "a b", "-a", "a\n", "x" * 254])
def test_bad_key_ids(key_id):
    with pytest.raises(BadInputError, match="is not a valid key id"):
        check_key_id(key_id)


def test_good_names():
    assert check_model("atlas-70b.v2") == "atlas-70b.v2"
    assert check_key_id("2026-11_B") == "2026-11_B"


def test_sealed_names_never_take_one_in_use():
    duration = {"x.sealed", "x.2.sealed", "y.sealed"}
    names = sealed_names(["x", "y", "z"], 2, duration)
    assert names == {"x": "x.2-1.sealed", "y": "y.2.sealed", "z": "z.sealed"}
    assert sealed_names(["x", "y", "z"], 2, duration) == names


def test_two_files_never_share_a_sealed_name():
    names = sealed_names(["x", "x.2"], 2, {"x.sealed"})
    assert len(set(names.values())) == 2


def test_a_partial_file_is_hidden_beside_its_final_place():
    assert partial_path(Path("/d/model.bin")) == Path("/d/.model.bin.weightlock-partial")
