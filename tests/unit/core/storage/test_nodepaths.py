"""Paths of the node that are more than files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.config import NodePath
from webhook.core.kube.names import normal_path
from webhook.core.storage.nodepaths import (
    NodePaths,
    devices_at,
    escapes_at,
    exception_kind,
    exposes_pods,
    is_harmless,
)


@pytest.mark.parametrize(
    ("path", "exposed"),
    [
        ("/", True),
        ("/var", True),
        ("/var/lib/kubelet/pods/x/volumes", True),
        ("/var/lib/kubelets", False),
        ("/run", True),
        ("/proc/1/root", True),
        ("/var/lib/rancher/k3s/storage/pvc-1", False),
        ("/mnt/disks/ssd1", False),
    ],
)
def test_paths_that_expose_the_volumes_of_other_pods(path, exposed):
    assert exposes_pods(path) is exposed


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/run/docker.sock", {"runtimeSocket"}),
        ("/run/containerd/containerd.sock", {"containerState", "runtimeSocket"}),
        ("/pipe/docker_engine", {"runtimeSocket"}),
        ("/var/lib/kubelet/pods", {"kubeletDirectory"}),
        ("/etc", {"deviceInjection", "kubeletDirectory", "nodeFiles"}),
        ("/usr/bin/kubelet", {"nodeFiles"}),
        ("/root/.ssh", {"nodeFiles"}),
        ("/etc/localtime", set()),
        ("/sys/class", {"hostSys"}),
        ("/proc", {"hostProc"}),
        ("/opt/data", set()),
    ],
)
def test_kinds_of_escape(path, kinds):
    assert set(escapes_at(path)) == kinds


def test_the_root_is_every_escape():
    assert {"hostRoot", "hostProc", "hostSys", "runtimeSocket", "kubeletDirectory"} <= set(escapes_at("/"))


@pytest.mark.parametrize(
    ("path", "vendors"),
    [
        ("/dev", ("?",)),
        ("/", ("?",)),
        ("/dev/nvidia0", ("nvidia.com",)),
        ("/dev/nvidia-caps/nvidia-cap1", ("nvidia.com",)),
        ("/dev/kfd", ("amd.com",)),
        ("/dev/dri/card0", ("?",)),
        ("/dev/null", ()),
        ("/dev/shm", ()),
        ("/var/lib/kubelet/device-plugins/nvidia.sock", ("?",)),
        ("/home", ()),
    ],
)
def test_vendors_of_device_files(path, vendors):
    assert devices_at(path) == vendors


@given(
    st.lists(
        st.sampled_from(["etc", "var", "lib", "ssl", "certs", "..", ".", "", "localtime", "usr", "share"])
    )
)
def test_a_harmless_path_is_read_only_and_public(parts):
    path = normal_path("/" + "/".join(parts))
    assert not is_harmless(path, writable=True)
    assert not is_harmless(path, writable=False, creates=True)
    if is_harmless(path, writable=False):
        assert path.startswith(("/etc/localtime", "/etc/ssl/certs", "/usr/share/"))
        assert escapes_at(path) == devices_at(path) == ()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "hostRoot"),
        ("/proc", "hostProc"),
        ("/proc/1/root", "hostProc"),
        ("/var/lib/kubelet/pods", "kubeletDirectory"),
        ("/run/containerd/containerd.sock", "runtimeSocket"),
        ("/run", ""),
        ("/etc", ""),
        ("/var/lib/etcd", ""),
    ],
)
def test_an_exception_covers_only_paths_in_its_directory(path, kind):
    assert exception_kind(path) == kind


ENTRIES = NodePaths(
    [
        NodePath(name="logs", path="/var/log/", read_only=True),
        NodePath(name="proc", path="/proc", read_only=True),
        NodePath(name="state", path="/var/lib/agent", read_only=False),
        NodePath(name="volumes", path="/opt/local", read_only=False, persistent_volumes_only=True),
        NodePath(name="root", path="/", read_only=True),
    ]
)


@pytest.mark.parametrize(
    ("path", "writable", "declared", "names"),
    [
        ("/var/log/pods", False, True, {"logs", "root", "nodeLogs", "hostPath"}),
        ("/var/log/pods", True, True, {"nodeLogs", "hostPath"}),
        ("/proc", False, True, {"proc", "root", "hostProc", "hostPath"}),
        ("/proc/1/root", False, True, {"root", "hostProc", "hostPath"}),
        ("/var/lib/agent", True, True, {"state", "hostPath"}),
        ("/var/lib/agent/link", True, True, {"hostPath"}),
        ("/var/lib/agent/link", False, True, {"root", "hostPath"}),
        ("/opt/local/pvc-1", True, False, {"volumes", "hostPath"}),
        ("/opt/local/pvc-1", True, True, {"hostPath"}),
    ],
)
def test_the_names_that_allow_a_path(path, writable, declared, names):
    assert set(ENTRIES.names(path, writable=writable, declared=declared)) == names
    assert ENTRIES.names(path, writable=writable, declared=declared)[-1] == "hostPath"


def test_an_entry_names_an_absolute_path():
    with pytest.raises(ValueError, match="not an absolute path"):
        NodePath(name="x", path="var/log")
