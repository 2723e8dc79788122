"""The file of the broker's authorities: read at the start, followed while it changes, kept where it is spoilt."""

import pytest

from webhook.api.config import Injection, Settings
from webhook.manifests.authorities import AuthorityFile, with_authorities
from webhook.manifests.reader import ManifestError
from webhook.server.tls import self_signed


def pem():
    return self_signed.make(["x"]).authority.decode()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "ca.crt").write_text(pem())
    return tmp_path / "ca.crt"


def test_settings_contain_the_cas_of_the_file(file):
    settings = with_authorities(Settings(injection=Injection(ca_file=str(file))))
    assert settings.injection.ca_bundle == file.read_text()
    assert with_authorities(Settings()) == Settings()


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff", b"x" * 50_000, None])
def test_an_unusable_file_is_an_error_at_startup(file, content):
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ManifestError, match=r"ca\.crt: "):
        with_authorities(Settings(injection=Injection(ca_file=str(file))))


def test_changes_are_followed_and_corrupt_files_are_logged_once(file, caplog):
    watched = AuthorityFile(with_authorities(Settings(injection=Injection(ca_file=str(file)))).injection)
    first = file.read_text()
    assert watched.refresh() is None
    file.write_text(first + pem())
    assert watched.refresh().ca_bundle == file.read_text()
    assert watched.refresh() is None
    good = file.read_text()
    file.write_text("half wri")
    assert (watched.refresh(), watched.refresh()) == (None, None)
    assert caplog.text.count("cannot read the broker's CAs") == 1
    file.write_text(good)
    assert watched.refresh() is None
    file.write_text(first)
    assert watched.refresh().ca_bundle == first


def test_without_a_file_nothing_is_followed():
    assert AuthorityFile(Injection(ca_bundle=pem())).refresh() is None
