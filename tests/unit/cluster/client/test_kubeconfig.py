"""Kubeconfigs as kubectl reads them: lists of files, relative paths, impersonation, exec plugins and namespaces."""

import json
import os

import pytest
import yaml

from webhook.cluster.client import exec_plugin, kubeconfig


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


SERVER = {"name": "c", "cluster": {"server": "https://10.0.0.1"}}
USER = {"name": "u", "user": {"token": "t"}}
CONTEXT = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}


def write(directory, **sections):
    directory.mkdir(exist_ok=True)
    file = directory / "config"
    file.write_text(yaml.safe_dump(sections))
    return str(file)


def whole(directory, user=None, cluster=None):
    return write(
        directory,
        clusters=[{"name": "c", "cluster": {**SERVER["cluster"], **(cluster or {})}}],
        users=[{"name": "u", "user": USER["user"] if user is None else user}],
        contexts=[CONTEXT],
        **{"current-context": "x"},
    )


def test_in_a_list_the_first_file_that_defines_something_wins(tmp_path):
    first = write(tmp_path / "a", clusters=[SERVER], contexts=[CONTEXT], **{"current-context": "x"})
    empty = tmp_path / "empty"
    empty.write_text("")
    other = {"name": "x", "context": {"cluster": "none"}}
    second = write(tmp_path / "b", users=[USER], contexts=[other], **{"current-context": "other"})
    paths = os.pathsep.join([str(tmp_path / "absent"), str(empty), first, second])
    context = kubeconfig.read("", paths, "")
    assert (context.name, context.namespace, context.user) == ("x", "lab", {"token": "t"})
    assert context.cluster == {"server": "https://10.0.0.1"}


def test_relative_paths_belong_to_the_directory_of_their_file(tmp_path):
    first = write(
        tmp_path / "a",
        clusters=[{"name": "c", "cluster": {**SERVER["cluster"], "certificate-authority": "ca.crt"}}],
        contexts=[CONTEXT],
        **{"current-context": "x"},
    )
    fields = {"client-certificate": "me.crt", "client-key": "/abs/me.key", "tokenFile": "token"}
    plugin = {"command": "./bin/plugin", "apiVersion": "client.authentication.k8s.io/v1"}
    second = write(tmp_path / "b", users=[{"name": "u", "user": {**fields, "exec": plugin}}])
    context = kubeconfig.read("", os.pathsep.join([first, second]), "")
    assert context.cluster["certificate-authority"] == str(tmp_path / "a" / "ca.crt")
    assert context.user["client-certificate"] == str(tmp_path / "b" / "me.crt")
    assert (context.user["client-key"], context.user["tokenFile"]) == (
        "/abs/me.key",
        str(tmp_path / "b" / "token"),
    )
    assert context.user["exec"]["command"] == str(tmp_path / "b" / "bin" / "plugin")


IMPERSONATED = {
    "as": "bob",
    "as-uid": "42",
    "as-groups": ["sec", "ops"],
    "as-user-extra": {"example.com/reason": ["a", "b"], "Scope%": ["c"]},
}


def test_impersonation_becomes_headers(tmp_path):
    file = whole(tmp_path, {"token": "t", **IMPERSONATED})
    assert sorted(kubeconfig.read(file, file, "").impersonation()) == sorted(
        [
            ("Impersonate-User", "bob"),
            ("Impersonate-Uid", "42"),
            ("Impersonate-Group", "sec"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Extra-example.com%2Freason", "a"),
            ("Impersonate-Extra-example.com%2Freason", "b"),
            ("Impersonate-Extra-Scope%25", "c"),
        ]
    )
    assert kubeconfig.read(whole(tmp_path), file, "").impersonation() == []


@pytest.mark.parametrize(
    ("user", "message"),
    [({"as-groups": ["x"]}, "require as"), ({"as": "bob\r\nX: y"}, "control characters")],
)
def test_impersonation_that_kubectl_rejects_is_an_error(tmp_path, user, message):
    file = whole(tmp_path, user)
    with pytest.raises(kubeconfig.KubeconfigError, match=message):
        kubeconfig.read(file, file, "").impersonation()


BROKEN = {
    "unknown context": ({}, "y", "context 'y' does not exist"),
    "no cluster": ({"clusters": []}, "", "has no cluster with a server"),
    "no user": ({"users": []}, "", "user 'u' does not exist"),
    "a SOCKS proxy": (
        {"clusters": [{"name": "c", "cluster": {**SERVER["cluster"], "proxy-url": "socks5://p:1"}}]},
        "",
        "use an HTTP proxy",
    ),
    "no current context": ({"current-context": ""}, "", "no current-context"),
}


@pytest.mark.parametrize(("change", "context", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_context_that_cannot_be_used_is_an_error(tmp_path, change, context, message):
    sections = {"clusters": [SERVER], "users": [USER], "contexts": [CONTEXT], "current-context": "x"}
    file = write(tmp_path, **{**sections, **change})
    with pytest.raises(kubeconfig.KubeconfigError, match=message):
        kubeconfig.read(file, file, context)


def plugin(directory, body, **fields):
    script = directory / "plugin"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o700)
    version = "client.authentication.k8s.io/v1"
    return whole(directory, {"exec": {"command": str(script), "apiVersion": version, **fields}})


def credential(**status):
    document = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"echo '{json.dumps(document)}'"


async def test_an_exec_plugin_gets_its_environment_and_returns_a_token(tmp_path):
    seen = tmp_path / "seen"
    body = f'echo "$KUBERNETES_EXEC_INFO $EXTRA $1" > {seen}\n{credential(token="secret")}'
    file = plugin(
        tmp_path, body, args=["one"], env=[{"name": "EXTRA", "value": "two"}], provideClusterInfo=True
    )
    result = await exec_plugin.run(kubeconfig.read(file, file, ""))
    assert (result.user, result.expires) == ({"token": "secret"}, None)
    info, _, rest = seen.read_text().rpartition("} ")
    assert json.loads(info + "}")["spec"]["cluster"] == {"server": "https://10.0.0.1"}
    assert rest.split() == ["two", "one"]


async def test_an_exec_plugin_may_return_a_certificate(tmp_path):
    body = credential(
        clientCertificateData="C", clientKeyData="K", expirationTimestamp="2020-01-01T00:00:00Z"
    )
    file = plugin(tmp_path, body)
    result = await exec_plugin.run(kubeconfig.read(file, file, ""))
    assert result.user == {"client-certificate-data": "Qw==", "client-key-data": "Sw=="}
    assert exec_plugin.expired(result.expires)


PLUGINS = {
    "fails": ("exit 3", {}, "failed with exit code 3"),
    "prints nonsense": ("echo {}", {}, "returned no ExecCredential"),
    "returns nothing": (credential(), {}, "neither a token nor a certificate"),
    "returns half a pair": (credential(clientKeyData="K"), {}, "but not both"),
    "needs a terminal": (credential(token="t"), {"interactiveMode": "Always"}, "requires a terminal"),
    "is missing": ("", {"command": "/none", "installHint": "install it"}, "cannot run .*install it"),
    "has an old version": ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion"),
}


@pytest.mark.parametrize(("body", "fields", "message"), PLUGINS.values(), ids=PLUGINS.keys())
async def test_a_plugin_that_cannot_be_used_is_an_error(tmp_path, monkeypatch, body, fields, message):
    monkeypatch.setattr("sys.stdin", None)
    file = plugin(tmp_path, body, **fields)
    with pytest.raises(kubeconfig.KubeconfigError, match=message):
        await exec_plugin.run(kubeconfig.read(file, file, ""))
