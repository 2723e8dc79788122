"""Paths of the node that are more than files."""

import pytest

from webhook.core.storage.nodepaths import devices_at, escapes_at, exposes_pods


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
def test_what_shows_the_volumes_of_other_pods(path, exposed):
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
