"""The serving certificate: which pairs are served, which are refused in which words, and what comes of a change."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from webhook.api.config import Tls
from webhook.server.tls import certificates, self_signed
from webhook.server.tls.certificates import CertificateError, CertificateManager, load

TODAY = timedelta()


def at(shift=TODAY):
    """The moment ``shift`` from now: the tests may run long after they were collected."""
    return datetime.now(UTC) + shift


@pytest.fixture
def tls(tmp_path):
    write(tmp_path)
    return Tls(certificate=str(tmp_path / "tls.crt"), key=str(tmp_path / "tls.key"))


def write(directory, names=("webhook.example.com", "127.0.0.1"), **changes):
    produced = self_signed.make(names, **changes)
    (directory / "tls.crt").write_bytes(changes.get("certificate", produced.certificate))
    (directory / "tls.key").write_bytes(produced.key)
    (directory / "ca.crt").write_bytes(produced.authority)
    return produced


def test_a_good_pair_is_served_with_tls_1_2_at_least(tls):
    matches = load(tls)
    assert matches.context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [suite["name"] for suite in matches.context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert names
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "POLY1305" in name) for name in names)
    assert matches.context.verify_mode == ssl.CERT_NONE
    assert matches.names == {"webhook.example.com", "127.0.0.1"}


def test_a_client_authority_makes_it_ask_and_not_insist(tls, tmp_path):
    matches = load(tls.model_copy(update={"client_ca": str(tmp_path / "ca.crt")}))
    assert matches.context.verify_mode == ssl.CERT_OPTIONAL


@pytest.mark.parametrize(
    ("shift", "names", "fault"),
    [
        (TODAY, ["webhook.example.com"], None),
        (TODAY, [], None),
        (TODAY, ["127.0.0.1", "WEBHOOK.example.com"], None),
        (timedelta(days=-1), [], "not valid before"),
        (timedelta(days=40), [], "expired at"),
        (TODAY, ["other.example.com"], "does not cover the name other.example.com"),
        (TODAY, ["webhook.example.com.evil"], "does not cover"),
    ],
)
def test_certificates_that_must_not_be_served(tls, shift, names, fault):
    matches = load(tls).fault(at(shift), names)
    assert (matches is None) if fault is None else (fault in (matches or ""))


def test_a_wildcard_stands_for_one_label(tmp_path, tls):
    write(tmp_path, ["*.example.com"])
    matches = load(tls)
    assert matches.fault(at(), ["a.example.com"]) is None
    assert matches.fault(at(), ["a.b.example.com"]) is not None
    assert matches.fault(at(), ["example.com"]) is not None


def damaged(directory, name, content):
    (directory / name).write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tls.crt", b"", "tls.crt: the file is empty"),
        ("tls.key", b"", "tls.key: the file is empty"),
        ("tls.crt", b"nonsense", "tls.crt: not a certificate in PEM form"),
        ("tls.key", b"nonsense", "not a usable pair"),
        ("tls.crt", b"x" * (1024 * 1024 + 1), "larger than"),
        ("tls.crt", None, "tls.crt: No such file"),
        ("ca.crt", b"nonsense", "not a CA certificate"),
    ],
)
def test_an_unusable_file_is_reported_in_one_line(tls, tmp_path, file, content, words):
    tls = tls.model_copy(update={"client_ca": str(tmp_path / "ca.crt")})
    if content is None:
        (tmp_path / file).unlink()
    else:
        damaged(tmp_path, file, content)
    with pytest.raises(CertificateError, match=words) as error:
        load(tls)
    assert "\n" not in str(error.value)


def test_a_key_of_another_certificate(tls, tmp_path):
    (tmp_path / "tls.key").write_bytes(self_signed.make(["x"]).key)
    with pytest.raises(CertificateError, match="does not belong to the certificate"):
        load(tls)


def test_a_key_with_a_password_is_an_error_and_no_question(tls, tmp_path):
    key = serialization.load_pem_private_key((tmp_path / "tls.key").read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (tmp_path / "tls.key").write_bytes(encrypted)
    with pytest.raises(CertificateError, match="not a usable pair"):
        load(tls)


def test_a_certificate_that_is_not_for_servers(tls, tmp_path):
    (tmp_path / "tls.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    with pytest.raises(CertificateError):
        load(tls)


def test_files_that_change_while_they_are_read(tls, monkeypatch):
    answers = iter(["before", "after"])
    monkeypatch.setattr(certificates, "fingerprint", lambda _: next(answers))
    with pytest.raises(CertificateError, match="changed while they were read"):
        load(tls)


class TestKeeper:
    """The certificate in use, and its files."""

    def test_first_and_then_only_when_changed(self, tls, tmp_path):
        keeper = CertificateManager(tls)
        assert keeper.fault() is not None
        assert keeper.expiry() is None
        assert keeper.refresh()
        assert keeper.fault() is None
        assert not keeper.refresh()
        write(tmp_path)
        assert keeper.refresh()

    def test_a_half_written_pair_never_replaces_a_good_one(self, tls, tmp_path):
        keeper = CertificateManager(tls)
        keeper.refresh()
        endpoint = keeper.current
        key = (tmp_path / "tls.key").read_bytes()
        new = self_signed.make(["webhook.example.com"])
        (tmp_path / "tls.crt").write_bytes(new.certificate)
        assert not keeper.refresh()
        assert keeper.fault() is None
        assert not keeper.refresh()
        assert keeper.current is endpoint
        assert "does not belong" in (keeper.fault() or "")
        (tmp_path / "tls.key").write_bytes(new.key)
        assert keeper.refresh()
        assert keeper.fault() is None
        assert key != new.key

    @pytest.mark.parametrize(
        ("names", "shift", "words"),
        [
            (["webhook.example.com"], timedelta(days=-60), "expired at"),
            (["webhook.example.com"], timedelta(days=2), "not valid before"),
            (["other.example.com"], TODAY, "does not cover the name webhook.example.com"),
        ],
    )
    def test_a_pair_that_is_worse_never_replaces_a_good_one(self, tls, tmp_path, names, shift, words):
        tls = tls.model_copy(update={"server_names": ["webhook.example.com"]})
        keeper = CertificateManager(tls)
        keeper.refresh()
        endpoint = keeper.current
        good = {name: (tmp_path / name).read_bytes() for name in ("tls.crt", "tls.key")}
        write(tmp_path, names, now=at(shift))
        for _ in range(2):
            assert not keeper.refresh()
        assert keeper.current is endpoint
        assert words in (keeper.fault() or "")
        assert keeper.usable() == 0.0
        for name, content in good.items():
            (tmp_path / name).write_bytes(content)
        keeper.refresh()
        assert (keeper.fault(), keeper.usable()) == (None, 1.0)

    def test_a_fault_is_news_once_and_again_after_it_was_gone(self, tls, tmp_path):
        keeper = CertificateManager(tls)
        key = (tmp_path / "tls.key").read_bytes()
        (tmp_path / "tls.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMIG")
        for expected in (True, False, False):
            keeper.refresh()
            assert (keeper.changed_fault() is not None) is expected
        (tmp_path / "tls.key").write_bytes(key)
        keeper.refresh()
        assert (keeper.changed_fault(), keeper.last_logged) == (None, None)
        (tmp_path / "tls.crt").unlink()
        keeper.refresh()
        keeper.refresh()
        assert "No such file" in (keeper.changed_fault() or "")

    def test_files_that_come_back_as_they_were(self, tls, tmp_path):
        keeper = CertificateManager(tls)
        keeper.refresh()
        key = (tmp_path / "tls.key").read_bytes()
        (tmp_path / "tls.key").write_bytes(b"")
        keeper.refresh()
        keeper.refresh()
        assert keeper.fault() is not None
        (tmp_path / "tls.key").write_bytes(key)
        assert not keeper.refresh()
        assert keeper.fault() is None

    def test_the_way_a_kubelet_changes_a_secret(self, tmp_path):
        for version in ("one", "two"):
            (tmp_path / version).mkdir()
            write(tmp_path / version)
        (tmp_path / "data").symlink_to("one")
        tls = Tls(certificate=str(tmp_path / "data/tls.crt"), key=str(tmp_path / "data/tls.key"))
        keeper = CertificateManager(tls)
        keeper.refresh()
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(tmp_path / "data")
        assert keeper.refresh()
        assert keeper.fault() is None

    def test_an_expired_pair_is_reported(self, tls, tmp_path):
        write(tmp_path, now=at(timedelta(days=-60)))
        keeper = CertificateManager(tls)
        assert keeper.refresh()
        assert "expired at" in (keeper.fault() or "")
        assert (keeper.expiry() or 0) < at().timestamp()
