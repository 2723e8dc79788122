"""Write the configuration files of a node's programs: containerd, kubelet, kube-proxy, CoreDNS, CNI."""

import json
from pathlib import Path
from typing import Any

import yaml

DNS_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
POD_RANGE = "10.244.0.0/16"
PAUSE = "localhost/pause:1"
SOCKET = "/run/containerd/containerd.sock"
RUNTIME = 'plugins."io.containerd.cri.v1.runtime"'
IMAGES = 'plugins."io.containerd.cri.v1.images"'

# A kubelet writes these for the whole machine unless they have the values already.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def containerd(directory: Path, plugins: Path) -> str:
    """Return config.toml. The score options are for machines without CAP_SYS_RESOURCE."""
    return f"""version = 3
root = "{directory}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs"]

[grpc]
address = "{SOCKET}"

[{IMAGES}]
snapshotter = "overlayfs"

[{IMAGES}.pinned_images]
sandbox = "{PAUSE}"

[{RUNTIME}]
restrict_oom_score_adj = true
disable_apparmor = true

[{RUNTIME}.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{directory}/cni"

[{RUNTIME}.containerd]
default_runtime_name = "runc"

[{RUNTIME}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{RUNTIME}.containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"""


def cni(subnet: str) -> str:
    """Return the network of pods: a routed pair of interfaces for each, and ports of the host."""
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "node", "plugins": plugins})


def kubelet(directory: Path, name: str, address: str, ca: Path, certificate: Path, key: Path) -> str:
    """Return the KubeletConfiguration."""
    return _yaml(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        {
            "address": address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(ca)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "resolvConf": str(directory / "resolv.conf"),
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "volumePluginDir": str(directory / "volumeplugins"),
            # The machine's disk may be nearly full for reasons of its own.
            "evictionHard": {
                "nodefs.available": "100Mi",
                "imagefs.available": "100Mi",
                "memory.available": "50Mi",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "5s",
            "registerWithTaints": [],
            "serializeImagePulls": False,
            "syncFrequency": "10s",
            "shutdownGracePeriod": "0s",
        },
    )


def kube_proxy(name: str, kubeconfig: Path) -> str:
    """Return the KubeProxyConfiguration. Without the zeros, kube-proxy writes sysctls of the machine."""
    return _yaml(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        {
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": name,
            "mode": "nftables",
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "nftables": {"syncPeriod": "10s", "minSyncPeriod": "0.1s"},
        },
    )


def corefile(kubeconfig: Path) -> str:
    """Return the Corefile of the cluster's DNS."""
    return f""".:53 {{
    errors
    ready 127.0.0.1:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
    }}
    cache 10
}}
"""


def dns_objects(address: str) -> list[dict[str, Any]]:
    """Return the Service kube-dns and its endpoint: CoreDNS runs as a process of the node."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [
        {"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }
    return [service, endpoints]


def _yaml(version: str, kind: str, content: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": version, "kind": kind, **content}, sort_keys=False)
