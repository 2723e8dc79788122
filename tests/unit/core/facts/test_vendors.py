"""Names to vendors."""

import pytest

from webhook.api.config import DeviceVendor, Settings
from webhook.core.facts.vendors import Vendors, vendors_of

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
        ("example.com/gpu", None),
        ("cpu", None),
        ("xnvidia.com/gpu", None),
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
    assert vendors_of(Settings()).of_resource("example.com/x") is None


def test_what_a_requester_chooses_does_not_grow_the_memory_for_ever():
    vendors = Vendors(Settings())
    for number in range(5000):
        vendors.of_resource(f"example.com/{number}")
    assert len(vendors._remembered) <= 4096
    assert vendors.of_resource("nvidia.com/gpu") == "nvidia.com"
