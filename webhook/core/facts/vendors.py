"""Whose accelerator is this? Resource names, driver names, CDI kinds and environment variables to a vendor.

Compiled once from the settings; a name that no vendor claims is answered with None, never with a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.names import GlobIndex

if TYPE_CHECKING:
    from webhook.api.config import Settings

UNKNOWN_VENDOR = "?"

DEVICE_VARIABLES = {
    "NVIDIA_VISIBLE_DEVICES": "nvidia.com",
    "NVIDIA_MIG_CONFIG_DEVICES": "nvidia.com",
    "NVIDIA_MIG_MONITOR_DEVICES": "nvidia.com",
    "NVIDIA_IMEX_CHANNELS": "nvidia.com",
    "AMD_VISIBLE_DEVICES": "amd.com",
    "HABANA_VISIBLE_DEVICES": "intel.com",
    "ASCEND_VISIBLE_DEVICES": "huawei.com",
}
# Values that mean no device (github.com/NVIDIA/nvidia-container-toolkit, internal/config/image/visible_devices.go).
NO_DEVICES = frozenset({"", "void", "none"})

RUNTIME_CLASSES = (
    ("nvidia*", "nvidia.com"),
    ("amd", "amd.com"),
    ("amd-*", "amd.com"),
    ("habana*", "intel.com"),
)

_MAX_REMEMBERED = 4096


class Vendors:
    """The vendors of the settings, by resource name and by domain."""

    __slots__ = ("_domains", "_index", "_remembered", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._index: GlobIndex[str] = GlobIndex()
        self._domains: dict[str, str] = {}
        self._remembered: dict[str, str | None] = {}
        for device in settings.devices:
            self._domains[device.vendor] = device.vendor
            for pattern in device.resources:
                self._index.add(pattern, device.vendor)
                self._domains.setdefault(pattern.partition("/")[0], device.vendor)

    def of_resource(self, name: str) -> str | None:
        """The vendor of an extended resource name. Answers are remembered, up to a bound: requesters choose names."""
        if name in self._remembered:
            return self._remembered[name]
        vendor = next(self._index.find(name), None)
        if len(self._remembered) < _MAX_REMEMBERED:
            self._remembered[name] = vendor
        return vendor

    def of_domain(self, name: str) -> str | None:
        """The vendor of a driver or CDI vendor name such as ``gpu.nvidia.com``: its own domain, or one above it."""
        name = name.lower()
        while name:
            vendor = self._domains.get(name)
            if vendor is not None:
                return vendor
            name = name.partition(".")[2]
        return None


_last: list[Vendors] = []


def vendors_of(settings: Settings) -> Vendors:
    """The compiled vendors of these settings; kept for the settings last asked about, which rarely change."""
    if not _last or _last[0].settings is not settings:
        _last[:] = [Vendors(settings)]
    return _last[0]
