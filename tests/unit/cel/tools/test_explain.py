"""Explanations: what failed, on which element, and why the rest does not matter."""

import pytest

from webhook.cel import Bindings
from webhook.cel.authz import Answers
from webhook.cel.tools.explain import brief, explain

POD = {
    "metadata": {"name": "train", "labels": {"app": "x"}},
    "spec": {
        "containers": [
            {"name": "good", "image": "registry.example.com/a", "securityContext": {"runAsNonRoot": True}},
            {"name": "bad", "image": "docker.io/b", "env": [{"name": "TOKEN", "value": "hunter2"}]},
        ]
    },
}


BAD = '{name "bad"; keys: env, image, name}'


@pytest.fixture
def lines(env):
    def tree(source, *, params=None, variables=(), **data):
        scope = env.variables()
        for name, text in dict(variables).items():
            scope.define(name, text)
        program = env.compile(source, expect="any", variables=scope)
        return list(explain(program, Bindings({"object": POD, **data}), params).lines())

    return tree


def test_the_element_that_fails_an_all(lines):
    assert lines("object.spec.containers.all(c, c.image.startsWith('registry.'))") == [
        "object.spec.containers.all(c, c.image.startsWith('registry.')) = false",
        "  object.spec.containers = [2 elements]",
        f"  c.image.startsWith('registry.') = false   [element 2 of 2, c = {BAD}: decides]",
        '    c.image = "docker.io/b"',
    ]


def test_the_operand_that_decides(lines):
    assert lines(
        "object.metadata.name == 'train' && object.metadata.name == 'other' && object.nope == 1"
    ) == [
        "object.metadata.name == 'train' && object.metadata.name == 'other' && object.nope == 1 = false",
        "  object.metadata.name == 'train' = true",
        '    object.metadata.name = "train"',
        "  object.metadata.name == 'other' = false   [decides]",
        '    object.metadata.name = "train"',
        "  object.nope == 1 = error: no such key: nope   [does not matter here]",
    ]


def test_the_branch_that_was_chosen(lines):
    assert lines(
        "has(object.spec.nodeName) ? object.spec.nodeName == 'x' : params.allow", params={"allow": False}
    ) == [
        "has(object.spec.nodeName) ? object.spec.nodeName == 'x' : params.allow = false",
        "  has(object.spec.nodeName) = false   [condition]",
        "    object.spec = {keys: containers}",
        "  object.spec.nodeName == 'x'   [not reached]",
        "  params.allow = false   [chosen]",
    ]


def test_variables_are_named_and_opened(lines):
    tree = lines(
        "variables.images.exists(i, i == 'x')", variables={"images": "object.spec.containers.map(c, c.image)"}
    )
    assert tree[1] == '  variables.images = ["registry.example.com/a", "docker.io/b"]'
    assert tree[2].endswith("[definition of variables.images]")
    assert '    i = "docker.io/b"' not in tree, "the element is told with the predicate"
    assert tree[-1].startswith("  i == 'x' = false   [element 2 of 2")


def test_an_error_is_followed_to_its_origin(lines):
    assert lines("object.spec.missing.deep == 1")[-3:] == [
        "    object.spec.missing.deep".replace("    ", "  ", 1) + " = error: no such key: missing",
        "    object.spec.missing = error: no such key: missing",
        "      object.spec = {keys: containers}",
    ]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "object.metadata.labels.all(k, v, v == 'y')",
            "  v == 'y' = false   [element 1 of 1, k = \"app\": decides]",
        ),
        ("object.spec.containers.exists_one(c, has(c.image))", "  has(c.image) = true   [element 1 of 2, "),
        ("object.?spec.?hostNetwork.orValue(false) == true", '    object.?spec.?hostNetwork = "none"'),
        ("object.?spec.?containers.orValue([]).size() == 0", "      object.?spec.?containers = [2 elements]"),
        ("object.?metadata.optMap(m, m.name == 'y').orValue(false) == true", "      m.name == 'y' = false"),
        ("!(object.metadata.name in ['a', 'train'])", "    ['a', 'train'] = [\"a\", \"train\"]"),
        (
            "object.spec.containers.filter(c, c.name == 'bad').size() == 0",
            "      c.name == 'bad' = true   [element 2 of 2",
        ),
    ],
)
def test_parts_of_other_kinds(lines, source, line):
    assert any(text.startswith(line) for text in lines(source)), "\n".join(lines(source))


def test_values_of_the_libraries(lines):
    tree = lines(
        "cidr('10.0.0.0/8').containsIP('11.0.0.1') || cidr('10.0.0.0/8').containsIP(object.metadata.name)"
    )
    assert tree[1] == "  cidr('10.0.0.0/8').containsIP('11.0.0.1') = false"
    assert tree[-2:] == ["    cidr('10.0.0.0/8') = <net.CIDR>", '    object.metadata.name = "train"']
    assert lines("[3, 1].sortBy(x, -x)[0] == 1")[1:] == [
        "  [3, 1].sortBy(x, -x)[0] = 3",
        "    [3, 1].sortBy(x, -x) = [3, 1]",
        "      [3, 1] = [3, 1]",
    ]


def test_values_are_short_and_objects_are_not_dumped(lines):
    text = "\n".join(lines("object == null || object.spec.containers == []"))
    assert "hunter2" not in text
    assert max(map(len, brief({str(number): 1 for number in range(999)}).splitlines())) <= 200


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"), (True, "true"), (1, "1"), (1.5, "1.5"), ("x", '"x"'), ({}, "{}"), ([], "[]"),
        (["a", 1], '["a", 1]'), ([{}], "[1 elements]"), ({"b": 1, "a": 2}, "{keys: a, b}"),
        ("y" * 300, '"' + "y" * 198 + "…"),
    ],
)  # fmt: skip
def test_values_in_words(value, words):
    assert brief(value) == words


def test_a_question_to_the_authorizer_stays_where_it_is(env):
    program = env.compile("object == null || authorizer.path('/x').check('get').allowed()")
    answers = Answers()
    tree = list(explain(program, Bindings({"object": POD}, authorizer=answers)).lines())
    assert any("check is pending" in line for line in tree)
    assert answers.open == set()


def test_a_huge_tree_is_cut(env):
    source = " && ".join(f"object.metadata.name != 'n{number}'" for number in range(400))
    tree = list(explain(env.compile(source), Bindings({"object": POD})).lines())
    assert len(tree) < 1200
