"""By whose word the sidecar knows the broker: what it takes from the broker, and what it passes over."""

import json

import pytest

from webhook.api.authorities import known
from webhook.keys.agent.trust import Trust
from webhook.keys.errors import BadInputError
from webhook.server.tls import self_signed


def word():
    return known(self_signed.make(["x"]).authority.decode())[0]


FIRST, SECOND = word(), word()


def believed(trust):
    return len(trust.context().get_ca_certs())


def test_the_configured_cas_are_trusted_until_the_broker_sends_others(tmp_path):
    trust = Trust((FIRST,), tmp_path / "kept")
    assert believed(trust) == 1
    trust.learn([FIRST, SECOND])
    assert believed(trust) == 2
    assert json.loads((tmp_path / "kept").read_text()) == [FIRST, SECOND]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o400
    assert believed(Trust((FIRST,), tmp_path / "kept")) == 2, "a sidecar that is started again goes on"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "x",
        [3],
        ["AAAA"],
        ["not base64!"],
        [FIRST, "AAAA"],
        [FIRST] * 9,
        ["A" * 100_000],
        {},
        [None],
    ],
)
def test_messages_without_cas_are_ignored(tmp_path, messages):
    trust = Trust((FIRST,), tmp_path / "kept")
    context = trust.context()
    trust.learn(messages)
    assert trust.context() is context
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'["AAAA"]', b"\xff", b'["' + b"A" * 100_000 + b'"]'])
def test_a_corrupt_file_is_ignored(tmp_path, kept):
    (tmp_path / "kept").write_bytes(kept)
    assert believed(Trust((FIRST,), tmp_path / "kept")) == 1


def test_where_the_systems_authorities_count_nothing_is_learnt(tmp_path):
    trust = Trust((), tmp_path / "kept")
    context = trust.context()
    trust.learn([SECOND])
    assert trust.context() is context
    (tmp_path / "kept").write_text(json.dumps([SECOND]))
    Trust((), tmp_path / "kept").learn([SECOND])
    assert believed(Trust((), tmp_path / "kept")) == believed(Trust(()))


def test_trust_works_without_a_writable_directory(tmp_path):
    trust = Trust((FIRST,), tmp_path / "missing" / "kept")
    trust.learn([SECOND])
    assert believed(trust) == 1


def test_a_given_one_that_is_none_is_said():
    with pytest.raises(BadInputError, match="cannot read the broker's CAs"):
        Trust(("AAAA",)).context()
