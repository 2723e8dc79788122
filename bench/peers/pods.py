"""The pods that are tried: one that every policy allows, in two sizes, and for each policy one that only it denies.

They are made, not recorded, so that size and fault can be chosen. A pod's own fault may break a second policy where
the two overlap, as hostPath does; `BREAKS` says so.
"""

import copy
import json

NAMESPACE = "bench"
# Where no engine is asked, by its name. As long as the other, so that the bytes are as many.
UNASKED = "quiet"
SIZES = {"2KB": 2_000, "20KB": 20_000}
DIGEST = "4f2a" * 16

_CONTEXT = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _container(index):
    return {
        "name": f"c{index}",
        "image": f"registry.example.com/research/train@sha256:{DIGEST}",
        "args": ["--steps", "100000", "--config", f"/etc/train/{index}.yaml"],
        "env": [{"name": f"VARIABLE_{number}", "value": f"value-{number}" * 2} for number in range(6)],
        "resources": {
            "limits": {"cpu": "2", "memory": "8Gi"},
            "requests": {"cpu": "1", "memory": "4Gi"},
        },
        "securityContext": copy.deepcopy(_CONTEXT),
        "volumeMounts": [{"name": f"v{index}", "mountPath": f"/data/{index}"}],
    }


def good(size=2_000, name="train-7", namespace=NAMESPACE):
    """A pod that is allowed, of about ``size`` bytes of JSON."""
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "train", "team": "atlas"}},
        "spec": {"restartPolicy": "Never", "containers": [], "volumes": []},
    }
    index = 0
    while index == 0 or len(json.dumps(document)) < size:
        document["spec"]["volumes"].append({"name": f"v{index}", "emptyDir": {}})
        document["spec"]["containers"].append(_container(index))
        index += 1
    return document


def bad(size=2_000, name="train-7", namespace=NAMESPACE):
    """A pod that three policies deny, in its last container: nothing ends early because of where a fault is."""
    document = good(size, name, namespace)
    last = document["spec"]["containers"][-1]
    last["image"] = "docker.io/library/train:latest"
    last["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]
    return document


def _change(path, value):
    def change(pod):
        place = pod["spec"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def _remove(*path):
    def change(pod):
        place = pod["spec"]
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


_FIRST = ("containers", 0)
_SECURITY = (*_FIRST, "securityContext")
# How to break each policy, in the first container or the pod; more than one name where policies overlap.
FAULTS = {
    # The API server refuses a privileged container that may not escalate, so this one may.
    "privileged": lambda pod: pod["spec"]["containers"][0]["securityContext"].update(
        privileged=True, allowPrivilegeEscalation=True
    ),
    "host-namespaces": _change(("hostPID",), value=True),
    "host-path": _change(("volumes", 0), {"name": "v0", "hostPath": {"path": "/srv"}}),
    "host-ports": _change((*_FIRST, "ports"), [{"containerPort": 80, "hostPort": 80}]),
    "added-capabilities": _change((*_SECURITY, "capabilities", "add"), ["NET_ADMIN"]),
    "app-armor": _change((*_SECURITY, "appArmorProfile"), {"type": "Unconfined"}),
    "se-linux": _change((*_SECURITY, "seLinuxOptions"), {"type": "spc_t"}),
    "proc-mount": lambda pod: (
        pod["spec"].update(hostUsers=False),
        pod["spec"]["containers"][0]["securityContext"].update(procMount="Unmasked"),
    ),
    "seccomp-baseline": _change((*_SECURITY, "seccompProfile"), {"type": "Unconfined"}),
    "sysctls": _change(("securityContext",), {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
    "volume-types": _change(("volumes", 0), {"name": "v0", "nfs": {"server": "10.0.0.9", "path": "/x"}}),
    "privilege-escalation": _remove(*_SECURITY, "allowPrivilegeEscalation"),
    "run-as-non-root": _remove(*_SECURITY, "runAsNonRoot"),
    "run-as-user": lambda pod: (
        pod["spec"].update(securityContext={"runAsNonRoot": True}),
        pod["spec"]["containers"][0]["securityContext"].update(runAsUser=0),
    ),
    "seccomp-restricted": _remove(*_SECURITY, "seccompProfile"),
    "drop-all": _change((*_SECURITY, "capabilities"), {"drop": ["NET_RAW"]}),
    "registry": _change((*_FIRST, "image"), f"docker.io/library/train@sha256:{DIGEST}"),
    "image-tag": _change((*_FIRST, "image"), "registry.example.com/research/train"),
    "gpu-limit": _change(
        (*_FIRST, "resources"), {"limits": {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "16"}}
    ),
    "memory-limit": _remove(*_FIRST, "resources", "limits", "memory"),
}
BREAKS = {
    "privileged": {"privileged", "privilege-escalation"},
    "host-path": {"host-path", "volume-types"},
    "seccomp-baseline": {"seccomp-baseline", "seccomp-restricted"},
}


def faulty():
    """For each policy a pod that breaks it: name, pod, and the names of the policies that may say so."""
    for name, change in FAULTS.items():
        pod = good(name=f"faulty-{name}")
        change(pod)
        yield name, pod, BREAKS.get(name, {name})


def encoded(pod):
    """The pod as bytes of JSON."""
    return json.dumps(pod, separators=(",", ":")).encode()


def review(pod, saved=None):
    """The bytes an API server sends for a dry-run creation of ``pod``; ``saved`` is what it made of it."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": pod["metadata"]["name"],
        "namespace": NAMESPACE,
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": saved or pod,
        "oldObject": None,
        "dryRun": True,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]},
    }
    return json.dumps(
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request},
        separators=(",", ":"),
    ).encode()
