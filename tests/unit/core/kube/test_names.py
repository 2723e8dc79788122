"""Patterns, paths, image references, and the indexes over them: each against the plain way to say the same."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.kube.names import (
    GlobIndex,
    ImageReference,
    PathIndex,
    PatternSet,
    ancestors,
    compile_glob,
    image_reference,
    is_glob,
    normal_path,
    path_within,
    paths_touch,
)

texts = st.text("ab/.", max_size=12)
patterns = st.text("ab/*?", max_size=8)


def plainly(pattern, text):
    """The meaning of a pattern, without a thought for speed."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(plainly(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and plainly(pattern[1:], text[1:])


@given(patterns, texts)
def test_a_glob_matches_like_a_plain_search(pattern, text):
    assert (compile_glob(pattern).fullmatch(text) is not None) is plainly(pattern, text)


def test_a_glob_takes_characters_of_regular_expressions_as_they_are():
    assert compile_glob("a.b[c]*").fullmatch("a.b[c]\nx")
    assert not compile_glob("a.b*").fullmatch("axb")


def test_many_wildcards_do_not_backtrack_into_each_other():
    # Without atomic groups this takes longer than the universe has existed.
    assert compile_glob("*a" * 40 + "b").fullmatch("a" * 5000) is None


def test_no_patterns_match_everything():
    assert PatternSet([]).matches("anything")
    assert not PatternSet(["a"]).matches("anything")


@given(st.lists(patterns, max_size=6), texts)
def test_an_index_returns_all_matching_patterns(many, text):
    index = GlobIndex()
    for number, pattern in enumerate(many):
        index.add(pattern, number)
    expected = [number for number, pattern in enumerate(many) if plainly(pattern, text)]
    assert sorted(index.find(text)) == expected
    assert PatternSet(many).matches(text) is (not many or bool(expected))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("/a/", "/a"),
        ("a/b", "/a/b"),
        ("/a//b/./c", "/a/b/c"),
        ("/a/../b", "/b"),
        ("/../../etc", "/etc"),
        ("/a/b/../../..", "/"),
        ("/var/run/docker.sock", "/run/docker.sock"),
        ("/var/lib/../run/x", "/run/x"),
        ("/var/running", "/var/running"),
        ("C:\\var\\lib\\kubelet", "/var/lib/kubelet"),
        ("\\\\.\\pipe\\docker_engine", "/pipe/docker_engine"),
        ("/a\\b", "/a\\b"),
    ],
)
def test_paths_are_normalised_as_the_node_resolves_them(path, expected):
    assert normal_path(path) == expected


@given(st.text("a/.", max_size=20))
def test_a_normal_path_stays_as_it_is(path):
    once = normal_path(path)
    assert normal_path(once) == once
    assert once.startswith("/")
    assert re.search(r"//|/\.{1,2}(/|$)", once) is None


@pytest.mark.parametrize(
    ("path", "directory", "within"),
    [("/a", "/", True), ("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/", "/a", False)],
)
def test_within(path, directory, within):
    assert path_within(path, directory) is within
    assert paths_touch(path, directory) is (within or path_within(directory, path))


def test_ancestors_end_at_the_root():
    assert list(ancestors("/a/b")) == ["/a/b", "/a", "/"]
    assert list(ancestors("/")) == ["/"]


components = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4)
glob_components = st.lists(st.sampled_from(["a", "b", "a*", "*", "?b"]), max_size=4)


@given(st.lists(glob_components, max_size=5), components)
def test_a_path_index_returns_parents_and_children(protected, asked):
    index = PathIndex()
    for number, parts in enumerate(protected):
        index.add("/" + "/".join(parts), number)
    path = "/" + "/".join(asked)
    expected = {
        number
        for number, parts in enumerate(protected)
        if all(plainly(glob, part) for glob, part in zip(parts, asked, strict=False))
    }
    assert set(index.find(path)) == expected


def test_a_literal_path_may_hold_wildcard_characters():
    index = PathIndex()
    index.add_literal("/a/*", "star")
    assert list(index.find("/a/b")) == []
    assert list(index.find("/a/*")) != []


HEX = "0" * 64


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io/library/nginx", "", ""),
        ("nginx:1", "docker.io/library/nginx", "1", ""),
        ("index.docker.io/nginx", "docker.io/library/nginx", "", ""),
        ("user/app", "docker.io/user/app", "", ""),
        ("docker.io/user/app:v1", "docker.io/user/app", "v1", ""),
        ("registry.example.com/a/b", "registry.example.com/a/b", "", ""),
        ("Registry.Example.COM/a/b", "registry.example.com/a/b", "", ""),
        ("registry.example.com:443/a", "registry.example.com/a", "", ""),
        ("registry.example.com:5000/a:b", "registry.example.com:5000/a", "b", ""),
        ("localhost/a", "localhost/a", "", ""),
        (f"registry.example.com/a@sha256:{HEX}", "registry.example.com/a", "", f"sha256:{HEX}"),
        (f"registry.example.com/a:t@sha256:{HEX}", "registry.example.com/a", "t", f"sha256:{HEX}"),
        ("registry.example.com/models/*", "registry.example.com/models/*", "", ""),
        ("*.example.com/models/*:v?", "*.example.com/models/*", "v?", ""),
        ("*", "*", "", ""),
        ("*atlas*", "*atlas*", "", ""),
    ],
)
def test_image_references_in_one_spelling(text, repository, tag, digest):
    assert image_reference(text) == ImageReference(repository, tag, digest)


def test_patterns_with_a_wildcard():
    assert is_glob("a?")
    assert is_glob("*")
    assert not is_glob("a.[b]")
