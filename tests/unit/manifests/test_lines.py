"""The line of a field in the text of a manifest."""

import pytest

from webhook.manifests.lines import steps_of
from webhook.manifests.reader import scan_bytes

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"


def lines(text, *fields):
    """The lines of the fields of the last object in a text."""
    *_, manifest = scan_bytes(text.encode(), "f.yaml")
    return [manifest.line_of(field) for field in fields]


def test_members_and_items_of_lists():
    text = f"{HEAD}spec:\n  containers:\n  - name: a\n  - name: b\n    image: i\n"
    assert lines(text, "spec", "spec.containers[0]", "spec.containers[1].image") == [4, 6, 8]


def test_a_field_that_is_absent_has_the_line_of_its_parent():
    text = f"# first\n{HEAD}spec:\n  containers:\n  - name: a\n"
    assert lines(text, "spec.containers[3].image", "status.phase", "spec.x.y", "") == [6, 2, 5, 2]


def test_an_invalid_path_has_the_first_line_of_the_document():
    text = f"---\n{HEAD}---\n\n{HEAD}"
    assert lines(text, "Deployment a/b: spec.template", "...", "[[", "[0]", "[99999999999]") == [7] * 5


@pytest.mark.parametrize("separator", ["---\n", "--- # next\n", "...\n---\n"])
def test_documents_of_one_file(separator):
    text = f"{HEAD}spec: {{}}\n{separator}{HEAD}spec:\n  a: 1\n"
    assert lines(text, "spec.a") == [text.count("\n")]


def test_an_alias_has_the_line_of_its_use_and_its_members_those_of_the_anchor():
    text = f"{HEAD}x: &a\n  image: i\nspec: *a\n"
    assert lines(text, "spec", "spec.image") == [6, 5]


def test_merge_keys_follow_the_reader():
    text = (
        f"{HEAD}x: &a\n  k: 1\n  l: 1\ny: &b\n  k: 2\n"
        "spec:\n  l: 3\n  <<: [*b, *a]\nlater:\n  <<: *a\n  l: 4\n"
    )
    assert lines(text, "spec.k", "spec.l", "later.l", "later.k") == [8, 6, 14, 5]


def test_the_last_of_repeated_keys_counts():
    assert lines(f"{HEAD}spec: {{a: 1}}\nspec:\n  a: 2\n", "spec.a") == [6]


def test_merges_that_double_take_no_time():
    text = HEAD + "a0: &a0 {k: 1}\n"
    text += "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
    assert lines(f"{text}spec: *a39\n", "spec.absent", "spec.k") == [44, 4]


def test_json():
    text = '{\n\t"apiVersion": "v1",\n\t"kind": "Pod",\n\t"spec": {"containers": [\n'
    text += '\t\t{"name": "a"},\n\t\t{"name": "b"}\n]}}\n'
    assert lines(text, "spec.containers[1].name", "spec") == [6, 4]


def test_a_stream_of_json():
    one = '{"apiVersion": "v1", "kind": "Pod",\n "spec": {\n  "a": 1}}\n'
    assert lines(one + one, "spec.a", "kind") == [6, 4]


def test_items_of_a_list():
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n- apiVersion: v1\n  kind: Pod\n  spec:\n    a: 1\n"
    assert lines(text, "spec.a", "absent") == [8, 5]


def test_windows_line_ends_and_marks():
    text = f"\ufeff{HEAD}spec:\n  a: 1\n".replace("\n", "\r\n")
    assert lines(text, "spec.a") == [5]


def test_keys_with_dots():
    document = {"data": {"a.b": {"c": 1}, "a.b.c": 2, "a": 3}}
    assert steps_of(document, "data.a.b.c") == ("data", "a", "b", "c")
    del document["data"]["a"]
    assert steps_of(document, "data.a.b.c") == ("data", "a.b.c")
    assert steps_of({"spec": {"x.y/z": {"t": [1]}}}, "spec.x.y/z.t[0]") == ("spec", "x.y/z", "t", 0)
    assert steps_of({}, "spec.jobs[2].template") == ("spec", "jobs", 2, "template")


def test_integer_keys_are_found_as_the_reader_spells_them():
    assert lines(f"{HEAD}spec:\n  0x10:\n    a: 1\n", "spec.16.a") == [6]
