"""cel-python, which shares no code with the engine, agrees wherever it can read an expression."""

import pytest

from webhook.cel import EvaluationError

POD = {
    "metadata": {"name": "train", "labels": {"app": "x"}, "annotations": {}},
    "spec": {
        "hostNetwork": False,
        "containers": [
            {"name": "a", "image": "registry.example.com/a:1", "ports": [{"containerPort": 80}]},
            {"name": "b", "image": "docker.io/b@sha256:ab", "securityContext": {"privileged": True}},
        ],
    },
}
SOURCES = [
    "object.metadata.name == 'train'",
    "object.spec.containers.all(c, c.image.startsWith('registry.'))",
    "object.spec.containers.exists(c, has(c.securityContext) && c.securityContext.privileged)",
    "object.spec.containers.exists_one(c, c.name == 'b')",
    "object.spec.containers.filter(c, has(c.ports)).size() == 1",
    "object.spec.containers.map(c, c.name) == ['a', 'b']",
    "has(object.metadata.labels) && object.metadata.labels['app'] == 'x'",
    "'app' in object.metadata.labels && !('tier' in object.metadata.labels)",
    "size(object.spec.containers) > 1 && size(object.metadata.name) == 5",
    "object.spec.hostNetwork || object.metadata.name.matches('^t[a-z]+n$')",
    "object.spec.containers[0].ports[0].containerPort + 1 == 81",
    "object.metadata.name.contains('rai') ? object.metadata.name.endsWith('n') : false",
    "int('12') * 2 == 24 && string(5) == '5' && double('1.5') < 2.0",
    "duration('1h') > duration('59m') && timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026",
    "object.metadata.annotations == {} || 1 / 0 == 1",
    "object.metadata.nope == 1",
    "object.spec.containers[7].name == 'x'",
    "object.metadata.name + 1 == 2",
    "[1, 2, 3].all(x, x > 0) && ![].exists(x, true)",
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_two_engines_agree(value, second_opinion, source):
    opinion = second_opinion(source, {"object": POD})
    assert opinion is not None, "cel-python reads all of these"
    try:
        mine = value(source, object=POD)
    except EvaluationError:
        assert opinion.error
    else:
        assert (mine, "") == (opinion.value, opinion.error)


def test_unsupported_expressions_have_no_second_opinion(second_opinion):
    assert second_opinion("object.?a.orValue(1) == 1", {"object": {}}) is None
    assert second_opinion("quantity('1').isGreaterThan(quantity('2'))", {}) is None
