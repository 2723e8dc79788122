"""Files as users have them: each document is an object or one sentence with file and line, and harms no other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.manifests.reader import (
    MAX_FILE_BYTES,
    Manifest,
    ManifestError,
    read_bytes,
    read_path,
    scan_bytes,
    scan_path,
)


def documents(text):
    content = text if isinstance(text, bytes) else text.encode()
    return [manifest.document for manifest in read_bytes(content, "test")]


def scanned(text):
    content = text if isinstance(text, bytes) else text.encode()
    return list(scan_bytes(content, "f.yaml"))


def problems(text):
    return [str(item) for item in scanned(text) if isinstance(item, ManifestError)]


def test_many_documents_a_file_and_lists_are_opened():
    text = "a: 1\n---\n---\nkind: List\nitems:\n- {b: 2}\n- {c: 3}\n"
    assert documents(text) == [{"a": 1}, {"b": 2}, {"c": 3}]


SAME = {
    "YAML": "kind: Pod\nm: 1\n",
    "JSON": '{"kind": "Pod", "m": 1}',
    "JSON with tabs": '{\n\t"kind":\t"Pod",\n\t"m": 1\n}',
    "JSON in YAML": '--- # comment\n{"kind": "Pod", "m": 1}\n',
    "flow YAML": "{kind: Pod, m: 1}",
    "a document on the line of its separator": "--- {kind: Pod, m: 1}\n",
    "Windows line ends": "---\r\nkind: Pod\r\nm: 1\r\n---\r\n",
    "a directive": "%YAML 1.1\n---\nkind: Pod\nm: 1\n",
    "an end mark": "kind: Pod\nm: 1\n...\n",
    "a comment before": "# Copyright\n\n---\nkind: Pod\nm: 1\n",
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_the_forms_of_one_object(text):
    assert documents(text) == [{"kind": "Pod", "m": 1}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks(encoding):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    assert documents(mark + "kind: Pöd\n".encode(encoding)) == [{"kind": "Pöd"}]


def test_concatenated_files_with_marks_each():
    assert documents("\ufeffa: 1\n---\n\ufeffb: 2\n".encode()) == [{"a": 1}, {"b": 2}]


def test_a_stream_of_json_objects():
    assert documents('{"a": 1}\n{"b": 18446744073709551616}{"c": 3}\n') == [
        {"a": 1},
        {"b": 18446744073709551616.0},
        {"c": 3},
    ]


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
        ("a: .inf", "JSON does not have"),
    ],
)
def test_a_problem_names_its_place(text, says):
    with pytest.raises(ManifestError) as caught:
        documents(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        "replicas: {{ .Values.replicas }}",
        "{{- if .Values.x }}\na: 1\n{{- end }}",
        'name: {{ include "x.name" . }}\nlabels:\n{{ toYaml .Values.labels | indent 2 }}',
        'kind: Pod\nmetadata: {name: "{{ .Release.Name }}-x"}',
        "a: {% if x %}",
        'apiVersion: v1\nkind: Pod\nspec: {containers: [{image: "{{ image }}"}]}',
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {serviceAccountName: '${ACCOUNT}'}}}",
        "apiVersion: batch/v1\nkind: Job\nspec: {a: &a {claimName: <%= claim %>}, b: [*a, *a]}",
    ],
)
def test_an_unrendered_template_is_one_sentence_and_spoils_no_other(bad):
    items = scanned(f"kind: A\n---\n{bad}\n---\nkind: B\n")
    assert [type(item) for item in items] == [Manifest, ManifestError, Manifest]
    assert str(items[1]).startswith("f.yaml:")
    assert "unrendered template" in str(items[1])
    assert items[1].line in (3, 4, 5)


@pytest.mark.parametrize(
    "text",
    [
        'kind: Workflow\nspec: {image: "{{inputs.parameters.image}}", when: "{{=1 + 1}}"}',
        'kind: ConfigMap\ndata: {t: "{{ .Values.x }}"}',
        "kind: ConfigMap\ndata:\n  t: |\n    {{- range .Alerts }}{{ .Labels }}{{ end }}\n",
        'kind: Pod\nargs: ["--format={{.ID}}"]',
        'apiVersion: v1\nkind: Pod\nspec: {containers: [{image: a, env: [{name: a, value: "${A} {{ x }}"}]}]}',
        'apiVersion: example.com/v1\nkind: Deployment\nspec: {image: "{{ image }}"}',
    ],
)
def test_placeholders_and_data_differ_from_unrendered_templates(text):
    assert problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        'kind: PrometheusRule\nspec: {d: "{{ $labels.pod }} {{ range query }}{{ end }}"}',
        "kind: Pod\nmetadata: {annotations: {t: '{{- with secret \"a\" -}}{{ .Data.x }}{{ end }}'}}",
        "kind: HelmRelease\nspec: {values: {a: '{{ .Release.Name }}'}}",
        "kind: Task\nspec: {script: 'docker inspect --format {{.Id}}'}",
    ],
)
def test_templates_of_other_programs_belong_to_the_object(text):
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Pod\nmetadata:\n  name: ${NAME}\n", 3),
        ("kind: Pod\nmetadata:\n  name: '{{ item }}'\n", 3),
        ("kind: Pod\nmetadata:\n  name: <%= x %>\n", 3),
        ("kind: Pod\nmetadata: {name: x}\nspec:\n  a: '{{ .Values.a }}'\n", 4),
        ("kind: Pod\nmetadata: {name: x}\nspec: {replicas: ${N}}\n", 3),
    ],
)
def test_a_name_or_value_that_no_object_has_is_a_template_at_its_line(text, line):
    (item,) = scanned(text)
    assert isinstance(item, ManifestError)
    assert (item.line, "unrendered template" in str(item)) == (line, True)


def test_each_document_can_begin_with_a_mark():
    assert [item.document["kind"] for item in scanned("\ufeffkind: A\n---\n\ufeffkind: B\n")] == ["A", "B"]


def test_lists_nest_and_give_their_kind_to_their_items():
    nested = "kind: List\nitems: [{kind: List, items: [{kind: A}]}, {kind: BList, apiVersion: v1, items: [{x: 1}]}]"
    assert [item.document["kind"] for item in scanned(nested)] == ["A", "B"]
    assert scanned("kind: List\nitems: null\n") == []
    (allow,) = scanned("kind: AllowList\nmetadata: {name: a}\nitems: [x]\n")
    assert allow.document["items"] == ["x"]


@pytest.mark.parametrize("opener", ["[", "{{ ", "{a: ", "- "])
def test_no_depth_of_nesting_ends_the_process(opener):
    (problem,) = problems(f"x: [\n{opener * 100_000}" if opener != "- " else opener * 100_000)
    assert "not valid YAML" in problem or "unrendered template" in problem


def test_lines_count_from_the_start_of_the_file():
    items = scanned("# one\n---\nkind: A\n\n---\n# x\nkind: B\n---\nkind: [\n")
    assert [item.line for item in items] == [3, 7, 10]
    assert problems("kind: A\n---\nkind: B\nx: y: z\n") == [
        "f.yaml:4: not valid YAML: mapping values are not allowed in this context"
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x7fELF\0\0\x01", "binary"),
        (b"a: 1\nb: \xff\xfe\n", "f.yaml:2: not a text file"),
        (b"PK\x03\x04\0\0", "binary"),
    ],
)
def test_binary_files(content, says):
    (problem,) = problems(content)
    assert says in problem


def test_a_recorded_review_retains_values_that_policies_cannot_read():
    """The webhook answers it with a denial, and so does a review of the file."""
    (item,) = scanned('kind: AdmissionReview\nrequest: {uid: u, object: {a: "x\\0y"}}\n')
    assert "NUL" in item.unsafe
    with pytest.raises(ManifestError):
        documents('kind: AdmissionReview\nrequest: {uid: u, object: {a: "x\\0y"}}\n')


def test_repeated_keys_are_notes_of_a_scan():
    (item,) = scanned("a: 1\na: 2\n")
    assert item.document == {"a": 2}
    assert item.notes == ("line 2: key 'a' is given twice; kubectl uses the last value",)


def test_directories_are_read_in_order_and_other_files_left_alone(tmp_path):
    (tmp_path / "b.yaml").write_text("name: b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text('{"name": "a"}')
    (tmp_path / "README.md").write_text("# no")
    assert [manifest.document["name"] for manifest in read_path(tmp_path)] == ["a", "b"]


def test_hidden_files_and_directories_are_left_alone(tmp_path):
    """Settings of other tools, and the versions of a mounted ConfigMap beside the links to them."""
    (tmp_path / "..2026_11_30").mkdir()
    (tmp_path / "..2026_11_30" / "a.yaml").write_text("name: a")
    (tmp_path / "a.yaml").symlink_to(tmp_path / "..2026_11_30" / "a.yaml")
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "workflow.yaml").write_text("on: push")
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []")
    assert [manifest.document["name"] for manifest in read_path(tmp_path)] == ["a"]


def test_a_bad_file_of_a_directory_spoils_no_other(tmp_path):
    (tmp_path / "a.yaml").write_text("kind: [")
    (tmp_path / "b.yaml").write_text("kind: B")
    (tmp_path / "c.yaml").symlink_to(tmp_path / "nowhere")
    assert [type(item) for item in scan_path(tmp_path)] == [ManifestError, Manifest]


def test_a_file_that_does_not_exist_is_named(tmp_path):
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


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), JSON_VALUES, min_size=1, max_size=3))
def test_json_survives(document):
    assert documents(json.dumps(document)) == [document]
    assert documents("---\n" + json.dumps(document, indent=1) + "\n---\n") == [document]


@given(st.binary(max_size=200))
def test_any_bytes_are_objects_or_sentences(content):
    texts = [str(item) for item in scan_bytes(content, "f") if isinstance(item, ManifestError)]
    assert all(text.startswith("f") and "\n" not in text for text in texts)
