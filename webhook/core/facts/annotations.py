"""Find annotations that container runtimes and their plugins obey, by the domain that they belong to.

A domain counts as a whole, since runtimes gain annotations with every release. Only single names that are known to be
harmless are excepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.names import compile_glob

if TYPE_CHECKING:
    from collections.abc import Mapping

DEVICE_INJECTION = "deviceInjection"
MOUNT_INJECTION = "mountInjection"
RUNTIME = "runtimeAnnotation"

# Domains before the slash, or names without one, that end so.
_DOMAINS = (
    "crio.io",
    "cri-o.io",
    "nri.io",
    "nri.containerd.io",
    "noderesource.dev",
    "cdi.k8s.io",
    "katacontainers.io",
)
# Names in reverse domain order begin so.
_PREFIXES = (
    "io.kubernetes.cri-o.",
    "io.kubernetes.cri.",
    "io.katacontainers.",
    "io.containerd.",
    "io.containers.",
    "io.podman.",
    "io.microsoft.",
    "com.github.containers.",
    "dev.gvisor.",
    "microsoft.com/hostprocess",
    "run.oci.",
    "org.criu.",
    "org.systemd.",
    "container.apparmor.",
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
# Sizes and scheduling of the pod's own sandbox; what a confidential guest checks about itself.
_HARMLESS = tuple(
    compile_glob(pattern)
    for pattern in (
        "cpu-load-balancing.crio.io",
        "cpu-quota.crio.io",
        "irq-load-balancing.crio.io",
        "cpu-c-states.crio.io",
        "cpu-freq-governor.crio.io",
        "cpu-shared.crio.io*",
        "io.kubernetes.cri-o.ShmSize",
        "shm-size.crio.io",
        "io.katacontainers.config.hypervisor.default_vcpus",
        "io.katacontainers.config.hypervisor.default_max_vcpus",
        "io.katacontainers.config.hypervisor.default_memory",
        "io.katacontainers.config.hypervisor.cc_init_data",
        "io.katacontainers.config.agent.policy",
        "dev.gvisor.spec.mount.*.share",
        "dev.gvisor.spec.mount.*.type",
        "dev.gvisor.empty-dir.*.force-shared",
        # Placement on processors and memory (containers/nri-plugins, cmd/plugins/topology-aware and balloons).
        "*.resource-policy.nri.io",
        "*.resource-policy.nri.io/*",
    )
)
_DEVICES = frozenset(
    {
        "devices.nri.io",
        "cdi-devices.nri.io",
        "devices.noderesource.dev",
        "cdi-devices.noderesource.dev",
        "devices.crio.io",
    }
)
_CDI = "cdi.k8s.io"
_DEVICE_NAMES = ("io.kubernetes.cri-o.Devices",)
_MOUNTS = frozenset({"mounts.nri.io", "mounts.noderesource.dev"})


def runtime_annotations(annotations: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return (kind, key) of every annotation that a runtime may obey, in the order of the pod."""
    if not annotations:
        return []
    return [(_kind(key), key) for key in annotations if _is_runtime(key)]


def is_confining(key: str, value: object) -> bool:
    """Whether an AppArmor annotation names a profile; ``unconfined`` and anything unknown removes confinement."""
    return (
        key.startswith(_APPARMOR)
        and isinstance(value, str)
        and (value in ("", "runtime/default") or value.startswith("localhost/"))
    )


def is_apparmor(key: str) -> bool:
    """Whether an annotation selects the AppArmor profile of a container."""
    return key.startswith(_APPARMOR)


def _is_runtime(key: str) -> bool:
    if not key.startswith(_PREFIXES) and not key.partition("/")[0].endswith(_DOMAINS):
        return False
    return not any(pattern.fullmatch(key) is not None for pattern in _HARMLESS)


def _kind(key: str) -> str:
    domain = key.partition("/")[0]
    if domain in _DEVICES or domain.endswith(_CDI) or key.startswith(_DEVICE_NAMES):
        return DEVICE_INJECTION
    return MOUNT_INJECTION if domain in _MOUNTS else RUNTIME
