"""Which paths of a node mean more than files: a runtime's socket, the kubelet's directories, a device.

Paths are compared after `normal_path`. The node is never looked at, so a symbolic link of its own making is not seen;
baseline policies that refuse host paths altogether are the answer to those.
"""

from __future__ import annotations

from webhook.core.kube.names import compile_glob, path_within, paths_touch

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

# What the node itself runs, or believes: who writes there is root on it.
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

# (kind, directory): mounting it, what contains it or what lies under it is a way out of the sandbox.
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


def exposes_pods(path: str) -> bool:
    """Whether a normalised path shows the volumes of other pods on the node."""
    return any(paths_touch(path, directory) for directory in _POD_DIRECTORIES)


def exposes_logs(path: str) -> bool:
    """Whether a normalised path is where the kubelet reads logs as root, and follows links that others made."""
    return paths_touch(path, "/var/log")


def escapes_at(path: str) -> tuple[str, ...]:
    """The kinds of escape that a normalised host path is, besides being one at all."""
    kinds = {kind for kind, directory in _SENSITIVE if paths_touch(path, directory)}
    if path == "/":
        kinds.add("hostRoot")
    return tuple(sorted(kinds))


def devices_at(path: str) -> tuple[str, ...]:
    """The vendors whose devices a normalised host path reaches; ``?`` where it may be any."""
    vendors = set()
    for vendor, parent, _, itself, beneath in _DEVICE_PATTERNS:
        if path_within(parent, path):
            vendors.add("?")
        elif itself.fullmatch(path) is not None or beneath.fullmatch(path) is not None:
            vendors.add(vendor)
    return tuple(sorted(vendors))
