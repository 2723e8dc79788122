"""Names to vendors."""

import pytest

from webhook.api.config import DeviceVendor, Settings
from webhook.core.facts.vendors import Vendors, adds_devices, is_amount, variable_vendor, vendors_of

VENDORS = Vendors(Settings())


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("nvidia.com/gpu", "nvidia.com"),
        ("nvidia.com/gpu.shared", "nvidia.com"),
        ("nvidia.com/mig-3g.20gb", "nvidia.com"),
        ("amd.com/gpu", "amd.com"),
        ("habana.ai/gaudi", "intel.com"),
        ("gpu.intel.com/xe", "intel.com"),
        ("google.com/tpu", "google.com"),
        ("aws.amazon.com/neuroncore", "aws.amazon.com"),
        ("example.com/gpu", "?"),
        ("nvidia.com/anything-new", "nvidia.com"),
        ("thing.nvidia.com/x", "nvidia.com"),
        ("rdma/hca_shared_devices_a", None),
        ("nvidia.com/hostdev", None),
        ("hugepages-2Mi", None),
        ("smarter-devices/fuse", None),
        ("smarter-devices/net_tun", None),
        ("smarter-devices/video0", None),
        ("smarter-devices/mem", "?"),
        ("smarter-devices/sda", "?"),
        ("smarter-devices/mapper_root", "?"),
        ("smarter-devices/apex_0", "?"),
        ("smarter-devices/nvidia0", "nvidia.com"),
        ("smarter-devices/dri_card0", "?"),
        ("vpc.amazonaws.com/efa", None),
        ("metax-tech.com/gpu", "metax-tech.com"),
        ("cambricon.com/vmlu", "cambricon.com"),
        ("koordinator.sh/gpu-core", "nvidia.com"),
        ("alpha.kubernetes.io/nvidia-gpu", "?"),
        ("cpu", None),
        ("xnvidia.com/gpu", "?"),
    ],
)
def test_resources(name, vendor):
    assert VENDORS.of_resource(name) == vendor
    assert VENDORS.of_resource(name) == vendor


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("gpu.nvidia.com", "nvidia.com"),
        ("NVIDIA.com", "nvidia.com"),
        ("compute-domain.nvidia.com", "nvidia.com"),
        ("gaudi.intel.com", "intel.com"),
        ("habana.ai", "intel.com"),
        ("notnvidia.com", None),
        ("nvidia.com.example.org", None),
        ("", None),
    ],
)
def test_domains(name, vendor):
    assert VENDORS.of_domain(name) == vendor


def test_settings_are_compiled_once():
    settings = Settings(devices=[DeviceVendor(vendor="example.com", resources=["example.com/*"])])
    assert vendors_of(settings) is vendors_of(settings)
    assert vendors_of(settings).of_resource("example.com/x") == "example.com"
    assert vendors_of(Settings()).of_resource("example.com/x") == "?"


def test_the_cache_of_resource_names_is_bounded():
    vendors = Vendors(Settings())
    for number in range(5000):
        vendors.of_resource(f"example.com/{number}")
    assert len(vendors._remembered) <= 4096
    assert vendors.of_resource("nvidia.com/gpu") == "nvidia.com"


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("NVIDIA_VISIBLE_DEVICES", "nvidia.com"),
        ("NVIDIA_IMEX_CHANNELS", "nvidia.com"),
        ("MTHREADS_VISIBLE_DEVICES", "mthreads.com"),
        ("AWS_NEURON_VISIBLE_DEVICES", "aws.amazon.com"),
        ("NEURON_RT_VISIBLE_CORES", "aws.amazon.com"),
        ("SOMETHING_VISIBLE_DEVICES", "?"),
        ("SOMETHING_VISIBLE_CORES", "?"),
        ("CUDA_VISIBLE_DEVICES", None),
        ("ASCEND_RT_VISIBLE_DEVICES", None),
        ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", None),
        ("RAY_EXPERIMENTAL_NOSET_NEURON_RT_VISIBLE_CORES", None),
        ("NVIDIA_VISIBLE_DEVICES_FILE", None),
        ("PATH", None),
    ],
)
def test_variables(name, vendor):
    assert variable_vendor(name) == vendor


@pytest.mark.parametrize(
    ("name", "value", "adds"),
    [
        ("NVIDIA_VISIBLE_DEVICES", "all", True),
        ("NVIDIA_VISIBLE_DEVICES", "void", False),
        ("NVIDIA_VISIBLE_DEVICES", "$(X)", True),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility", False),
        ("NVIDIA_DRIVER_CAPABILITIES", "utility,compat32", True),
    ],
)
def test_values_of_variables(name, value, adds):
    assert adds_devices(name, value) is adds


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("nvidia.com/gpumem", True),
        ("nvidia.com/gpumem-percentage", True),
        ("nvidia.com/gpucores", True),
        ("tencent.com/vcuda-core", True),
        ("aliyun.com/gpu-core.percentage", True),
        ("koordinator.sh/gpu-memory-ratio", True),
        ("cambricon.com/mlu.smlu.vmemory", True),
        ("nvidia.com/gpu", False),
        ("aws.amazon.com/neuroncore", False),
        ("volcano.sh/vgpu-number", False),
    ],
)
def test_resources_that_state_amounts(name, amount):
    assert is_amount(name) is amount


@pytest.mark.parametrize(
    ("driver", "vendor"),
    [
        ("gpu.nvidia.com", "nvidia.com"),
        ("new.nvidia.com", "nvidia.com"),
        ("dra.net", None),
        ("mrdma.google.com", None),
        ("gpu.example.com", "?"),
        ("", "?"),
    ],
)
def test_drivers(driver, vendor):
    assert VENDORS.of_driver(driver) == vendor
