"""Addresses of object stores, hubs and registries, and the locations that they name.

An address and a CSI volume on the same bucket give the same location. Addresses of unknown schemes and hosts are
compared by scheme, host and path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from webhook.core.kube.hosts import hosts
from webhook.core.storage.drivers import bucket, hub, iscsi, nfs, smb
from webhook.core.storage.locations import Location, directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Target(NamedTuple):
    """What an address names: locations, or an OCI reference."""

    locations: tuple[Location, ...] = ()
    image: str = ""


_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://([^\s\"'<>|\\^`]+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
# No client takes a longer address.
_REST = re.compile(r"[^\s\"'<>|\\^`,;]{1,16384}")
# What may end an address inside of a command, a list or a query. It may also be part of a path.
_END = re.compile(r"[)\]}&?]")
# Addresses of one text that start inside of another one.
_MAX_STARTS = 64


def uris_in(text: str) -> Iterator[str]:
    """Yield the addresses inside a text such as an argument, a script, a list or JSON.

    An address that contains another one yields both, and one with a closing bracket also without it.
    """
    if "\\/" in text:
        # JSON may escape the slash.
        text = text.replace("\\/", "/")
    if "://" not in text:
        return
    for part in _PARTS.split(text):
        for count, start in enumerate(_SCHEME.finditer(part)):
            match = _REST.match(part, start.start())
            if match is None or count >= _MAX_STARTS:
                break
            yield match[0]
            end = _END.search(match[0])
            if end is not None and end.start() > len(start[0]):
                yield match[0][: end.start()]


_PARTS = re.compile(r"[\s,;]+|::")


def parse_uri(uri: str) -> Target:
    """Return what an address or a pattern of addresses names; nothing for a text that is not an address."""
    match = _URI.fullmatch(uri.strip())
    if match is None:
        return Target()
    scheme, rest = match[1].lower(), match[2]
    first, _, last = scheme.partition("+")
    if first in _NETWORK:
        return Target(tuple(_NETWORK[first](rest)))
    if scheme not in _ROOTED:
        # Clients drop further slashes.
        rest = rest.lstrip("/") or rest
    if first in _IMAGES:
        return Target((), rest.removeprefix("//"))
    if last in ("http", "https") or first in ("http", "https"):
        rest = rest.partition("?")[0]
    host, _, path = rest.partition("/")
    path = _directory(path.partition("#")[0])
    read = _SCHEMES.get(scheme) or _SCHEMES.get(last) or _SCHEMES.get(first)
    if read is not None:
        return Target(
            (
                *read(host, path),
                *(_SCHEMES[first](host, path) if read is _https and first in _SCHEMES else ()),
            )
        )
    places = directory(f"uri:{scheme}", path, name=_host(host))
    if _NO_STORE.fullmatch(first) is not None:
        return Target(places)
    # A scheme that some client knows: any store or registry may be behind it.
    return Target((*places, *_any_store(host, path)), rest)


def parse_bare(text: str) -> Target:
    """Return what an address without a scheme names: a host of a hub or store, a repository by SSH, or a remote.

    Ollama takes ``hf.co/org/model``, git takes ``git@hf.co:org/model``, curl takes ``host/path``, rclone and s3fs take
    ``remote:bucket/path`` and ``bucket:/path``, and the MinIO client takes ``alias/bucket/path``.
    """
    text = text.removeprefix("//")
    head, slash, rest = text.partition("/")
    host = _host(head.rpartition("@")[2].partition(":")[0])
    if _is_hub(host):
        return Target(tuple(_https(host, f"{head.partition(':')[2]}/{rest}" if ":" in head else rest)))
    if slash and _STORE_HOST.search(host) is not None:
        return Target(tuple(_https(head, rest)))
    if slash and _DOMAIN.fullmatch(host) is not None:
        return Target((*directory("uri:https", rest, name=host),))
    if slash and head.lower() in _REMOTES:
        bucket_name, _, path = rest.partition("/")
        return Target(tuple(_any_store(bucket_name, path)))
    left, colon, right = text.rpartition(":")
    remote = left.lstrip(":").partition(",")[0].lower()
    places: list[Location] = []
    scheme = _SHORT.get(remote, remote)
    if colon and scheme in _SCHEMES:
        # A path library turns s3://bucket into s3:/bucket, and some clients take hf:org/model.
        places += parse_uri(f"{scheme}://{right.lstrip('/')}").locations
    name, below, path = right.partition("/")
    if colon and below and not name and len(left) > 1:
        if _BUCKET.fullmatch(left) is not None:
            places += _any_store(left, path)
        name, _, path = path.partition("/")
    if colon and name and (below or remote in _REMOTES) and _BUCKET.fullmatch(name) is not None:
        places += _any_store(name, path)
    return Target(tuple(places))


# A host by its domain, whose first and last labels are names: not a version, a file or an address.
_DOMAIN = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)*\.[a-z]{2,24}")
_SHORT = {"hf-hub": "hf", "hf_hub": "hf"}


_STORE_HOST = re.compile(
    r"\.(?:amazonaws\.com(?:\.cn)?|googleapis\.com|aliyuncs\.com|core\.windows\.net|storage\.azure\.net"
    r"|myhuaweicloud\.(?:com|eu)|otc\.t-systems\.com)$"
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
# Common names of remotes, for which a bucket without a path counts.
_REMOTES = frozenset(
    {"s3", "aws", "minio", "myminio", "gcs", "gs", "google", "azure", "azureblob", "oss", "obs", "play", "r2"}
)


def _any_store(host: str, path: str) -> Iterator[Location]:
    """Yield a bucket or container of this name in every space."""
    name = host.rpartition("@")[2].partition(":")[0].lower()
    if name:
        yield from _s3(name, path)
        yield from _gs(name, path)
        yield from _oss(name, path)
        yield from _obs(name, path)
        yield from _azure(host, path)
        yield from _hf(name, path)


def _directory(path: str) -> str:
    """Drop a trailing wildcard component: a location contains everything below it."""
    while path == "*" or path.endswith(("/*", "/**")):
        path = path.rpartition("/")[0]
    return path


def _host(host: str) -> str:
    addresses = hosts(host)
    return min(addresses) if addresses else host.lower()


def _s3(host: str, path: str) -> Iterable[Location]:
    if host.lower().startswith("arn:"):
        # s3://arn:…:accesspoint/NAME/key
        return bucket("s3", host, path.partition("/")[2])
    host = host.rpartition("@")[2]
    places = [*bucket("s3", host.partition(":")[0], path)]
    if "." in host or ":" in host:
        # Some clients name the endpoint first: s3://minio.svc:9000/bucket/key
        name, _, rest = path.lstrip("/").partition("/")
        places += bucket("s3", name, rest)
        if _STORE_HOST.search(_host(host)) is not None:
            places += _https(host, path)
    return places


def _gs(host: str, path: str) -> Iterable[Location]:
    return directory("gs", path, name=host.rpartition("@")[2].partition(":")[0].lower())


def _oss(host: str, path: str) -> Iterable[Location]:
    # oss://bucket/path, and oss://bucket.endpoint/path.
    return directory("oss", path, name=host.lower().partition(".")[0])


def _obs(host: str, path: str) -> Iterable[Location]:
    # obs://bucket/path, and obs://bucket.obs.region.myhuaweicloud.com/path.
    return directory("obs", path, name=host.lower().partition(".obs.")[0])


def _hf(host: str, path: str) -> Iterable[Location]:
    if host == "buckets":
        return hub(path, bucket=True)
    if host in ("model", "repos"):
        return hub(path)
    return hub(f"{host}/{path}")


def _azure(host: str, path: str) -> Iterable[Location]:
    # abfss://container@account.dfs.core.windows.net/path
    container, at, domain = host.rpartition("@")
    if at:
        return directory("azblob", f"{container}/{path}", name=domain.lower().partition(".")[0], fold=True)
    account = _AZURE_HOST.fullmatch(_host(host))
    if account is not None:
        return directory("azblob", path, name=account[1], fold=True)
    # Clients differ: container/path, and account/container/path.
    return (
        *directory("azblob", f"{host}/{path}", fold=True),
        *directory("azblob", path, name=host.lower(), fold=True),
    )


# The label of the service in hosts of a bucket and of all buckets. The bucket is before it.
_S3_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
_OBS_DOMAINS = (".myhuaweicloud.com", ".myhuaweicloud.eu", ".otc.t-systems.com")


def _is_s3_label(label: str) -> bool:
    return label.partition("-")[0] in ("s3", "s3express")


def _is_google_label(label: str) -> bool:
    # storage, commondatastorage, us-storage, storage-download
    parts = label.split("-", 3)
    return len(parts) < 4 and not {"storage", "commondatastorage"}.isdisjoint(parts[:2])


# Hosts of a private endpoint, and of access points, whose bucket only AWS knows.
_S3_PRIVATE = re.compile(r"(?:^|\.)bucket\.vpce-[a-z0-9-]+$")
_S3_POINT = re.compile(r"\.(?:s3-accesspoint|s3-object-lambda|accesspoint|s3-outposts)[a-z-]*\.")
_AZURE_HOST = re.compile(
    r"([a-z0-9]+)(?:-secondary)?\.(?:z\d+\.|privatelink\.)?(blob|dfs|file)\.(?:core|storage)\..+"
)
_GOOGLE_HOSTS = frozenset({"storage.cloud.google.com", "www.googleapis.com"})
# The JSON API: /storage/v1/b/BUCKET/o/OBJECT, with the object's slashes escaped.
_GOOGLE_API = re.compile(r"(?:download/|upload/)?storage/v1/b/([^/?]+)(?:/o/?)?")
_HUBS = ("huggingface.co", "hf.co", "hf-mirror.com")


def _is_hub(host: str) -> bool:
    return host.endswith(_HUBS) and any(host == hub_ or host.endswith(f".{hub_}") for hub_ in _HUBS)


# RFC 1035, section 2.3.4.
_MAX_HOST = 253


def _before_label(host: str, domains: tuple[str, ...], is_label: Callable[[str], bool]) -> str | None:
    """Return the labels before the service's last one, in a host below ``domains``; None without one."""
    domain = next((domain for domain in domains if host.endswith(domain)), None)
    if domain is None:
        return None
    labels = host.removesuffix(domain).split(".")
    for index in reversed(range(len(labels))):
        if is_label(labels[index]):
            return ".".join(labels[:index])
    return None


def _https(host: str, path: str) -> Iterable[Location]:
    name, path = _host(host)[:_MAX_HOST], path.lstrip("/")
    s3, azure = _before_label(name, _S3_DOMAINS, _is_s3_label), _AZURE_HOST.fullmatch(name)
    google = "" if name in _GOOGLE_HOSTS else _before_label(name, (".googleapis.com",), _is_google_label)
    first, _, rest = path.partition("/")
    if _S3_POINT.search(name) is not None and name.endswith(_S3_DOMAINS):
        return bucket("s3", "arn:", path)
    if s3 is not None:
        name = _S3_PRIVATE.sub("", s3)
        return bucket("s3", name, path) if name else bucket("s3", first, rest)
    if azure is not None:
        space = "azfile" if azure[2] == "file" else "azblob"
        return directory(space, path, name=azure[1], fold=True)
    if google is not None:
        api = _GOOGLE_API.match(path)
        if api is not None:
            return directory("gs", unquote(path[api.end() :]), name=api[1].lower())
        return directory("gs", path, name=google) if google else directory("gs", rest, name=first.lower())
    if name.endswith(".aliyuncs.com") and "oss-" in name:
        if name.startswith("oss-"):
            return directory("oss", rest, name=first.lower())
        return directory("oss", path, name=name.partition(".")[0])
    obs = _before_label(name, _OBS_DOMAINS, lambda label: label == "obs")
    if obs is not None:
        return directory("obs", path, name=obs) if obs else directory("obs", rest, name=first.lower())
    if _is_hub(name):
        parts = [part for part in unquote(path).split("/") if part not in ("api", "models")]
        return hub("/".join(parts))
    return directory("uri:https", path, name=name)


def https_image(uri: str) -> str:
    """Return the repository that an address of a registry's API names; empty for any other address."""
    match = _REGISTRY_API.fullmatch(uri)
    return f"{match[1]}/{match[2]}" if match is not None else ""


# /v2/NAME/manifests/REFERENCE and /v2/NAME/blobs/DIGEST (opencontainers/distribution-spec).
_REGISTRY_API = re.compile(r"https?://([^/\s]+)/v2/([^\s?]+?)/(?:manifests|blobs|tags)/[^/\s]*")


def _nfs_url(rest: str) -> Iterable[Location]:
    """nfs://server/path (RFC 2224)."""
    server, _, path = rest.partition("/")
    return nfs(server, path.partition("?")[0])


def _iscsi_url(rest: str) -> Iterable[Location]:
    """iscsi://portal/target/lun (libiscsi, and QEMU)."""
    _, _, target = rest.partition("/")
    name, _, lun = target.partition("/")
    return iscsi(name, lun)


# Schemes of network storage, which a volume can also mount.
_NETWORK: dict[str, Callable[[str], Iterable[Location]]] = {
    "nfs": _nfs_url,
    "nfs4": _nfs_url,
    "smb": smb,
    "cifs": smb,
    "iscsi": _iscsi_url,
}
# Schemes whose addresses have no host.
_ROOTED = frozenset({"file", "hostpath", "local", "unix"})

_IMAGES = frozenset(
    {"oci", "docker", "image", "oras", "modelpack", "kitops", "modelkit", "containerd", "containers-storage"}
)
# Schemes of protocols that read no object store.
_NO_STORE = re.compile(
    r"amqp|amqps|bolt|cassandra|consul|dataset|dns|etcd|file|ftp|ftps|grpc|grpcs|hostpath|http2|jdbc|kafka|ldap"
    r"|ldaps|local|mariadb|memcached|mongodb|mqtt|mqtts|mysql|nats|neo4j|otlp|postgres|postgresql|pvc|redis"
    r"|rediss|rtsp|sip|smtp|smtps|sqlite|sqlserver|ssh|tcp|tls|udp|unix|vault|ws|wss|zipkin|zookeeper"
)
_SCHEMES: dict[str, Callable[[str, str], Iterable[Location]]] = {
    "s3": _s3,
    "s3a": _s3,
    "s3n": _s3,
    "minio": _s3,
    "gs": _gs,
    "gcs": _gs,
    "oss": _oss,
    "obs": _obs,
    "hf": _hf,
    "huggingface": _hf,
    "abfs": _azure,
    "abfss": _azure,
    "wasb": _azure,
    "wasbs": _azure,
    "az": _azure,
    "azure": _azure,
    "azblob": _azure,
    "azureblob": _azure,
    "as": _azure,
    "git": _https,
    "ssh": _https,
    "http": _https,
    "https": _https,
}
