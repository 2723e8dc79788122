"""Addresses of object stores, hubs and registries, and the locations that they name.

An address and a CSI volume on the same bucket give the same location. Addresses of unknown schemes and hosts are
compared by scheme, host and path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from webhook.core.kube.hosts import hosts
from webhook.core.storage.drivers import bucket, hub
from webhook.core.storage.locations import Location, directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Target(NamedTuple):
    """What an address names: locations, or an OCI reference."""

    locations: tuple[Location, ...] = ()
    image: str = ""


_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://([^\s\"'<>|\\^`]+)")
_MAX_URI = 2048


def uris_in(text: str) -> Iterator[str]:
    """Yield the addresses inside a text such as an argument; lists are separated by commas or spaces."""
    if "://" in text:
        for part in re.split(r"[,;\s]+", text):
            match = _URI.search(part)
            if match is not None and len(match[0]) <= _MAX_URI:
                yield match[0]


def parse_uri(uri: str) -> Target:
    """Return what an address or a pattern of addresses names; nothing for a text that is not an address."""
    match = _URI.fullmatch(uri.strip())
    if match is None:
        return Target()
    scheme, rest = match[1].lower(), match[2]
    if scheme in _IMAGES:
        return Target((), rest.removeprefix("//"))
    if scheme.rpartition("+")[2] in ("http", "https"):
        rest = rest.partition("?")[0]
    host, _, path = rest.partition("/")
    path = _directory(path.partition("#")[0])
    read = _SCHEMES.get(scheme) or _SCHEMES.get(scheme.rpartition("+")[2])
    if read is not None:
        return Target(tuple(read(host, path)))
    return Target(directory(f"uri:{scheme}", path, name=_host(host)))


def _directory(path: str) -> str:
    """Drop a trailing wildcard component: a location contains everything below it."""
    while path == "*" or path.endswith(("/*", "/**")):
        path = path.rpartition("/")[0]
    return path


def _host(host: str) -> str:
    addresses = hosts(host)
    return min(addresses) if addresses else host.lower()


def _s3(host: str, path: str) -> Iterable[Location]:
    return bucket("s3", host, path)


def _gs(host: str, path: str) -> Iterable[Location]:
    return directory("gs", path, name=host.lower())


def _oss(host: str, path: str) -> Iterable[Location]:
    # oss://bucket/path, and oss://bucket.endpoint/path.
    return directory("oss", path, name=host.lower().partition(".")[0])


def _hf(host: str, path: str) -> Iterable[Location]:
    if host == "buckets":
        return hub(path, bucket=True)
    return hub(f"{host}/{path}")


def _azure(host: str, path: str) -> Iterable[Location]:
    # abfss://container@account.dfs.core.windows.net/path
    container, at, domain = host.rpartition("@")
    if at:
        return directory("azblob", f"{container}/{path}", name=domain.lower().partition(".")[0], fold=True)
    account = _AZURE_HOST.fullmatch(_host(host))
    if account is not None:
        return directory("azblob", path, name=account[1], fold=True)
    return directory("azblob", f"{host}/{path}", fold=True)


_S3_HOST = re.compile(r"(?:(.+)\.)?s3(?:express)?[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?")
_AZURE_HOST = re.compile(r"([a-z0-9]+)\.(?:privatelink\.)?(blob|dfs|file)\.(?:core|storage)\..+")
_GOOGLE_HOSTS = frozenset({"storage.googleapis.com", "storage.cloud.google.com", "www.googleapis.com"})
# The JSON API: /storage/v1/b/BUCKET/o/OBJECT, with the object's slashes escaped.
_GOOGLE_API = re.compile(r"(?:download/|upload/)?storage/v1/b/([^/]+)(?:/o/?)?")
_HUBS = frozenset(
    {"hf-mirror.com", "huggingface.co", "hf.co", "www.huggingface.co", "cdn-lfs.huggingface.co"}
)


def _https(host: str, path: str) -> Iterable[Location]:
    name = _host(host)
    s3, azure = _S3_HOST.fullmatch(name), _AZURE_HOST.fullmatch(name)
    first, _, rest = path.partition("/")
    if s3 is not None:
        return bucket("s3", s3[1], path) if s3[1] else bucket("s3", first, rest)
    if azure is not None:
        space = "azfile" if azure[2] == "file" else "azblob"
        return directory(space, path, name=azure[1], fold=True)
    if name in _GOOGLE_HOSTS:
        api = _GOOGLE_API.match(path)
        if api is not None:
            return directory("gs", unquote(path[api.end() :]), name=api[1].lower())
        return directory("gs", rest, name=first.lower())
    if name.endswith(".storage.googleapis.com"):
        return directory("gs", path, name=name.removesuffix(".storage.googleapis.com"))
    if name.endswith(".aliyuncs.com") and ".oss-" in name:
        return directory("oss", path, name=name.partition(".")[0])
    if name in _HUBS:
        parts = [part for part in path.split("/") if part not in ("api", "models")]
        return hub("/".join(parts))
    return directory("uri:https", path, name=name)


_IMAGES = frozenset({"oci", "docker", "oci+native", "image"})
_SCHEMES: dict[str, Callable[[str, str], Iterable[Location]]] = {
    "s3": _s3,
    "s3a": _s3,
    "s3n": _s3,
    "minio": _s3,
    "gs": _gs,
    "gcs": _gs,
    "oss": _oss,
    "hf": _hf,
    "huggingface": _hf,
    "abfs": _azure,
    "abfss": _azure,
    "wasb": _azure,
    "wasbs": _azure,
    "az": _azure,
    "azure": _azure,
    "azureblob": _azure,
    "http": _https,
    "https": _https,
}
