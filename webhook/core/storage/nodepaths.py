"""Classify paths of a node: harmless ones, devices, and the directories that state files of other pods.

Every host path is a sandbox escape unless it is in `_HARMLESS`, so the list of sensitive directories only adds detail.
Paths are compared after `normal_path`. The node is never read, so a link on the node is not visible here: a harmless
path is therefore read-only, and an exception for a writable path covers exactly that path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.core.kube.names import compile_glob, normal_path, path_within, paths_touch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.api.config import NodePath, Settings

HOST_PATH = "hostPath"

# (path, whether paths below it are harmless, too). Every entry holds only while all mounts are read-only and the
# kubelet creates nothing: a writable path reaches every other path of the node through a link. /var/log is absent
# because the kubelet and log readers follow links there.
_HARMLESS = (
    ("/etc/localtime", False),  # a file with the time zone's rules
    ("/etc/timezone", False),  # a file with the time zone's name
    ("/etc/os-release", False),  # the name and version of the operating system
    ("/usr/lib/os-release", False),
    ("/usr/share/zoneinfo", True),  # rules of all time zones
    ("/etc/ssl/certs", True),  # public CA certificates. /etc/ssl itself also contains private keys
    ("/etc/pki/ca-trust", True),
    ("/etc/pki/tls/certs", True),
    ("/etc/ca-certificates", True),
    ("/usr/share/ca-certificates", True),
    ("/usr/local/share/ca-certificates", True),
)

# Directories through which the volumes of other pods can be read.
_POD_DIRECTORIES = (
    "/var/lib/kubelet",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/rancher/k3s/agent",
    "/var/lib/rancher/rke2/agent",
    "/var/lib/k0s/kubelet",
    "/var/lib/k0s/containerd",
    "/var/snap/microk8s/common/run",
    "/var/snap/microk8s/common/var/lib/kubelet",
    "/run/containerd",
    "/run/crio",
    "/run/containers",
    "/run/k3s",
    "/run/docker",
    "/run/runc",
    "/proc",
)

_POD_KINDS = {"/var/lib/kubelet": "kubeletDirectory", "/proc": "hostProc"}

_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/pipe/containerd-containerd",
    "/pipe/docker_engine",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
)

# What the node itself runs or trusts: a pod that writes there is root on the node.
_NODE_FILES = (
    "/bin",
    "/boot",
    "/etc/cni",
    "/etc/containerd",
    "/etc/containers",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/crontab",
    "/etc/ld.so.preload",
    "/etc/passwd",
    "/etc/profile.d",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/systemd",
    "/etc/udev",
    "/lib/systemd",
    "/opt/cni",
    "/root",
    "/sbin",
    "/usr/bin",
    "/usr/lib/systemd",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/var/spool/cron",
)

# (kind, directory): the more precise kind of a host path that is the directory, contains it or lies below it.
_SENSITIVE = (
    *(("runtimeSocket", path) for path in _SOCKETS),
    *((_POD_KINDS.get(path, "containerState"), path) for path in _POD_DIRECTORIES),
    ("kubeletDirectory", "/etc/kubernetes"),
    ("hostSys", "/sys"),
    *(("nodeFiles", path) for path in _NODE_FILES),
    ("deviceInjection", "/etc/cdi"),
    ("deviceInjection", "/run/cdi"),
    ("deviceInjection", "/opt/nri"),
    ("deviceInjection", "/run/nri"),
    ("nodeLogs", "/var/log"),
)

_DEVICES = (
    ("/dev/nvidia*", "nvidia.com"),
    ("/proc/driver/nvidia*", "nvidia.com"),
    ("/run/nvidia*", "nvidia.com"),
    ("/tmp/nvidia-mps", "nvidia.com"),  # noqa: S108 - a path of the node, matched and never opened
    ("/dev/kfd", "amd.com"),
    ("/dev/dri", "?"),
    ("/dev/accel*", "?"),
    ("/dev/vfio", "?"),
    ("/dev/hl*", "intel.com"),
    ("/dev/davinci*", "huawei.com"),
    ("/dev/mtgpu*", "mthreads.com"),
    ("/dev/infiniband", "?"),
    ("/dev/neuron*", "aws.amazon.com"),
    ("/var/lib/kubelet/device-plugins", "?"),
    ("/var/lib/kubelet/plugins", "?"),
    ("/var/lib/kubelet/plugins_registry", "?"),
    ("/var/lib/kubelet/pod-resources", "?"),
)


def _pattern(directory: str) -> tuple[str, str]:
    """The directory that surely contains the pattern, and the pattern."""
    return directory.rpartition("/")[0] or "/", directory


_DEVICE_PATTERNS = tuple(
    (vendor, _pattern(path)[0], path, compile_glob(path), compile_glob(f"{path}/*"))
    for path, vendor in _DEVICES
)


def is_harmless(path: str, *, writable: bool, creates: bool = False) -> bool:
    """Whether a normalised host path is not an escape. ``creates``: the kubelet makes the path if it is missing."""
    if writable or creates:
        return False
    return any(path == harmless or (below and path_within(path, harmless)) for harmless, below in _HARMLESS)


def exposes_pods(path: str) -> bool:
    """Whether a normalised path shows the volumes of other pods on the node."""
    return any(paths_touch(path, directory) for directory in _POD_DIRECTORIES)


def escapes_at(path: str) -> tuple[str, ...]:
    """Return the more precise kinds of a normalised host path, sorted."""
    kinds = {kind for kind, directory in _SENSITIVE if paths_touch(path, directory)}
    if path == "/":
        kinds.add("hostRoot")
    return tuple(sorted(kinds))


def exception_kind(path: str) -> str:
    """Return the one kind whose exception covers a normalised path; empty where no single kind does.

    A path that contains a sensitive directory is more than the kind that the directory has.
    """
    if path == "/":
        return "hostRoot"
    within = {kind for kind, directory in _SENSITIVE if path_within(path, directory)}
    if "runtimeSocket" in within:
        return "runtimeSocket"
    return next(iter(within)) if len(within) == 1 and within == set(escapes_at(path)) else ""


def devices_at(path: str) -> tuple[str, ...]:
    """Return the vendors whose devices a normalised host path reaches; ``?`` where it may be any."""
    vendors = set()
    for vendor, parent, _, itself, beneath in _DEVICE_PATTERNS:
        if path_within(parent, path):
            vendors.add("?")
        elif itself.fullmatch(path) is not None or beneath.fullmatch(path) is not None:
            vendors.add(vendor)
    return tuple(sorted(vendors))


@dataclass(frozen=True, slots=True)
class _Exception:
    name: str
    path: str
    read_only: bool
    volumes_only: bool


class NodePaths:
    """The exceptions of ``settings.nodePaths``, compiled: which names allow a path of the node."""

    __slots__ = ("_exceptions",)

    def __init__(self, entries: Iterable[NodePath]) -> None:
        self._exceptions = tuple(
            _Exception(entry.name, normal_path(entry.path), entry.read_only, entry.persistent_volumes_only)
            for entry in entries
        )

    def names(self, path: str, *, writable: bool, declared: bool) -> tuple[str, ...]:
        """Return the resource names of which RBAC ``use`` allows a normalised path, ``hostPath`` last.

        ``declared``: the pod's own hostPath names the path, and no PersistentVolume does.
        """
        names = [
            entry.name
            for entry in self._exceptions
            if not (writable and entry.read_only)
            and not (declared and entry.volumes_only)
            and _covers(entry, path, declared=declared)
        ]
        kind = exception_kind(path)
        return (*dict.fromkeys(names), *((kind,) if kind else ()), HOST_PATH)


def _covers(entry: _Exception, path: str, *, declared: bool) -> bool:
    """Whether an entry's path covers another.

    A pod that writes into a directory can plant a link there and mount the link's target by a path below. So below
    a writable entry only PersistentVolumes are covered, whose paths the pod does not choose. Links below /proc lead
    to the roots of other processes.
    """
    if path == entry.path:
        return True
    if not path_within(path, entry.path) or (entry.path != "/" and path_within(path, "/proc")):
        return False
    return entry.read_only or not declared


_last: list[tuple[object, NodePaths]] = []


def node_paths_of(settings: Settings) -> NodePaths:
    """Return the compiled exceptions of these settings. The last ones stay compiled: settings rarely change."""
    if not _last or _last[0][0] is not settings:
        _last[:] = [(settings, NodePaths(settings.node_paths))]
    return _last[0][1]
