"""YAML is read as kubectl reads it: the expected values come from sigs.k8s.io/yaml (k8s.io/apimachinery 0.34)."""

import json
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.manifests.kubectl_yaml import YamlError, parse

GOLDEN = json.loads((Path(__file__).parent / "golden" / "kubectl_yaml.json").read_text())


def values(text):
    return [value for value, _, _ in parse(text) if value is not None]


@pytest.mark.parametrize("case", GOLDEN, ids=[case["text"][:40] for case in GOLDEN])
def test_values_equal_those_of_kubectl(case):
    if case.get("error"):
        with pytest.raises(YamlError):
            values(case["text"])
    else:
        assert values(case["text"]) == case["values"]


def test_whole_floats_are_integers_as_in_the_json_of_kubectl():
    (document,) = values("replicas: 3.0\nratio: 0.5\n")
    assert (type(document["replicas"]), type(document["ratio"])) == (int, float)


def test_repeated_keys_are_reported_with_their_line():
    ((value, _, repeated),) = parse("a: 1\nb: 2\na: 3\n")
    assert value == {"a": 3, "b": 2}
    assert repeated == ("line 3: key 'a'",)


def test_a_merge_does_not_repeat_a_key():
    ((_, _, repeated),) = parse("x: &x {a: 1}\ny: {<<: *x, a: 2}\n")
    assert repeated == ()


@pytest.mark.parametrize("text", ["a: 1\nb: [", "a: 1\nb: \x01", "a: 1\nb: {{ x }}"])
def test_an_error_names_its_line(text):
    with pytest.raises(YamlError) as caught:
        values(text)
    assert caught.value.line in (1, 2)


def test_aliases_share_one_value():
    document = values("a: &a {b: 1}\nc: *a\nd: *a\n")[0]
    assert document["a"] is document["c"] is document["d"]


def test_a_bomb_of_aliases_takes_no_time():
    names = "abcdefghijklmnopqrstuvwxyz"
    bomb = "a: &a [x]\n" + "\n".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)
    )
    begun = time.process_time()
    values(bomb)
    assert time.process_time() - begun < 5


@given(st.text(max_size=200))
def test_any_text_is_a_value_or_an_error(text):
    with suppress(YamlError):
        assert all(isinstance(line, int) for _, line, _ in parse(text))
