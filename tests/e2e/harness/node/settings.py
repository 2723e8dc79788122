"""Write the configuration files of a node's programs: containerd, kubelet, kube-proxy, CoreDNS, CNI."""

import json
from pathlib import Path
from typing import Any

import yaml

DNS_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
POD_RANGE = "10.244.0.0/16"
POD_SUBNETS = ("10.244.0.0/24", "10.244.1.0/24")
PAUSE = "localhost/pause:1"
SOCKET = "/run/containerd/containerd.sock"
RUNTIME = 'plugins."io.containerd.cri.v1.runtime"'
IMAGES = 'plugins."io.containerd.cri.v1.images"'

# What kube-router runs.
IPTABLES = tuple(f"{name}{end}" for name in ("iptables", "ip6tables") for end in ("", "-save", "-restore"))
CSI_DRIVER, CSI_CLASS, CSI_USER = "hostpath.csi.k8s.io", "hostpath", "system:csi-hostpath"
GVISOR = f"""
[{RUNTIME}.containerd.runtimes.runsc]
runtime_type = "io.containerd.runsc.v1"
"""

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


def kubelet(directory: Path, name: str, address: str, ca: str, certificate: str, key: str) -> str:
    """Return the KubeletConfiguration."""
    return _yaml(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        {
            "address": address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": ca},
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
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
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


def kube_proxy(name: str, kubeconfig: str) -> str:
    """Return the KubeProxyConfiguration. Without the zeros, kube-proxy writes sysctls of the machine."""
    return _yaml(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        {
            "clientConnection": {"kubeconfig": kubeconfig},
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


def kube_router(name: str, kubeconfig: str, services: str) -> list[str]:
    """Return the flags of kube-router, which only enforces NetworkPolicies."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={name}",
        f"--service-cluster-ip-range={services}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--iptables-sync-period=30s",
        "--v=1",
    ]


def runtime_class(name: str, handler: str) -> dict[str, Any]:
    """Return a RuntimeClass."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler,
    }


def csi_objects() -> list[dict[str, Any]]:
    """Return the CSIDriver, the StorageClass and the rights of the CSI driver, which runs as a process of the node."""
    api = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": CSI_DRIVER},
            "spec": {"attachRequired": False, "podInfoOnMount": False, "fsGroupPolicy": "File"},
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CSI_CLASS},
            "provisioner": CSI_DRIVER,
            "reclaimPolicy": "Delete",
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": CSI_USER},
            "roleRef": {
                "apiGroup": api,
                "kind": "ClusterRole",
                "name": "system:persistent-volume-provisioner",
            },
            "subjects": [{"apiGroup": api, "kind": "User", "name": CSI_USER}],
        },
    ]


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
