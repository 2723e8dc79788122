import pytest
from google.protobuf import descriptor_pool

from webhook.cel.libraries import authorizer, formats, network, opaque, quantity, semver, url

VALUES = [
    quantity.parse("1.5Gi"),
    quantity.parse("-100m"),
    semver.parse("1.2.3-rc.1.x"),
    url.parse("https://u:p@host:1/p?q#f"),
    formats.Format("uuid"),
    network.parse_ip("10.0.0.1"),
    network.parse_cidr("2001:db8::1/33"),
    authorizer.Authorizer(),
    authorizer.Authorizer("ns", "name"),
    authorizer.PathCheck(authorizer.Authorizer("ns", "name"), "/x"),
    authorizer.GroupCheck(authorizer.Authorizer(), "apps"),
    authorizer.ResourceCheck(authorizer.Authorizer(), "apps", "deployments", "scale", "ns", "n", "a=b", "c"),
    authorizer.Decision(allowed=True, reason="because"),
    authorizer.Decision(allowed=False, error="down"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_survives_its_message(value):
    message = opaque.pack(value)
    again = opaque.unpack(type(message).FromString(message.SerializeToString()))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_message_that_no_library_made_is_refused(value):
    message = type(opaque.pack(value))(**{opaque.FIELD: ["x"] * 12})
    with pytest.raises(ValueError, match=f"not a value of type {value.TYPE}"):
        opaque.unpack(message)


def test_the_files_make_a_pool():
    pool = descriptor_pool.DescriptorPool()
    for file in opaque.message_files():
        pool.AddSerializedFile(file.SerializeToString())
    for value in VALUES:
        descriptor = pool.FindMessageTypeByName(value.TYPE)
        # A keyword of CEL, so no source can write or read it.
        assert [field.name for field in descriptor.fields] == ["in"]
