"""Which namespace a command works in where none is named."""

import pytest

from webhook.cluster.client import kubeconfig


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A pod's environment without a kubeconfig; returns the file that names its namespace."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    file = tmp_path / "namespace"
    monkeypatch.setattr(kubeconfig, "_POD_NAMESPACE", file)
    return file


def test_that_of_the_pod_where_its_credentials_are_taken(place):
    place.write_text("research\n")
    assert kubeconfig.namespace_of("", "") == "research"


def test_default_where_nothing_is_said(place, monkeypatch):
    assert kubeconfig.namespace_of("", "") == "default"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert kubeconfig.namespace_of("", "") == "default"
