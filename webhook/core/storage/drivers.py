"""The CSI drivers whose volumes Weightlock can recognise: one small entry each, after the driver's own source.

An entry says which fields the driver reads and turns them into locations. It must follow the driver: which of handle
and attributes wins on a PersistentVolume and inline, what is stripped, what is the default. A driver without an entry
is treated by exception. To add one, write an entry here and a case in ``tests/unit/core/storage/test_drivers.py``.

Example: `gcsfuse.csi.storage.gke.io` mounts the bucket before the first colon of ``volumeHandle``, ignores the
attribute ``bucketName`` on a PersistentVolume, and mounts every bucket for the name ``_``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from webhook.core.kube.hosts import hosts
from webhook.core.kube.names import image_reference, normal_path
from webhook.core.storage.locations import FOLDED_NFS, NODE, Location, directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """A CSI volume as its driver receives it.

    ``attributes`` have keys in lower case. ``inline`` is true for a volume in a pod, which has no handle of its own.
    ``options`` are mount options without leading dashes. ``secret`` is ``namespace/name``.
    """

    driver: str
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    inline: bool = False
    options: tuple[str, ...] = ()
    secret: str = ""

    def get(self, *names: str) -> str:
        """Return the first attribute that is set."""
        return next((value for name in names if (value := self.attributes.get(name, ""))), "")

    def option(self, *names: str) -> str:
        """Return the value of a mount option such as ``only-dir=models`` or ``only-dir:models``."""
        for option in reversed(self.options):
            key, value = _key_value(option)
            if key in names:
                return value
        return ""


@dataclass(frozen=True, slots=True)
class Driver:
    """One CSI driver: where its source is, the fields that identify a volume, and how they are read.

    ``spaces`` are the spaces that it can reach. ``narrowing`` are mount options that ``read`` understands. With
    ``images`` set, it returns the OCI references that the volume mounts. ``own_directory`` is the directory of the node
    in which the driver keeps its volumes.
    """

    source: str
    fields: str
    spaces: tuple[str, ...]
    read: Callable[[CsiVolume], Iterable[Location]]
    narrowing: tuple[str, ...] = ()
    folds_case: bool = False
    images: Callable[[CsiVolume], str] | None = None
    keys: tuple[str, ...] = ()
    own_directory: str = ""


def driver_of(name: str, attributes: Mapping[str, str] | None = None) -> Driver | None:
    """Return a driver's entry, also if a second installation of the driver has a name of its own.

    Such names have a prefix or a number: ``openshift-storage.rbd.csi.ceph.com``, ``nfs2.csi.k8s.io``.
    """
    entry = DRIVERS.get(name)
    if entry is not None:
        return entry
    labels = name.split(".")
    for index in range(min(len(labels) - 1, _MAX_LABELS)):
        first = labels[index].rstrip("0123456789").rstrip("-")
        for label in dict.fromkeys((labels[index], first)):
            entry = DRIVERS.get(".".join([label, *labels[index + 1 :]]))
            if entry is not None:
                return entry
    if name.startswith("org.democratic-csi."):
        return DRIVERS["org.democratic-csi.*"]
    # democratic-csi runs under any name that its chart is given.
    if attributes is not None and "node_attach_driver" in attributes:
        return DRIVERS["org.democratic-csi.*"]
    return None


_MAX_LABELS = 8

# Keys of mount options that could send a driver to other storage than its handle and attributes name, whatever the
# value is. Any other key is harmless without a value, and with a short number, a size or a switch.
_REDIRECTING = re.compile(
    r"-*(?:o\s*)?(?:addr|mountaddr|account(?:-?name)?|bind|bucket(?:-?name)?|conf(?:ig)?(?:-?file)?|container-?name|device|"
    r"(?:custom-?)?endpoint(?:-?url)?|fs|loop|lowerdir|mds_namespace|metaurl|mon(?:_addr|itors)?|only.?dir|"
    r"passwd_file|prefix|rbind|"
    r"remote|root|server|source|sub-?dir|subpath|subvol(?:id)?|target|upperdir|ur[il]|host|mounthost|remoteports|"
    r"client_?(?:fs|mds_?namespace|mountpoint|root)|ip|prefix_?path|unc|r|vol(?:ume)?)",
    re.IGNORECASE,
)
_PLAIN_VALUE = re.compile(
    r"|-?\d{1,7}(?:\.\d{1,3})?|\d{1,9}(?:[KMGT]i?B?|ms|us|ns|[smhd%])|true|false|yes|no|on|off|none",
    re.IGNORECASE,
)
# Keys whose values are text and name no storage: of mount(8), nfs(5), mount.cifs(8), mount.lustre(8), mount.ceph(8)
# and of the clients of object stores.
_TEXT_OPTION = re.compile(
    r"acl|allow-other|allow_other|app-name|awscredsuri|awsprofile|az|billing-project|cache|cache-dir"
    r"|cache-eviction|cache_dir|cachedir|client-protocol|clientaddr|comment|context|credentials|crush_location"
    r"|data|defcontext|dir-mode|dir_mode|dmask|dom|domain|errors|expected-bucket-owner|file-cache|file-mode"
    r"|file-system|file_mode|fmask|fscontext|gcs-retries|gid|group|iam|iocharset|key-file|list|local_lock|log"
    r"|log-directory|log-format|log-level|log-severity|log_level|logging|lookupcache|metadata-cache|minorversion"
    r"|mountproto|mp_umask|ms_mode|name|network|nfsvers|owner|pass|password|profile|proto|read_from_replica"
    r"|recover_session|region|reparse|rolearn|rootcontext|rsize|sec|secret|secretfile|sigv4|sse|sse-kms-key-id"
    r"|storage-class|storage_class|symlink|temp-dir|tls|tmp-dir|tmp-path|uid|umask|upload-checksums|use_cache|user"
    r"|user-agent-prefix|username|vers|workgroup|write|wsize|xprtsec"
)


_SHORT_OPTION = re.compile(r"(?<!-)-*o\s+")


def redirected(volume: CsiVolume, driver: Driver | None) -> bool:
    """Whether a mount option may change the storage in a way that the driver's entry does not read."""
    narrowing = driver.narrowing if driver is not None else ()
    for option in volume.options:
        key, value = _key_value(option)
        if key in narrowing or _TEXT_OPTION.fullmatch(key) is not None or key.startswith("x-"):
            continue
        if _REDIRECTING.fullmatch(key) is not None or _PLAIN_VALUE.fullmatch(value) is None:
            return True
    return False


def _key_value(option: str) -> tuple[str, str]:
    text = _SHORT_OPTION.sub("", option.strip()).lstrip("-")
    parts = re.split(r"[=:\s]", text, maxsplit=1)
    return parts[0].strip().lower(), parts[1].strip() if len(parts) > 1 else ""


# Readers that several drivers share.


def nfs(server: str, path: str) -> Iterable[Location]:
    """Return the locations of an NFS export, also under the name that a cloud gives it."""
    addresses = hosts(server)
    places = list(directory("nfs", path, addresses=addresses))
    # Servers of several protocols ignore case, and some ignore Unicode forms and spaces.
    folded = unicodedata.normalize("NFKC", path).casefold()
    places += directory(FOLDED_NFS, "/".join(part.strip() for part in folded.split("/")), addresses=addresses)
    if "/" in server.partition("://")[2] or ("/" in server and "://" not in server):
        # A server field with a path of its own: where the mount ends is unknown.
        places.append(Location("nfs", "", "/", addresses, vague=True))
    for host in addresses:
        efs, azure = _EFS_HOST.fullmatch(host), _AZURE_HOST.fullmatch(host)
        if efs is not None:
            places += directory("efs", path, name=efs[1])
        elif azure is not None:
            places += directory(_AZURE_SPACE[azure[2]], _below_account(path), name=azure[1], fold=True)
        elif _ADDRESS.fullmatch(host) is not None:
            # Only the cloud knows which file system a mount target belongs to.
            places += [place._replace(vague=True) for place in directory("efs", path)]
    return places


_ADDRESS = re.compile(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*")
_EFS_HOST = re.compile(r"(?:[a-z0-9-]+\.)?(fs-[0-9a-f]+)\.efs\..+")
_AZURE_HOST = re.compile(r"([a-z0-9]+)\.(?:privatelink\.)?(blob|file)\.(?:core|storage)\..+")
_AZURE_SPACE = {"blob": "azblob", "file": "azfile"}


def _below_account(path: str) -> str:
    """Return /container/… of the export /account/container/…"""
    return "/" + normal_path(path).lstrip("/").partition("/")[2]


def lustre(source: str, below: str = "") -> Iterable[Location]:
    """Return the location of ``mgs@tcp:/filesystem/directory``, with any number of management addresses."""
    match = _LUSTRE.fullmatch(source.strip())
    if match is None:
        return ()
    nodes = ",".join(part.partition("@")[0] for part in re.split(r"[,:;]", match[1]) if part)
    system, _, path = normal_path(match[2]).lstrip("/").partition("/")
    return directory("lustre", f"{path}/{below}", name=system, addresses=hosts(nodes)) if system else ()


_LUSTRE = re.compile(r"([^/]*):(/.+)", re.DOTALL)


def smb(source: str, below: str = "") -> Iterable[Location]:
    """Return the location of ``//server/share/directory``."""
    host, _, share = source.replace("\\", "/").lstrip("/").partition("/")
    addresses = hosts(host)
    places = list(directory("smb", f"{share}/{below}", addresses=addresses, fold=True))
    for name in addresses:
        azure = _AZURE_HOST.fullmatch(name)
        if azure is not None:
            places += directory("azfile", f"{share}/{below}", name=azure[1], fold=True)
    return places if host else ()


def bucket(space: str, name: str, prefix: str = "", endpoint: str = "") -> Iterable[Location]:
    """Return the location of a bucket, in the space of the cloud that its endpoint belongs to."""
    host = next(iter(hosts(endpoint)), "") if endpoint else ""
    for suffix, cloud in _CLOUDS:
        if host.endswith(suffix):
            space, host = cloud, ""
    name = name.strip().strip("/").lower()
    if not name:
        return ()
    # An access point, of S3, S3 Express, S3 on Outposts or Object Lambda, has a name of its own.
    vague = name.startswith("arn:") or name.endswith(("-s3alias", "--op-s3", "--ol-s3", "--xa-s3", ".mrap"))
    places = directory(space, prefix, name="" if vague else name, addresses=frozenset([host] if host else []))
    return [place._replace(vague=True, name="") for place in places] if vague else places


_CLOUDS = (
    (".amazonaws.com", "s3"),
    (".amazonaws.com.cn", "s3"),
    ("storage.googleapis.com", "gs"),
    (".aliyuncs.com", "oss"),
    (".myhuaweicloud.com", "obs"),
    (".myhuaweicloud.eu", "obs"),
    (".otc.t-systems.com", "obs"),
)


def expand(text: str, volume: CsiVolume) -> str:
    """Expand the templates that csi-driver-nfs and csi-driver-smb replace (pkg/nfs/nodeserver.go, replaceWithMap)."""
    for template, key in _METADATA:
        value = volume.attributes.get(key)
        if value:
            text = text.replace(template, value)
    return text


_METADATA = (
    ("${pvc.metadata.name}", "csi.storage.k8s.io/pvc/name"),
    ("${pvc.metadata.namespace}", "csi.storage.k8s.io/pvc/namespace"),
    ("${pv.metadata.name}", "csi.storage.k8s.io/pv/name"),
)


def _handle(space: str) -> Callable[[CsiVolume], Iterable[Location]]:
    """Return a reader for drivers whose handle ends in the name of one disk."""

    def read(volume: CsiVolume) -> Iterable[Location]:
        name = volume.handle.rpartition("/")[2].lower()
        return (Location(space, name),) if name else ()

    return read


def _portworx(volume: CsiVolume) -> Iterable[Location]:
    return portworx(volume.handle)


def portworx(handle: str) -> Iterable[Location]:
    """Return the locations of a Portworx volume, which has an ID of digits and a name. Either opens it."""
    name = handle.strip().lower()
    if not name:
        return ()
    return (Location("portworx", name), *(() if name.isdecimal() else (Location("portworx", vague=True),)))


def _vsphere(volume: CsiVolume) -> Iterable[Location]:
    # The same disk has an ID and a path in a datastore, and only vSphere knows which belong together.
    name = volume.handle.rpartition("/")[2].lower()
    return (Location("vsphere", name), Location("vsphere-path", vague=True)) if name else ()


# One reader a driver, in the order of the table.


def _gcsfuse(volume: CsiVolume) -> Iterable[Location]:
    name = volume.get("bucketname") if volume.inline else volume.handle.partition(":")[0]
    if not name:
        return ()
    only = volume.option("only-dir", "only_dir")
    return directory("gs", only, name="" if name == "_" else name.lower())


def _mountpoint(volume: CsiVolume) -> Iterable[Location]:
    return bucket("s3", volume.get("bucketname"), volume.option("prefix"), volume.option("endpoint-url"))


def _csi_s3(volume: CsiVolume) -> Iterable[Location]:
    # The node mounts what the handle names; the attributes are those of provisioning.
    name, _, prefix = volume.handle.partition("/")
    return bucket("s3", name or volume.get("bucket"), prefix if name else volume.get("prefix"))


def _efs(volume: CsiVolume) -> Iterable[Location]:
    tokens = volume.handle.split(":")
    if tokens[0] in ("efs", "s3files"):
        tokens = tokens[1:]
    system, path, point = (*tokens, "", "", "")[:3]
    if not system:
        return ()
    point = point or volume.option("accesspoint")
    if point:
        # The directory of an access point is known to the cloud only.
        return (Location("efs", system, vague=True), Location("efs-access-point", point))
    places = list(directory("efs", path or volume.get("path"), name=system))
    # The address of a mount target decides, whatever the file system is called (aws/efs-utils, mount_efs).
    target = volume.get("mounttargetip") or volume.option("mounttargetip")
    return [*places, *directory("nfs", path, addresses=hosts(target))] if target else places


def _fsx_lustre(volume: CsiVolume) -> Iterable[Location]:
    host = volume.get("dnsname")
    return lustre(f"{host}@tcp:/{volume.get('mountname') or 'fsx'}") if host else ()


def _fsx_openzfs(volume: CsiVolume) -> Iterable[Location]:
    host = volume.get("dnsname")
    return nfs(host, volume.get("volumepath") or "fsx") if host else ()


def _azure_names(volume: CsiVolume, *keys: str) -> tuple[str, str]:
    """Return the account and the container or share; attributes win over the parts of the handle."""
    parts = (*volume.handle.split("#"), "", "", "")
    has_parts = volume.handle.count("#") >= 2
    account = volume.get("storageaccount", "storageaccountname") or (parts[1] if has_parts else "")
    return account, volume.get(*keys) or (parts[2] if has_parts else "")


def _azure_places(volume: CsiVolume, space: str, path: str, account: str) -> list[Location]:
    """Return the locations of a container or share. The account in a Secret wins over the account of the volume."""
    places = list(directory(space, path, name=account, fold=True))
    if account and (volume.secret or volume.get("secretname")):
        places += [place._replace(name="", vague=True) for place in directory(space, path, fold=True)]
    return places


def _azure_blob(volume: CsiVolume) -> Iterable[Location]:
    account, container = _azure_names(volume, "containername")
    if not container and not account:
        return ()
    path = expand(container, volume)
    places = _azure_places(volume, "azblob", path, account)
    server = volume.get("server")
    if server:
        places += nfs(server, f"{account}/{path}")
        for host in hosts(server):
            match = _AZURE_HOST.fullmatch(host)
            places += directory("azblob", path, name=match[1] if match is not None else "", fold=True)
    return places


def _azure_file(volume: CsiVolume) -> Iterable[Location]:
    account, share = _azure_names(volume, "sharename")
    if not share:
        return ()
    path = expand(f"{share}/{volume.get('foldername')}", volume)
    places = _azure_places(volume, "azfile", path, account)
    server = volume.get("server")
    return [*places, *smb(f"//{server}/{path}"), *nfs(server, f"{account}/{path}")] if server else places


def _lustre_gke(volume: CsiVolume) -> Iterable[Location]:
    values = {key.replace("-", "").replace("_", ""): value for key, value in volume.attributes.items()}
    point = values.get("mountpoint")
    if point:
        return lustre(point)
    return (
        lustre(f"{values['ip']}@tcp:/{values['filesystem']}") if {"ip", "filesystem"} <= values.keys() else ()
    )


def _lustre_azure(volume: CsiVolume) -> Iterable[Location]:
    # The file system is always "lustrefs": newLustreVolume ignores fs-name. The handle is any unique string.
    host = volume.get("mgs-ip-address")
    return lustre(f"{host}@tcp:/lustrefs", expand(volume.get("sub-dir"), volume)) if host else ()


def _lustre_oci(volume: CsiVolume) -> Iterable[Location]:
    return lustre(volume.handle)


def _exascaler(volume: CsiVolume) -> Iterable[Location]:
    # configName:nid;/exaFS[/directory]:/mountPoint:/volume
    system, _, rest = volume.handle.partition(";")
    path, _, rest = rest.partition(":")
    point, _, below = rest.partition(":")
    node = system.partition(":")[2]
    if not path or not below:
        return ()
    places = [*lustre(f"{node or '0.0.0.0'}:{path}", below)]
    if volume.get("exafs"):
        places += lustre(volume.get("exafs"), below)
    # The volume is a bind mount of a directory below the mount point, which another volume may have mounted.
    return [*places, *directory("exa-mount", f"{volume.get('mountpoint') or point}/{below}")]


def _weka(volume: CsiVolume) -> Iterable[Location]:
    # type/version/filesystem[:access point][/directory]; a snapshot of a file system holds the same files.
    parts = volume.handle.split("/")
    system = parts[2].partition(":")[0] if len(parts) > 2 else ""
    return directory("weka", "/".join(parts[3:]), name=system) if system else ()


def _beegfs(volume: CsiVolume) -> Iterable[Location]:
    try:
        url = urlsplit(volume.handle)
    except ValueError:
        return ()
    if url.scheme != "beegfs" or not url.netloc:
        return ()
    return (Location("beegfs", "", normal_path(unquote(url.path)), hosts(url.netloc)),)


def _spectrum_scale(volume: CsiVolume) -> Iterable[Location]:
    parts = volume.handle.split(";")
    if len(parts) in (3, 4):
        system, path = parts[1], parts[-1].partition("=")[2]
        fileset = parts[2].partition("=")[2] if len(parts) == 4 else ""
    elif len(parts) == 7:
        system, fileset, path = parts[3], parts[5], parts[6]
    else:
        return ()
    # The driver follows a symbolic link at this path, so the directory may be any of the file system.
    places = [*directory("scale", path, name=system.lower()), Location("scale", system.lower(), vague=True)]
    return [*places, Location("scale-fileset", f"{system.lower()}/{fileset}")] if fileset else places


def _powerscale(volume: CsiVolume) -> Iterable[Location]:
    path = volume.get("path")
    if not path or volume.inline:
        return ()
    cluster = volume.handle.split("=_=_=")[3] if volume.handle.count("=_=_=") >= 3 else ""
    server = volume.get("azserviceip")
    return (
        *directory("powerscale", path, name=cluster),
        *directory("nfs", path, addresses=frozenset() if "localhost" in server else hosts(server)),
    )


def _juicefs(volume: CsiVolume) -> Iterable[Location]:
    yield from _juicefs_node_paths(volume)
    yield from _juicefs_files(volume)


def _juicefs_node_paths(volume: CsiVolume) -> Iterable[Location]:
    """Yield the paths of the node that the volume's mount pod gets (pkg/config/config.go, NewMountPodSetting)."""
    for path in volume.get("juicefs/host-path").split(","):
        if path.strip():
            yield Location(NODE, "", normal_path(path.strip()))
    if volume.get("juicefs/mount-image"):
        # The mount pod is privileged, and this image runs in it.
        yield Location(NODE, "", "/")


def _juicefs_files(volume: CsiVolume) -> Iterable[Location]:
    # The Secret holds the address of the metadata, so another Secret may be a copy.
    below = volume.option("subdir") or volume.get("subpath")
    if volume.get("subpath") and not volume.option("subdir"):
        # The driver mounts the root where mounts are not shared (pkg/juicefs/juicefs.go, CreateVol).
        return [
            place._replace(vague=True) for place in directory("juicefs", "/", addresses=_one(volume.secret))
        ]
    return directory("juicefs", below, addresses=_one(volume.secret))


def _one(text: str) -> frozenset[str]:
    return frozenset([text]) if text else frozenset()


def _ceph_cluster(volume: CsiVolume) -> frozenset[str]:
    # Any subset of a cluster's monitors reaches it, so monitors tell no clusters apart.
    match = _CEPH_HANDLE.fullmatch(volume.handle)
    return _one(volume.get("clusterid") or (match[1] if match is not None else ""))


_CEPH_HANDLE = re.compile(r"[0-9a-f]{4}-[0-9a-f]{4}-(.+)-[0-9a-f]{16}-([0-9a-f-]{36})")


def _rbd(volume: CsiVolume) -> Iterable[Location]:
    match = _CEPH_HANDLE.fullmatch(volume.handle)
    static = volume.get("staticvolume").lower() in ("true", "t", "1")
    image = volume.handle if static else volume.get("imagename")
    if static and volume.get("migration").lower() == "true":
        image = volume.get("imagename")
    if not image and match is not None:
        image = f"{volume.get('volumenameprefix') or 'csi-vol-'}{match[2]}"
    if not image:
        return ()
    place = rbd(volume.get("pool"), image)._replace(addresses=_ceph_cluster(volume))
    if match is not None and not static:
        return (place, Location("rbd-uuid", match[2]))
    uuid = _UUID.search(image)
    return (place, Location("rbd-uuid", uuid[0])) if uuid is not None else (place,)


def rbd(pool: str, image: str) -> Location:
    """Return the location of an image. A snapshot holds the image's data, and a namespace is not compared."""
    return Location("rbd", pool, normal_path(image.partition("@")[0].rpartition("/")[2]))


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _cephfs(volume: CsiVolume) -> Iterable[Location]:
    path = volume.get("rootpath", "subvolumepath")
    match = _CEPH_HANDLE.fullmatch(volume.handle)
    places = [Location("cephfs-uuid", match[2])] if match is not None else []
    if path:
        # Mount options come after the name, and the last one wins.
        for name in {volume.get("fsname"), volume.option("fs", "mds_namespace")} - {""} or {""}:
            places += directory("cephfs", path, name=name, addresses=_ceph_cluster(volume))
        places += [Location("cephfs-uuid", uuid) for uuid in _UUID.findall(path)]
    return places


def _nfs_csi(volume: CsiVolume) -> Iterable[Location]:
    server, share = volume.get("server"), volume.get("share")
    if not server or not share:
        return ()
    return nfs(server, f"{share}/{expand(volume.get('subdir'), volume)}")


def _nfs_ceph(volume: CsiVolume) -> Iterable[Location]:
    # Ganesha exports a subvolume of CephFS under a name of its own (ceph/ceph-csi internal/nfs/controller).
    match = _CEPH_HANDLE.fullmatch(volume.handle)
    places = [*_nfs_csi(volume), Location("cephfs", vague=True)]
    return [*places, Location("cephfs-uuid", match[2])] if match is not None else places


def _manila(space: str) -> Callable[[CsiVolume], Iterable[Location]]:
    """Return a reader for a share of OpenStack Manila. Only Manila knows its export."""

    def read(volume: CsiVolume) -> Iterable[Location]:
        share = volume.get("shareid", "sharename") or volume.handle
        return (Location("manila", share), Location(space, vague=True)) if share else ()

    return read


def _smb_csi(volume: CsiVolume) -> Iterable[Location]:
    return smb(volume.get("source"), expand(volume.get("subdir"), volume))


def _filestore(volume: CsiVolume) -> Iterable[Location]:
    host = volume.get("ip")
    parts = volume.handle.split("/")
    places = list(nfs(host, volume.get("volume"))) if host else []
    if len(parts) >= 4:
        places += directory("filestore", "/".join(parts[3:]), name="/".join(parts[1:3]))
    return places


def _alibaba_nas(volume: CsiVolume) -> Iterable[Location]:
    server = volume.get("server", "accesspoint")
    return (
        nfs(server, volume.get("path") or "/")
        if server and not volume.get("containernetworkfilesystem")
        else ()
    )


def _alibaba_oss(volume: CsiVolume) -> Iterable[Location]:
    if volume.get("containernetworkfilesystem", "agenticbucket", "bucketspace"):
        return ()
    return bucket("oss", volume.get("bucket"), volume.get("path"))


def _huawei_obs(volume: CsiVolume) -> Iterable[Location]:
    # The node asks for the bucket of the handle and reads no attribute.
    return bucket("obs", volume.handle)


def _oci_fss(volume: CsiVolume) -> Iterable[Location]:
    system, _, rest = volume.handle.partition(":")
    host, _, path = rest.rpartition(":")
    if not system or not host or not path:
        return ()
    # Any export of a file system shows its files, whatever the path of the export is.
    return (*directory("nfs", path, addresses=hosts(host)), Location("oci-fss", system.lower()))


def _vast(volume: CsiVolume) -> Iterable[Location]:
    # Schema 2 mounts export_path. Schema 1, the default, joins root_export with the handle or a snapshot's path. Where
    # a volume has both, either may count, since the default differs between versions.
    if volume.inline:
        return ()
    root, export = volume.get("root_export"), volume.get("export_path")
    paths = {export} if export else set()
    if root and (not export or volume.get("schema") != "2"):
        paths.add(f"{root}/{volume.get('snapshot_base_path') or volume.handle}")
    addresses = hosts(volume.get("vip_pool_fqdn"))
    return [
        place
        for path in paths
        for place in (*directory("vast", path), *directory("nfs", path, addresses=addresses))
    ]


def _iscsi(volume: CsiVolume) -> Iterable[Location]:
    return iscsi(volume.get("iqn"), volume.get("lun"))


def iscsi(iqn: str, lun: str) -> Iterable[Location]:
    """Return the location of a LUN. A target's name is unique in the world (RFC 7143, section 4.2.7)."""
    number = lun.strip()
    number = (
        str(int(number)) if number.isdecimal() and number.isascii() and len(number) < 20 else number or "0"
    )
    return (Location("iscsi", iqn.strip().lower(), f"/{number}"),) if iqn.strip() else ()


def _democratic(volume: CsiVolume) -> Iterable[Location]:
    kind = volume.get("node_attach_driver")
    if kind == "nfs":
        return nfs(volume.get("server"), volume.get("share")) if volume.get("server") else ()
    if kind == "smb":
        return smb(f"//{volume.get('server')}/{volume.get('share')}")
    if kind == "iscsi":
        return iscsi(volume.get("iqn"), volume.get("lun"))
    if kind == "nvmeof":
        return (
            (Location("nvme", volume.get("nqn").lower(), f"/{volume.get('nsid')}"),)
            if volume.get("nqn")
            else ()
        )
    if kind == "lustre":
        return lustre(f"{volume.get('server')}:/{volume.get('share').lstrip('/')}")
    if kind in ("hostpath", "local", "zfs-local"):
        path = volume.get("path")
        return (Location(NODE, "", normal_path(path)),) if path else ()
    return ()


def _cubefs(volume: CsiVolume) -> Iterable[Location]:
    name = volume.get("volname") or volume.handle
    return directory("cubefs", volume.get("subdir"), name=name, addresses=hosts(volume.get("masteraddr")))


def _fluid(volume: CsiVolume) -> Iterable[Location]:
    # The driver bind-mounts this path of the node (pkg/csi/plugins/nodeserver.go).
    path = volume.get("fluid_path")
    if not path:
        return ()
    path = normal_path(f"{path}/{volume.get('fluid_sub_path')}")
    return (Location("fluid", "", path), Location(NODE, "", path))


def _hub(volume: CsiVolume) -> Iterable[Location]:
    kind, name = volume.get("sourcetype"), volume.get("sourceid")
    return hub(name, bucket=kind == "bucket", endpoint=volume.get("hubendpoint")) if name else ()


def hub(name: str, *, bucket: bool = False, endpoint: str = "") -> Iterable[Location]:
    """Return the location of a Hugging Face repository. Names are case-insensitive; a revision narrows nothing."""
    parts = [part for part in name.strip().lower().split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    width = 3 if parts[:1] in (["datasets"], ["spaces"]) else 2
    repository = "/".join(parts[:width]).partition("@")[0].partition(":")[0].removesuffix(".git")
    host = next(iter(hosts(endpoint)), "") if endpoint else ""
    addresses = frozenset([host]) if host and not host.endswith(("huggingface.co", "hf.co")) else frozenset()
    return directory(
        "hf-bucket" if bucket else "hf", "/".join(parts[width:]), name=repository, addresses=addresses
    )


def guess(volume: CsiVolume) -> Iterable[Location]:
    """Return the locations that the handle, attributes and options of a driver without an entry seem to name.

    Names of fields are only hints, so every value that looks like an export, a share or a target counts as one.
    """
    get = volume.get
    texts = [volume.handle, *volume.attributes.values(), *(_key_value(item)[1] for item in volume.options)]
    places: list[Location] = []
    for text in dict.fromkeys(item for item in texts[:_MAX_GUESSES] if 0 < len(item) <= _MAX_GUESS):
        places += _guess_value(text, volume)
    places += _guess_exports(volume)
    for name in _guess_buckets(volume):
        for space in _STORES:
            places += bucket(space, name, get("prefix", "objpath"), get("endpoint", "url"))
    return [*places, *_guess_names(volume), *_guess_handle(volume)]


def _guess_value(text: str, volume: CsiVolume) -> Iterable[Location]:
    """Return the locations that a value names by its form: a share, an export or a target."""
    places: list[Location] = []
    below = volume.get("subdir")
    if text.replace("\\", "/").startswith("//"):
        places += smb(text, below)
    export = _EXPORT.search(text)
    if export is not None:
        places += lustre(export[0]) if "@" in export[1] else nfs(export[1], f"{export[2]}/{below}")
    target = _TARGET.search(text.lower())
    if target is not None:
        space = "nvme" if target[0].startswith("nqn.") else "iscsi"
        lun = volume.get("lun", "lunid", "targetlun") if space == "iscsi" else ""
        places += iscsi(target[0], lun) if lun else [Location(space, target[0], vague=True)]
    return places


def _guess_handle(volume: CsiVolume) -> Iterable[Location]:
    """Return the locations that a handle may name alone: a directory of an unknown server, or a bucket."""
    if volume.handle.startswith("/") and normal_path(volume.handle) != "/":
        return directory("nfs", volume.handle)
    name, _, prefix = volume.handle.partition("/")
    if _STORE_DRIVER.search(volume.driver) is None or _BUCKET_NAME.fullmatch(name) is None:
        return ()
    return [place for space in _STORES for place in bucket(space, name, prefix)]


_STORE_DRIVER = re.compile(r"bucket|cos|gcs|geesefs|goofys|minio|object|obs|oss|s3|tigris|tos")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def _guess_names(volume: CsiVolume) -> Iterable[Location]:
    """Return the locations that pairs of attributes name together."""
    get = volume.get
    host, system = get("dnsname", "mgs"), get("mountname", "fsname", "filesystem")
    if host and system:
        yield from lustre(f"{host}:/{system}")
    if get("rootpath") and get("clusterid", "monitors"):
        yield from directory("cephfs", get("rootpath"), name=get("fsname"))
    if get("pool") and get("imagename", "image"):
        yield rbd(get("pool"), get("imagename", "image"))
    if get("containername", "container"):
        account = get("storageaccount", "storageaccountname")
        yield from directory("azblob", get("containername", "container"), name=account, fold=True)


_MAX_GUESSES = 64
_MAX_GUESS = 1024
# server:/path, also inside a longer handle, and with the address of a Lustre network.
_EXPORT = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z][0-9A-Za-z.@_-]{0,253})(?::|:[0-9]{1,5}(?=//))(/[^\s;|#?]*)"
)
_TARGET = re.compile(r"(?:iqn|nqn)\.[0-9]{4}-[0-9]{2}[^\s,;|#/]{1,220}|(?:naa|eui)\.[0-9a-f]{16,32}")
_SERVER_KEY = re.compile(r"server|host|addr|endpoint|portal|mgs|gateway|dns|(?:^|[^a-z])ips?(?:$|[^a-z])|ip$")
_BUCKET_KEY = re.compile(r"bucket(?:[._-]?(?:name|id))?$")
_DIRECTORY_KEY = re.compile(r"path|dir|share|export|folder|root")


def _guess_exports(volume: CsiVolume) -> Iterable[Location]:
    """Return every server of a volume with every path. A server without a path may export any directory."""
    servers = [value for key, value in volume.attributes.items() if value and _SERVER_KEY.search(key)]
    parts = re.split(r"[#;|,]", volume.handle)[:_MAX_PARTS]
    servers += [part for part in parts if _ADDRESS.fullmatch(part.strip()) and any(map(part.count, ".:"))]
    if not servers:
        return
    paths = [value for key, value in volume.attributes.items() if _DIRECTORY_KEY.search(key) and value]
    paths = [path for path in paths if path.startswith("/") or path not in servers]
    paths += [part for part in parts if part.startswith("/")]
    below = volume.get("subdir")
    for server in servers[:_MAX_PARTS]:
        for path in paths[:_MAX_PARTS]:
            yield from nfs(server, f"{path}/{below}" if path != below else path)
        if not paths:
            yield from (place._replace(vague=True) for place in nfs(server, "/"))


_MAX_PARTS = 4


def _guess_buckets(volume: CsiVolume) -> list[str]:
    names = [value for key, value in volume.attributes.items() if _BUCKET_KEY.search(key) and value]
    names += [value for key, value in map(_key_value, volume.options) if _BUCKET_KEY.search(key) and value]
    return names[:_MAX_PARTS]


def _nothing(_: CsiVolume) -> Iterable[Location]:
    return ()


def image_locations(reference: str) -> Iterable[Location]:
    """Return the locations of an OCI artifact: tags tell apart, a digest may be that of any tag."""
    image = image_reference(reference)
    if image.digest:
        return (Location("image-digest", image.digest), Location("image", image.repository, vague=True))
    return (Location("image", image.repository, f"/{image.tag or 'latest'}"),)


def _modelpack_image(volume: CsiVolume) -> str:
    return volume.get(f"{volume.driver}/reference", "model.csi.modelpack.org/reference")


def _warm_metal_image(volume: CsiVolume) -> str:
    return volume.get("volumehandle", "image") or ("" if volume.inline else volume.handle)


def _populator_image(volume: CsiVolume) -> str:
    return volume.get("image")


def _rclone(volume: CsiVolume) -> Iterable[Location]:
    # The driver's own Secret gives defaults. A remote is a name in a configuration, which a volume can bring.
    remote, path = volume.get("remote"), volume.get("remotepath") + volume.get("remotepathsuffix")
    if not remote or not volume.get("remotepath") or volume.get("configdata"):
        return (Location("rclone", vague=True),)
    if remote.startswith(":"):
        # A remote that is written out, such as :local or :s3,provider=AWS.
        local = remote[1:].partition(",")[0].strip().lower() == "local"
        return (Location("rclone", vague=True), *((Location(NODE, "", normal_path(path)),) if local else ()))
    # The remote may be of any store, whose path starts with the bucket.
    name, _, prefix = path.lstrip("/").partition("/")
    places = [place for space in _STORES for place in bucket(space, name, prefix)]
    return [
        *directory("rclone", path, addresses=_one(remote)),
        *places,
        *directory("azblob", path, fold=True),
    ]


_STORES = ("s3", "gs", "oss", "obs")


def _longhorn(volume: CsiVolume) -> Iterable[Location]:
    # A volume that is filled from a backup holds what the backup holds, which only Longhorn knows.
    if volume.get("frombackup", "backingimage", "datasource"):
        return ()
    # A share manager exports a shared volume under its name.
    return (Location("longhorn", volume.handle.lower()), *directory("nfs", volume.handle))


def _trident(volume: CsiVolume) -> Iterable[Location]:
    # ONTAP exports a volume under its own name.
    name = volume.get("internalname") or volume.handle
    return (Location("trident", name), *directory("nfs", name))


DRIVERS: dict[str, Driver] = {
    "gcsfuse.csi.storage.gke.io": Driver(
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/utils.go parseRequestArguments, pkg/util/util.go",
        "volumeHandle before the first colon on a PersistentVolume, bucketName inline, `_` for every bucket, only-dir",
        ("gs",),
        _gcsfuse,
        narrowing=("only-dir", "only_dir"),
    ),
    "s3.csi.aws.com": Driver(
        "awslabs/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        "bucketName, options prefix and endpoint-url",
        ("s3", "gs", "oss", "obs"),
        _mountpoint,
        narrowing=("prefix", "endpoint-url"),
    ),
    "s3.csi.scality.com": Driver(
        "scality/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        "bucketName, options prefix and endpoint-url",
        ("s3",),
        _mountpoint,
        narrowing=("prefix", "endpoint-url"),
    ),
    "ru.yandex.s3.csi": Driver(
        "yandex-cloud/k8s-csi-s3 pkg/driver/controllerserver.go volumeIDToBucketPrefix",
        "volumeHandle as bucket/prefix",
        ("s3",),
        _csi_s3,
    ),
    "ch.ctrox.csi.s3-driver": Driver(
        "ctrox/csi-s3 pkg/driver/controllerserver.go volumeIDToBucketPrefix",
        "volumeHandle as bucket/prefix",
        ("s3",),
        _csi_s3,
    ),
    "efs.csi.aws.com": Driver(
        "kubernetes-sigs/aws-efs-csi-driver pkg/driver/node.go parseVolumeId",
        "volumeHandle as [type:]file system[:path[:access point]], mounttargetip",
        ("efs", "nfs"),
        _efs,
        narrowing=("accesspoint", "mounttargetip"),
    ),
    "fsx.csi.aws.com": Driver(
        "kubernetes-sigs/aws-fsx-csi-driver pkg/driver/node.go NodePublishVolume",
        "dnsname and mountname (default fsx)",
        ("lustre",),
        _fsx_lustre,
        keys=("dnsname", "mountname"),
    ),
    "fsx.openzfs.csi.aws.com": Driver(
        "kubernetes-sigs/aws-fsx-openzfs-csi-driver pkg/driver/node.go NodePublishVolume",
        "DNSName and VolumePath (default fsx)",
        ("nfs",),
        _fsx_openzfs,
        keys=("DNSName", "VolumePath"),
    ),
    "blob.csi.azure.com": Driver(
        "kubernetes-sigs/blob-csi-driver pkg/blob/blob.go GetAuthEnv, GetContainerInfo",
        "storageAccount, containerName and server, else the handle's second and third part, any account with a Secret",
        ("azblob", "nfs"),
        _azure_blob,
        folds_case=True,
    ),
    "file.csi.azure.com": Driver(
        "kubernetes-sigs/azurefile-csi-driver pkg/azurefile/azurefile.go GetFileShareInfo",
        "storageAccount, shareName, folderName and server, else the handle's parts, any account with a Secret",
        ("azfile", "smb", "nfs"),
        _azure_file,
        folds_case=True,
    ),
    "lustre.csi.storage.gke.io": Driver(
        "GoogleCloudPlatform/lustre-csi-driver pkg/csi_driver/node.go NodeStageVolume",
        "mountPoint, else ip and filesystem, the handle is not read",
        ("lustre",),
        _lustre_gke,
    ),
    "azurelustre.csi.azure.com": Driver(
        "kubernetes-sigs/azurelustre-csi-driver pkg/azurelustre/nodeserver.go newLustreVolume",
        "mgs-ip-address and sub-dir, the handle is any string",
        ("lustre",),
        _lustre_azure,
    ),
    "lustre.csi.oraclecloud.com": Driver(
        "oracle/oci-cloud-controller-manager pkg/csi-util/utils.go ValidateLustreVolumeId",
        "volumeHandle as address@net:/file system",
        ("lustre",),
        _lustre_oci,
    ),
    "exa.csi.ddn.com": Driver(
        "DDNStorage/exa-csi-driver README.md, static volumes",
        "volumeHandle as config:nid;/file system:/mount point:/directory, exaFS and mountPoint",
        ("lustre", "exa-mount"),
        _exascaler,
    ),
    "csi.weka.io": Driver(
        "weka/csi-wekafs pkg/wekafs/utilities.go sliceFilesystemNameFromVolumeId, sliceInnerPathFromVolumeId",
        "volumeHandle as type/version/file system[:snapshot][/directory]",
        ("weka",),
        _weka,
    ),
    "beegfs.csi.netapp.com": Driver(
        "ThinkParQ/beegfs-csi-driver pkg/beegfs/beegfs_util.go parseBeegfsURL",
        "volumeHandle as beegfs://host/directory",
        ("beegfs",),
        _beegfs,
    ),
    "spectrumscale.csi.ibm.com": Driver(
        "IBM/ibm-spectrum-scale-csi driver/csiplugin/gpfs_util.go getVolIDMembers",
        "file system, fileset and path inside volumeHandle",
        ("scale", "scale-fileset"),
        _spectrum_scale,
    ),
    "csi-isilon.dellemc.com": Driver(
        "dell/csi-powerscale service/node.go NodePublishVolume",
        "Path and AzServiceIP, the cluster inside volumeHandle",
        ("powerscale", "nfs"),
        _powerscale,
    ),
    "csi.juicefs.com": Driver(
        "juicedata/juicefs-csi-driver pkg/driver/node.go NodePublishVolume",
        "nodePublishSecretRef, option subdir, another Secret may be a copy, host-path and mount-image",
        ("juicefs", NODE),
        _juicefs,
        narrowing=("subdir",),
    ),
    "rbd.csi.ceph.com": Driver(
        "ceph/ceph-csi internal/rbd/nodeserver.go populateRbdVol, internal/util/volid.go",
        "pool and image: volumeHandle of a static volume, else imageName or the handle's UUID",
        ("rbd", "rbd-uuid"),
        _rbd,
        keys=("clusterID", "pool", "imageName", "staticVolume", "migration", "volumeNamePrefix"),
    ),
    "cephfs.csi.ceph.com": Driver(
        "ceph/ceph-csi internal/cephfs/store/volumeoptions.go NewVolumeOptionsFromStaticVolume",
        "clusterID, fsName, rootPath or subvolumePath",
        ("cephfs", "cephfs-uuid"),
        _cephfs,
        narrowing=("fs", "mds_namespace"),
        keys=("clusterID", "fsName", "rootPath", "subvolumePath"),
    ),
    "nfs.csi.ceph.com": Driver(
        "ceph/ceph-csi internal/nfs/nodeserver/nodeserver.go NodePublishVolume",
        "server and share, may be any directory of CephFS",
        ("nfs", "cephfs", "cephfs-uuid"),
        _nfs_ceph,
    ),
    "nfs.manila.csi.openstack.org": Driver(
        "kubernetes/cloud-provider-openstack pkg/csi/manila/nodeserver.go buildVolumeContext",
        "shareID or shareName, may be any NFS export",
        ("manila", "nfs"),
        _manila("nfs"),
    ),
    "cephfs.manila.csi.openstack.org": Driver(
        "kubernetes/cloud-provider-openstack pkg/csi/manila/nodeserver.go buildVolumeContext",
        "shareID or shareName, may be any directory of CephFS",
        ("manila", "cephfs"),
        _manila("cephfs"),
    ),
    "nfs.csi.k8s.io": Driver(
        "kubernetes-csi/csi-driver-nfs pkg/nfs/nodeserver.go NodePublishVolume",
        "server, share and subDir with its templates, the handle is not read",
        ("nfs",),
        _nfs_csi,
    ),
    "smb.csi.k8s.io": Driver(
        "kubernetes-csi/csi-driver-smb pkg/smb/nodeserver.go NodeStageVolume",
        "source and subDir with its templates",
        ("smb", "azfile"),
        _smb_csi,
    ),
    "filestore.csi.storage.gke.io": Driver(
        "kubernetes-sigs/gcp-filestore-csi-driver pkg/csi_driver/node.go NodeStageVolume",
        "ip and volume, the instance inside volumeHandle",
        ("nfs", "filestore"),
        _filestore,
    ),
    "nasplugin.csi.alibabacloud.com": Driver(
        "kubernetes-sigs/alibaba-cloud-csi-driver pkg/nas/nodeserver.go parseVolumeContext",
        "server (or accesspoint) and path",
        ("nfs",),
        _alibaba_nas,
    ),
    "ossplugin.csi.alibabacloud.com": Driver(
        "kubernetes-sigs/alibaba-cloud-csi-driver pkg/oss/utils.go parseOptions",
        "bucket and path, every endpoint reaches the same bucket",
        ("oss",),
        _alibaba_oss,
    ),
    "obs.csi.huaweicloud.com": Driver(
        "huaweicloud/huaweicloud-csi-driver pkg/obs/nodeserver.go NodePublishVolume",
        "volumeHandle as bucket",
        ("obs",),
        _huawei_obs,
    ),
    "obs.csi.everest.io": Driver(
        "opentelekomcloud-docs/cloud-container-engine umn/source/storage/object_storage_service",
        "volumeHandle as bucket",
        ("obs",),
        _huawei_obs,
    ),
    "fss.csi.oraclecloud.com": Driver(
        "oracle/oci-cloud-controller-manager pkg/csi-util/utils.go ValidateFssId",
        "volumeHandle as file system:mount target:export path",
        ("nfs", "oci-fss"),
        _oci_fss,
    ),
    "csi.vastdata.com": Driver(
        "vast-data/vast-csi vast_csi/server.py NodePublishVolume",
        "root_export with volumeHandle or snapshot_base_path, with schema 2 export_path",
        ("vast", "nfs"),
        _vast,
        keys=("root_export", "export_path", "schema", "snapshot_base_path", "vip_pool_fqdn"),
    ),
    "iscsi.csi.k8s.io": Driver(
        "kubernetes-csi/csi-driver-iscsi pkg/iscsi/iscsi.go getISCSIInfo",
        "iqn and lun on any portal",
        ("iscsi",),
        _iscsi,
    ),
    "org.democratic-csi.*": Driver(
        "democratic-csi/democratic-csi src/driver/index.js NodeStageVolume",
        "by node_attach_driver: server and share, iqn and lun, nqn and nsid, or path",
        ("nfs", "smb", "iscsi", "nvme", "lustre", NODE),
        _democratic,
    ),
    "csi.cubefs.com": Driver(
        "cubefs/cubefs-csi pkg/cubefs/cfs_server.go newCfsServer",
        "masterAddr and volName (default: volumeHandle), subDir",
        ("cubefs",),
        _cubefs,
        keys=("masterAddr", "volName", "subDir"),
    ),
    "fuse.csi.fluid.io": Driver(
        "fluid-cloudnative/fluid pkg/csi/plugins/nodeserver.go NodePublishVolume",
        "fluid_path and fluid_sub_path",
        ("fluid", NODE),
        _fluid,
        keys=("fluid_path", "fluid_sub_path"),
        # The default of MOUNT_ROOT (pkg/utils/mount.go, GetMountRoot).
        own_directory="/runtime-mnt",
    ),
    "hf.csi.huggingface.co": Driver(
        "huggingface/hf-csi-driver pkg/driver/node.go NodePublishVolume",
        "sourceType, sourceId and hubEndpoint, the revision is not compared",
        ("hf", "hf-bucket"),
        _hub,
    ),
    "model.csi.modelpack.org": Driver(
        "modelpack/model-csi-driver pkg/config/config.go ParameterKeyReference",
        "model.csi.modelpack.org/reference, an inline volume without it mounts any artifact",
        ("image",),
        _nothing,
        images=_modelpack_image,
    ),
    "container-image.csi.k8s.io": Driver(
        "warm-metal/container-image-csi-driver cmd/plugin/node_server.go NodePublishVolume",
        "volumeHandle on a PersistentVolume, attribute image inline",
        ("image",),
        _nothing,
        images=_warm_metal_image,
    ),
    "csi-image.warm-metal.tech": Driver(
        "warm-metal/container-image-csi-driver cmd/plugin/node_server.go NodePublishVolume",
        "volumeHandle on a PersistentVolume, attribute image inline",
        ("image",),
        _nothing,
        images=_warm_metal_image,
    ),
    "image.csi.k8s.io": Driver(
        "kubernetes-csi/csi-driver-image-populator pkg/image/nodeserver.go NodePublishVolume",
        "attribute image",
        ("image",),
        _nothing,
        images=_populator_image,
    ),
    "csi-rclone": Driver(
        "wunderio/csi-rclone pkg/rclone/nodeserver.go NodePublishVolume",
        "remote, remotePath and remotePathSuffix, a volume with configData is unknown",
        ("rclone", *_STORES, "azblob", NODE),
        _rclone,
    ),
    "rclone.csi.veloxpack.io": Driver(
        "veloxpack/csi-driver-rclone pkg/rclone/nodeserver.go NodePublishVolume",
        "remote and remotePath, a volume with configData is unknown",
        ("rclone", *_STORES, "azblob", NODE),
        _rclone,
    ),
    "driver.longhorn.io": Driver(
        "longhorn/longhorn-manager csi/node_server.go NodeStageVolume",
        "volumeHandle, also as an NFS export, a volume from a backup is unknown",
        ("longhorn", "nfs"),
        _longhorn,
    ),
    "csi.trident.netapp.io": Driver(
        "NetApp/trident frontend/csi/node_server.go NodeStageVolume",
        "internalName, else volumeHandle, also as an NFS export",
        ("trident", "nfs"),
        _trident,
    ),
    "hostpath.csi.k8s.io": Driver(
        "kubernetes-csi/csi-driver-host-path pkg/hostpath/nodeserver.go NodePublishVolume",
        "volumeHandle, inline volumes are always new",
        ("hostpath-csi",),
        _handle("hostpath-csi"),
    ),
    "ebs.csi.aws.com": Driver(
        "kubernetes-sigs/aws-ebs-csi-driver pkg/driver/node.go NodeStageVolume",
        "volumeHandle",
        ("ebs",),
        _handle("ebs"),
    ),
    "pd.csi.storage.gke.io": Driver(
        "kubernetes-sigs/gcp-compute-persistent-disk-csi-driver pkg/gce-pd-csi-driver/node.go NodeStageVolume",
        "the disk's name at the end of volumeHandle",
        ("pd",),
        _handle("pd"),
    ),
    "disk.csi.azure.com": Driver(
        "kubernetes-sigs/azuredisk-csi-driver pkg/azuredisk/nodeserver.go NodeStageVolume",
        "the disk's name at the end of volumeHandle",
        ("azuredisk",),
        _handle("azuredisk"),
        folds_case=True,
    ),
    "cinder.csi.openstack.org": Driver(
        "kubernetes/cloud-provider-openstack pkg/csi/cinder/nodeserver.go NodeStageVolume",
        "volumeHandle",
        ("cinder",),
        _handle("cinder"),
    ),
    "pxd.portworx.com": Driver(
        "libopenstorage/openstorage csi/node.go NodePublishVolume",
        "volumeHandle as ID or name, one may be the other's",
        ("portworx",),
        _portworx,
    ),
    "csi.vsphere.vmware.com": Driver(
        "kubernetes-sigs/vsphere-csi-driver pkg/csi/service/node.go NodeStageVolume",
        "volumeHandle, a path in a datastore may be the same disk",
        ("vsphere", "vsphere-path"),
        _vsphere,
    ),
    "blockvolume.csi.oraclecloud.com": Driver(
        "oracle/oci-cloud-controller-manager pkg/csi/driver/bv_node.go NodeStageVolume",
        "volumeHandle",
        ("oci-bv",),
        _handle("oci-bv"),
    ),
    "diskplugin.csi.alibabacloud.com": Driver(
        "kubernetes-sigs/alibaba-cloud-csi-driver pkg/disk/nodeserver.go NodeStageVolume",
        "volumeHandle",
        ("alibaba-disk",),
        _handle("alibaba-disk"),
    ),
}
