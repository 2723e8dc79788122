"""The table of fields."""

import pytest

from webhook.cel.tools.known_fields import type_of


@pytest.mark.parametrize(
    ("path", "type_name"),
    [
        (("object", "metadata", "labels", "app"), "string"),
        (("object", "metadata", "name"), "string"),
        (("object", "spec", "replicas"), "int"),
        (("pod", "spec", "containers", "[]", "image"), "string"),
        (("pod", "spec", "containers", "[]", "securityContext", "privileged"), "bool"),
        (("object", "spec", "anything"), None),
        (("object",), None),
        ((), None),
    ],
)
def test_types_that_never_vary(path, type_name):
    assert type_of(path) == type_name
