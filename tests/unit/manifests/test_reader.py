import pytest

from webhook.manifests.reader import MAX_FILE_BYTES, ManifestError, read_bytes, read_path


def documents(text):
    return [manifest.document for manifest in read_bytes(text.encode(), "test")]


def test_many_documents_a_file_and_lists_are_opened():
    text = "a: 1\n---\n---\nkind: List\nitems:\n- {b: 2}\n- {c: 3}\n"
    assert documents(text) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_json_is_yaml():
    assert documents('{"a": [true, null, "x"]}') == [{"a": [True, None, "x"]}]


def test_timestamps_stay_text_as_in_kubernetes():
    assert documents("at: 2026-11-23T12:00:00Z") == [{"at": "2026-11-23T12:00:00Z"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "test:"),
        ("- 1", "not a Kubernetes object"),
        ("a: 1\na: 2", "'a' is given twice"),
        ("!!python/object/apply:os.system [id]", "not a Kubernetes object"),
        ("? [1]\n: one", "key"),
        ('a: "x\\0y"', "NUL"),
        ("kind: List\nitems: [1]", "items[0]"),
        ("a: &a [*a]", "test"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, says):
    with pytest.raises(ManifestError) as caught:
        documents(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_directories_are_read_in_order_and_other_files_left_alone(tmp_path):
    (tmp_path / "b.yaml").write_text("name: b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text('{"name": "a"}')
    (tmp_path / "README.md").write_text("# no")
    assert [manifest.document["name"] for manifest in read_path(tmp_path)] == ["a", "b"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ManifestError, match="nowhere"):
        list(read_path(tmp_path / "nowhere.yaml"))


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ManifestError, match="larger than"):
        list(read_path(path))


def test_aliases_cannot_grow_without_bound():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ManifestError):
        documents(bomb)
