"""The twenty policies that every engine is given, written once: a name, a CEL expression over a pod, a message.

Pod Security's baseline (1-10) and restricted (11-16) controls as far as one pod tells, and four of a lab: where images
come from, how they are named, how many GPUs, and limits of memory. Each engine gets the same expressions in the words
of its own kind; what one engine is given that another is not would make the comparison worthless.
"""

from dataclasses import dataclass

RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}
# The one variable, as all policies of this kind begin with it: every container of the pod.
CONTAINERS = "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"
_EVERY = "variables.containers.all(c, {})"
_SECURITY = "has(c.securityContext) && has(c.securityContext.{0}) && c.securityContext.{0}"
_UNLESS = "!has(c.securityContext) || !has(c.securityContext.{0}) || "
_POD = "!has(object.spec.securityContext) || !has(object.spec.securityContext.{0}) || "
_ALLOWED_CAPABILITIES = (
    "['AUDIT_WRITE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'MKNOD', 'NET_BIND_SERVICE', 'SETFCAP',"
    " 'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT']"
)
_SAFE_SYSCTLS = (
    "['kernel.shm_rmid_forced', 'net.ipv4.ip_local_port_range', 'net.ipv4.ip_unprivileged_port_start',"
    " 'net.ipv4.tcp_syncookies', 'net.ipv4.ping_group_range']"
)
_VOLUMES = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule: `message` is what the person reads whose pod breaks it."""

    name: str
    expression: str
    message: str


def _every(expression):
    return _EVERY.format(expression)


POLICIES = (
    Policy("privileged", _every("!(" + _SECURITY.format("privileged") + ")"), "privileged containers"),
    Policy(
        "host-namespaces",
        " && ".join(
            f"(!has(object.spec.{name}) || !object.spec.{name})"
            for name in ("hostNetwork", "hostPID", "hostIPC")
        ),
        "host namespaces",
    ),
    Policy(
        "host-path",
        "!has(object.spec.volumes) || object.spec.volumes.all(v, !has(v.hostPath))",
        "hostPath volumes",
    ),
    Policy(
        "host-ports",
        _every("!has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0)"),
        "host ports",
    ),
    Policy(
        "added-capabilities",
        _every(
            _UNLESS.format("capabilities")
            + "!has(c.securityContext.capabilities.add) || c.securityContext.capabilities.add.all(a, a in "
            + f"{_ALLOWED_CAPABILITIES})"
        ),
        "added capabilities",
    ),
    Policy(
        "app-armor",
        f"({_POD.format('appArmorProfile')}object.spec.securityContext.appArmorProfile.type != 'Unconfined') && "
        + _every(
            _UNLESS.format("appArmorProfile") + "c.securityContext.appArmorProfile.type != 'Unconfined'"
        ),
        "AppArmor must not be off",
    ),
    Policy(
        "se-linux",
        _every(
            _UNLESS.format("seLinuxOptions")
            + "!has(c.securityContext.seLinuxOptions.type) || c.securityContext.seLinuxOptions.type in"
            " ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t']"
        ),
        "SELinux types",
    ),
    Policy(
        "proc-mount",
        _every(_UNLESS.format("procMount") + "c.securityContext.procMount == 'Default'"),
        "procMount",
    ),
    Policy(
        "seccomp-baseline",
        f"({_POD.format('seccompProfile')}object.spec.securityContext.seccompProfile.type != 'Unconfined') && "
        + _every(_UNLESS.format("seccompProfile") + "c.securityContext.seccompProfile.type != 'Unconfined'"),
        "seccomp must not be off",
    ),
    Policy(
        "sysctls",
        _POD.format("sysctls") + f"object.spec.securityContext.sysctls.all(s, s.name in {_SAFE_SYSCTLS})",
        "unsafe sysctls",
    ),
    Policy(
        "volume-types",
        "!has(object.spec.volumes) || object.spec.volumes.all(v, "
        + " || ".join(f"has(v.{name})" for name in _VOLUMES)
        + ")",
        "volume types",
    ),
    Policy(
        "privilege-escalation",
        _every(
            "has(c.securityContext) && has(c.securityContext.allowPrivilegeEscalation)"
            " && !c.securityContext.allowPrivilegeEscalation"
        ),
        "allowPrivilegeEscalation must be false",
    ),
    Policy(
        "run-as-non-root",
        "(has(object.spec.securityContext) && has(object.spec.securityContext.runAsNonRoot)"
        " && object.spec.securityContext.runAsNonRoot) || " + _every(_SECURITY.format("runAsNonRoot")),
        "runAsNonRoot must be true",
    ),
    Policy(
        "run-as-user",
        f"({_POD.format('runAsUser')}object.spec.securityContext.runAsUser != 0) && "
        + _every(_UNLESS.format("runAsUser") + "c.securityContext.runAsUser != 0"),
        "user 0",
    ),
    Policy(
        "seccomp-restricted",
        "(has(object.spec.securityContext) && has(object.spec.securityContext.seccompProfile)"
        " && object.spec.securityContext.seccompProfile.type in ['RuntimeDefault', 'Localhost']) || "
        + _every(
            "has(c.securityContext) && has(c.securityContext.seccompProfile)"
            " && c.securityContext.seccompProfile.type in ['RuntimeDefault', 'Localhost']"
        ),
        "a seccomp profile is needed",
    ),
    Policy(
        "drop-all",
        _every(
            "has(c.securityContext) && has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop)"
            " && 'ALL' in c.securityContext.capabilities.drop"
        ),
        "capabilities must be dropped",
    ),
    Policy(
        "registry",
        _every("c.image.startsWith('registry.example.com/')"),
        "images come from registry.example.com",
    ),
    Policy(
        "image-tag",
        _every("c.image.contains('@sha256:') || (c.image.contains(':') && !c.image.endsWith(':latest'))"),
        "images need a tag or a digest",
    ),
    Policy(
        "gpu-limit",
        _every(
            "!has(c.resources) || !has(c.resources.limits) || !('nvidia.com/gpu' in c.resources.limits)"
            " || int(string(c.resources.limits['nvidia.com/gpu'])) <= 8"
        ),
        "more than 8 GPUs",
    ),
    Policy(
        "memory-limit",
        _every("has(c.resources) && has(c.resources.limits) && 'memory' in c.resources.limits"),
        "a limit of memory is needed",
    ),
)

# What the mutating policies of all engines do to a pod, as Weightlock does it by itself.
VARIABLE = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
# An ApplyConfiguration, as MutatingAdmissionPolicy and Kyverno's MutatingPolicy have it.
MUTATION = (
    "Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, env: "
    f"[Object.spec.containers.env{{name: '{VARIABLE['name']}', value: '{VARIABLE['value']}'}}]}})}}}}"
)


def message(policy):
    """The sentence that people read, with the name that says which policy it was."""
    return f"[{policy.name}] {policy.message}"


def spec(policy):
    """What ValidatingAdmissionPolicy and Kyverno's ValidatingPolicy have in common."""
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [RULE]},
        "variables": [{"name": "containers", "expression": CONTAINERS}],
        "validations": [{"expression": policy.expression, "message": message(policy)}],
    }


def admission_policies(policies=POLICIES):
    """ValidatingAdmissionPolicies and their bindings; Weightlock is given the very same."""
    for policy in policies:
        name = f"bench-{policy.name}"
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": spec(policy),
        }
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }


def elsewhere(number):
    """A policy about another kind than pods: it costs the same memory and no evaluation."""
    return Policy(f"elsewhere-{number}", f"object.metadata.name != 'thing-{number}'", "things elsewhere")


def for_config_maps(document):
    """The same document about ConfigMaps, which are not written here."""
    rule = {**RULE, "resources": ["configmaps"]}
    return {
        **document,
        "spec": {**document["spec"], "matchConstraints": {"resourceRules": [rule]}, "variables": []},
    }
