from __future__ import annotations

import importlib

import pytest

from webhook.keys.errors import KmsConfigError
from webhook.keys.kms import PROVIDERS, ResilientKms, open_kms


@pytest.mark.parametrize(
    "url", ["", "vault", "vault:/x", "ftp://x", "://x", "local://", "local://a\nb", "LOCAL://x"]
)
def test_an_unknown_url_lists_the_known_ones(url):
    with pytest.raises(KmsConfigError, match="must begin with one of local://, vault://, aws://"):
        open_kms(url)


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_its_class(name):
    module, provider = PROVIDERS[name]
    for method in ("wrap", "unwrap", "close"):
        assert callable(getattr(getattr(importlib.import_module(module), provider), method))


def test_opening_asks_nothing_yet(tmp_path):
    kms = open_kms(f"local://{tmp_path}/keyset.json")
    assert isinstance(kms, ResilientKms)
    assert list(tmp_path.iterdir()) == []


def test_production_refuses_a_local_keyset():
    with pytest.raises(KmsConfigError, match="not allowed in production"):
        open_kms("local://keyset.json", production=True)


@pytest.mark.parametrize("address", ["http://vault.example.com:8200", "http://127.0.0.1:8200"])
def test_production_asks_vault_over_tls_only(address, monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", address)
    open_kms("vault://transit/atlas")
    with pytest.raises(KmsConfigError, match="would send data keys unencrypted"):
        open_kms("vault://transit/atlas", production=True)
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.com:8200")
    open_kms("vault://transit/atlas", production=True)


@pytest.mark.parametrize(
    "url",
    ["vault://atlas", "aws://eu-west-1", "gcp://projects/p", "azure://vault.azure.net", "pkcs11://token"],
)
def test_a_url_without_a_key_says_how_to_write_it(url, monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    try:
        with pytest.raises(KmsConfigError, match=f"use {url.partition('://')[0]}://"):
            open_kms(url)
    except AssertionError as error:
        if "which is not installed" not in str(error) and "is not installed" not in str(error):
            raise
        pytest.skip("the provider's package is not installed")
