"""Map resource names, DRA drivers, CDI kinds and environment variables to accelerator vendors.

Only harmless names are listed: every other name counts as an accelerator. A name that no vendor claims belongs to
vendor ``?``, and policies treat ``?`` as protected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from webhook.core.kube.names import GlobIndex
from webhook.core.storage.nodepaths import devices_at

if TYPE_CHECKING:
    from webhook.api.config import Settings

UNKNOWN_VENDOR = "?"

# Variables by which a container runtime adds devices, by the beginning of their names. Longest prefix first.
_VARIABLE_VENDORS = (
    ("AWS_NEURON", "aws.amazon.com"),
    ("CAMBRICON", "cambricon.com"),
    ("MTHREADS", "mthreads.com"),
    ("ILUVATAR", "iluvatar.ai"),
    ("ASCEND", "huawei.com"),
    ("HABANA", "intel.com"),
    ("NEURON", "aws.amazon.com"),
    ("NVIDIA", "nvidia.com"),
    ("METAX", "metax-tech.com"),
    ("AMD", "amd.com"),
    ("IX_", "iluvatar.ai"),
)
_DEVICE_SUFFIXES = ("_VISIBLE_DEVICES", "_VISIBLE_CORES")
_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
# These add the devices of the NVSwitch fabric and of RDMA, which no resource of the pod stands for
# (github.com/NVIDIA/nvidia-container-toolkit, internal/modifier/gated.go).
_FEATURES = ("NVIDIA_NVSWITCH", "NVIDIA_MOFED")
_OTHER_DEVICE_VARIABLES = frozenset(
    {
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
        _CAPABILITIES,
        *_FEATURES,
    }
)
# A quick test for a whole list of names: none of the variables lacks both of these.
DEVICE_VARIABLE_HINTS = ("_VISIBLE_", "NVIDIA_")
# Libraries inside the container read these. They narrow the devices that a container has, and no runtime reads them.
_PROCESS_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "MUSA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "MLU_VISIBLE_DEVICES",
    "TPU_VISIBLE_DEVICES",
    "TT_VISIBLE_DEVICES",
)
_NOT_VARIABLES = ("RAY_EXPERIMENTAL_NOSET_",)
# Values that mean no device (github.com/NVIDIA/nvidia-container-toolkit, internal/config/image/visible_devices.go).
NO_DEVICES = frozenset({"", "void", "none"})
# The variables that images carry, and the value by which each vendor's runtime adds nothing.
HIDDEN_VARIABLES = (
    ("NVIDIA_VISIBLE_DEVICES", "void", "nvidia.com"),
    ("AMD_VISIBLE_DEVICES", "none", "amd.com"),
    ("HABANA_VISIBLE_DEVICES", "void", "intel.com"),
    ("ASCEND_VISIBLE_DEVICES", "void", "huawei.com"),
    ("MTHREADS_VISIBLE_DEVICES", "void", "mthreads.com"),
    ("AWS_NEURON_VISIBLE_DEVICES", "", "aws.amazon.com"),
)

RUNTIME_CLASSES = (
    ("*nvidia*", "nvidia.com"),
    ("amd", "amd.com"),
    ("amd-*", "amd.com"),
    ("*habana*", "intel.com"),
    ("*gaudi*", "intel.com"),
    ("*ascend*", "huawei.com"),
    ("*mthreads*", "mthreads.com"),
    ("*neuron*", "aws.amazon.com"),
    ("*metax*", "metax-tech.com"),
    ("*iluvatar*", "iluvatar.ai"),
    ("*cambricon*", "cambricon.com"),
)

# Extended resources that give a container no accelerator: networks, virtualization, FUSE, offload engines for
# cryptography and memory. `settings.harmlessResources` adds to them.
HARMLESS_RESOURCES = (
    "kubernetes.io/batch-*",
    "kubernetes.io/mid-*",
    "rdma/*",
    "mellanox.com/*",
    "openshift.io/*",
    "nvidia.com/hostdev*",
    "nvidia.com/sriov*",
    "nvidia.com/rdma*",
    "intel.com/sriov*",
    "intel.com/intel_sriov*",
    "intel.com/mlnx_sriov*",
    "intel.com/dpdk*",
    "broadcom.com/bnxt*",
    "amd.com/nic*",
    "amd.com/vnic*",
    "qat.intel.com/*",
    "dsa.intel.com/*",
    "dlb.intel.com/*",
    "iaa.intel.com/*",
    "sgx.intel.com/*",
    "tdx.intel.com/*",
    "vpc.amazonaws.com/*",
    "networking.gke.io.networks/*",
    "tencentcloud.com/*eni*",
    "aliyun/eni*",
    "aliyun/member-eni*",
    "aliyun/erdma*",
    "bridge.network.kubevirt.io/*",
    "macvtap.network.kubevirt.io/*",
    "ovs-cni.network.kubevirt.io/*",
    "devices.kubevirt.io/kvm",
    "devices.kubevirt.io/tun",
    "devices.kubevirt.io/vhost-net",
    "devices.kubevirt.io/vhost-vsock",
    "devices.kubevirt.io/sev",
    "devices.kubevirt.io/tdx",
    "github.com/fuse",
    "squat.ai/fuse",
    "squat.ai/tun",
    "squat.ai/kvm",
)
# These plugins hand out the device file that the resource is named after, with ``_`` for ``/``
# (smarter-project/smarter-device-manager).
_DEVICE_FILE_RESOURCES = ("smarter-devices/",)
# Device files that show neither an accelerator nor the node's memory and disks. Every other file is of vendor ``?``.
_HARMLESS_DEVICE_FILES = re.compile(
    r"/dev/(?:fuse|kvm|net/tun|tun|vhost-(?:net|vsock)|rtc\d*|random|urandom|hwrng|watchdog\d*|ptp\d+|pps\d+|"
    r"tty(?:USB|ACM|AMA|S|mxc)\d+|serial(?:/.*|\d+)|snd(?:/.*)?|video\d+|media\d+|v4l-subdev\d+|i2c-\d+|"
    r"spidev\d+\.\d+|gpiochip\d+|gpiomem|vchiq|vcio|input(?:/.*)?|uinput|hidraw\d+|bus/usb(?:/.*)?|iio:device\d+|"
    r"can\d+|cec\d+|lirc\d+|dvb(?:/.*)?|tpmrm\d+)"
)

# DRA drivers whose devices are no accelerators. `settings.harmlessDrivers` adds to them.
HARMLESS_DRIVERS = (
    "dra.net",
    "mrdma.google.com",
    "netdev.google.com",
    "dra.cpu",
    "dra.memory",
    "cpu.dra.k8s.io",
    "memory.dra.k8s.io",
    "sriovnetwork.k8snetworkplumbingwg.io",
    "sriovnetwork.openshift.io",
    "networking.azure.com",
    "qat.intel.com",
    "dra.cni.io",
)

# Resources that state an amount of memory, cores or percent of a device. They do not count devices.
_AMOUNT = re.compile(r"(?:mem|memory|cores|[-.]core|vcore|percentage|ratio)\Z")
# Names that time slicing, MPS and fractional device plugins give to resources that several pods share.
_SHARED = (
    "*.shared",
    "*shared-gpu*",
    "nvidia.com/vgpu*",
    "nvidia.com/gpumem*",
    "nvidia.com/gpucores",
    "aliyun.com/gpu-*",
    "tencent.com/vcuda-*",
    "volcano.sh/*vgpu-*",
    "volcano.sh/gpu-memory",
    "k8s.amazonaws.com/vgpu*",
    "koordinator.sh/gpu-*",
    "mthreads.com/sgpu*",
    "metax-tech.com/sgpu*",
    "*/*vgpu*",
)

_MAX_REMEMBERED = 4096


def variable_vendor(name: str) -> str | None:
    """Return the vendor whose runtime adds devices for a variable of this name; None for any other variable."""
    if not name.endswith(_DEVICE_SUFFIXES) and name not in _OTHER_DEVICE_VARIABLES:
        return None
    if name.startswith(_NOT_VARIABLES) or any(
        name == process or name.endswith(f"_{process}") for process in _PROCESS_VARIABLES
    ):
        return None
    return next((vendor for prefix, vendor in _VARIABLE_VENDORS if name.startswith(prefix)), UNKNOWN_VENDOR)


def adds_devices(name: str, value: str) -> bool:
    """Whether a device variable with this value adds anything. Only ``compat`` matters among driver capabilities."""
    # The kubelet expands $(NAME), so such a value may be any.
    if name == _CAPABILITIES:
        return "compat" in value.lower() or "$(" in value
    if name in _FEATURES:
        return value == "enabled" or "$(" in value
    return value not in NO_DEVICES


def is_amount(resource: str) -> bool:
    """Whether the quantity of a resource states memory, cores or percent, and so no number of devices."""
    return _AMOUNT.search(resource.lower()) is not None


class Vendors:
    """The vendors of the settings, by resource name, driver and domain."""

    __slots__ = ("_domains", "_drivers", "_harmless", "_index", "_remembered", "_shared", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._index: GlobIndex[str] = GlobIndex()
        self._drivers: GlobIndex[str | None] = GlobIndex()
        self._harmless: GlobIndex[bool] = GlobIndex()
        self._shared: GlobIndex[bool] = GlobIndex()
        self._domains: dict[str, str] = {}
        self._remembered: dict[str, str | None] = {}
        for device in settings.devices:
            self._domains[device.vendor] = device.vendor
            for pattern in device.resources:
                self._index.add(pattern, device.vendor)
                domain, _, name = pattern.partition("/")
                if name == "*":
                    self._domains.setdefault(domain, device.vendor)
            for pattern in device.drivers:
                self._drivers.add(pattern, device.vendor)
        for pattern in (*HARMLESS_RESOURCES, *settings.harmless_resources):
            self._harmless.add(pattern, value=True)
        for pattern in (*HARMLESS_DRIVERS, *settings.harmless_drivers):
            self._drivers.add(pattern, None)
        for pattern in _SHARED:
            self._shared.add(pattern, value=True)

    def of_resource(self, name: str) -> str | None:
        """Return the vendor of a resource; None where it is harmless. A bounded memo: requesters choose names."""
        if name in self._remembered:
            return self._remembered[name]
        vendor = self._of_resource(name)
        if len(self._remembered) < _MAX_REMEMBERED:
            self._remembered[name] = vendor
        return vendor

    def _of_resource(self, name: str) -> str | None:
        vendor = next(self._index.find(name), None)
        if vendor is not None:
            return vendor
        # Native resources have no domain (k8s.io/kubernetes pkg/apis/core/helper, IsNativeResource).
        if "/" not in name or next(self._harmless.find(name), False):
            return None
        for prefix in _DEVICE_FILE_RESOURCES:
            if name.startswith(prefix):
                return _vendor_of_file(f"/dev/{name.removeprefix(prefix).replace('_', '/')}")
        return self.of_domain(name.partition("/")[0]) or UNKNOWN_VENDOR

    def is_shared(self, resource: str) -> bool:
        """Whether the name of a resource says that several pods use one device of it."""
        return next(self._shared.find(resource.lower()), False)

    def of_driver(self, driver: str) -> str | None:
        """Return the vendor of a DRA driver; None where its devices are no accelerators."""
        for vendor in self._drivers.find(driver.lower()):
            return vendor
        return self.of_domain(driver) or UNKNOWN_VENDOR

    def of_domain(self, name: str) -> str | None:
        """Return the vendor of a domain such as ``gpu.nvidia.com``: its own, or that of a domain above it."""
        name = name.lower()
        while name:
            vendor = self._domains.get(name)
            if vendor is not None:
                return vendor
            name = name.partition(".")[2]
        return None


def _vendor_of_file(path: str) -> str | None:
    """Return the vendor of a device file; None where the file is harmless."""
    vendor = next(iter(devices_at(path)), None)
    if vendor is None and _HARMLESS_DEVICE_FILES.fullmatch(path) is None:
        return UNKNOWN_VENDOR
    return vendor


_last: list[Vendors] = []


def vendors_of(settings: Settings) -> Vendors:
    """Return the compiled vendors of these settings. The last ones stay compiled: settings rarely change."""
    if not _last or _last[0].settings is not settings:
        _last[:] = [Vendors(settings)]
    return _last[0]
