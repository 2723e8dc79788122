import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import formats

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
KEY = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    " (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_PROBLEMS = [
    ("dns1123Label", "my-label-name", []),
    ("dns1123Label", "contains.a.dot", ["must not contain dots"]),
    ("dns1123Label", "Upper", [LABEL]),
    ("dns1123Label", "", [LABEL]),
    ("dns1123Label", "a" * 64, ["must be no more than 63 characters"]),
    ("dns1123Label", "A" * 64, ["must be no more than 63 characters", LABEL]),
    ("dns1123LabelPrefix", "my-label-prefix-", []),
    ("dns1123LabelPrefix", "-", [LABEL]),
    ("dns1123Subdomain", "apiextensions.k8s.io", []),
    ("dns1123Subdomain", "a..b", [SUBDOMAIN]),
    ("dns1123Subdomain", "a" * 254, ["must be no more than 253 characters"]),
    ("dns1123SubdomainPrefix", "mysubdomain.prefix.-", []),
    ("dns1035Label", "my-label-name", []),
    ("dns1035Label", "1a", [DNS_1035]),
    ("dns1035LabelPrefix", "my-label-prefix-", []),
    ("qualifiedName", "apiextensions.k8s.io/v1beta1", []),
    ("qualifiedName", "MyName", []),
    ("qualifiedName", "/b", ["prefix part must be non-empty"]),
    ("qualifiedName", "A_/b", [f"prefix part {SUBDOMAIN}"]),
    ("qualifiedName", "a/", ["name part must be non-empty", f"name part {KEY}"]),
    ("qualifiedName", "a" * 64, ["name part must be no more than 63 bytes"]),
    (
        "qualifiedName",
        "a/b/c",
        [
            f"a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ],
    ),
    ("labelValue", "", []),
    ("labelValue", "my_value.1", []),
    ("labelValue", "-a", [VALUE]),
    ("uri", "http://example.com", []),
    ("uri", "relative", ['parse "relative": invalid URI for request']),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", []),
    ("uuid", "123E4567E89B12D3A456426614174000", []),
    ("uuid", "123e4567-e89b-12d3-a456-42661417400", ["does not match the UUID format"]),
    ("byte", "aGVsbG8=", []),
    ("byte", "aGVsbG8", ["invalid base64"]),
    ("byte", "", ["invalid base64"]),
    ("byte", "ab=c", ["invalid base64"]),
    ("byte", "ab==", []),
    ("byte", "a===", ["invalid base64"]),
    ("date", "2021-01-01", []),
    ("date", "2020-02-29", []),
    ("date", "0000-02-29", []),
    ("date", "2021-02-29", ["invalid date"]),
    ("date", "2021-13-01", ["invalid date"]),
    ("date", "2021-1-1", ["invalid date"]),
    ("datetime", "2021-01-01T00:00:00Z", []),
    ("datetime", "2021-01-01t23:59:59.5+01:00", []),
    ("datetime", "2021-01-01T00:00:00", ["invalid datetime"]),
    ("datetime", "2021-01-01T24:00:00Z", ["invalid datetime"]),
    ("datetime", "2021-01-01T00:00:60Z", ["invalid datetime"]),
    ("datetime", "2021-02-30T00:00:00Z", ["invalid datetime"]),
    ("datetime", "x", ["invalid datetime"]),
]
VALUES = [
    *((f"format.{name}().validate('{text}').orValue([])", problems) for name, text, problems in _PROBLEMS),
    *(
        (f"format.named('{name}').value().validate('{text}').hasValue()", problems != [])
        for name, text, problems in _PROBLEMS
    ),
    ("format.named('nothing').hasValue()", False),
    ("format.named('').hasValue()", False),
    ("format.named('uuid') == optional.of(format.uuid())", True),
    ("format.uuid() == format.uuid()", True),
    ("format.uuid() == format.date()", False),
    ("[format.uuid(), format.date()].exists(f, !f.validate('2021-01-01').hasValue())", True),
    ("format.dns1123Label().validate('A').value().size()", 1),
    ("format.dns1123Label().validate('A').optMap(problems, problems[0].size() > 10).orValue(false)", True),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


def test_a_format_named_by_the_request(evaluate):
    assert evaluate("format.named(data).hasValue()", "uuid") is True
    assert evaluate("format.named(data).hasValue()", "uuid2") is False
    with pytest.raises(ValueError, match="none"):
        evaluate("format.named(data).value()", "uuid2")


def test_every_format_has_a_function_of_its_own(engine):
    for name in {name for name, *_ in _PROBLEMS}:
        assert engine.evaluate(f"format.{name}() == format.named('{name}').value()") is True


def test_no_message_names_a_format_that_does_not_exist():
    with pytest.raises(ValueError, match="unknown"):
        formats.Format.of("dns")


@given(st.dates())
def test_every_date_is_a_date(date):
    assert formats.Format("date").problems(date.isoformat()) == []


@given(st.binary(min_size=1).map(lambda raw: __import__("base64").b64encode(raw).decode()))
def test_all_encoded_bytes_are_valid_base64(text):
    assert formats.Format("byte").problems(text) == []
