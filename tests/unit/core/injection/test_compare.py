"""The sidecar is compared by meaning: other admission plugins restrict it and spell it differently."""

from copy import deepcopy

import jsonpatch
import pytest

from webhook.api.config import Injection
from webhook.core.facts.model import Facts, WeightUse
from webhook.core.injection import plan
from webhook.core.injection.sidecar import AGENT

from .test_plan import MODELS, NOW, pod

USE = WeightUse("atlas-70b", "frontier", "weights", "persistentVolumeClaim", containers=("main",))
FACTS = Facts((USE,))


def injected(settings=None, **spec):
    document = pod(**spec)
    expected = plan.plan(document, FACTS, MODELS, settings or Injection(), NOW)
    return jsonpatch.apply_patch(document, list(plan.patch(document, expected))), expected


def agent_of(document):
    return next(item for item in document["spec"]["initContainers"] if item["name"] == AGENT)


def volume_of(document):
    return next(item for item in document["spec"]["volumes"] if "emptyDir" in item)


def context(**fields):
    return lambda document: agent_of(document)["securityContext"].update(fields)


TOLERATED = {
    "AlwaysPullImages": lambda document: agent_of(document).update(imagePullPolicy="Always"),
    "quantities as the API server writes them": lambda document: agent_of(document)["resources"].update(
        requests={"cpu": "0.01", "memory": "65536Ki"}, limits={"memory": "134217728"}
    ),
    "requests that a platform raises": lambda document: agent_of(document)["resources"]["requests"].update(
        cpu="50m"
    ),
    "a default limit of a LimitRange": lambda document: agent_of(document)["resources"]["limits"].update(
        cpu="500m"
    ),
    "the size of a volume": lambda document: volume_of(document)["emptyDir"].update(sizeLimit="1024Ki"),
    "the resize policy that the API server writes out": lambda document: agent_of(document).update(
        resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
    ),
    "empty lists that the API server writes out": lambda document: agent_of(document).update(
        env=[], ports=None
    ),
    "mounts in another order": lambda document: agent_of(document)["volumeMounts"].reverse(),
    "volumes in another order": lambda document: document["spec"]["volumes"].reverse(),
    "the propagation of a mount": lambda document: agent_of(document)["volumeMounts"][0].update(
        mountPropagation="None", recursiveReadOnly="Disabled"
    ),
    # OpenShift's SCCs anyuid, restricted and restricted-v2.
    "anyuid": context(capabilities={"drop": ["ALL", "MKNOD"]}),
    "restricted": context(
        capabilities={"drop": ["KILL", "MKNOD", "SETGID", "SETUID", "ALL"]}, runAsUser=1000650000
    ),
    "restricted-v2": context(
        capabilities={"drop": ["ALL"]},
        runAsUser=1000650000,
        seLinuxOptions={"level": "s0:c26,c5"},
        seccompProfile={"type": "RuntimeDefault"},
    ),
    "no privilege, in words": context(privileged=False, procMount="Default"),
    "a group of the platform": context(runAsGroup=0),
    "a default AppArmor profile": context(appArmorProfile={"type": "RuntimeDefault"}),
}


@pytest.mark.parametrize("change", TOLERATED.values(), ids=TOLERATED)
def test_a_restriction_or_another_spelling_is_equal(change):
    document, expected = injected()
    change(document)
    assert plan.patch(document, expected) == ()


TAMPERING = {
    "fewer dropped capabilities": context(capabilities={"drop": ["KILL"]}),
    "an added capability": context(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
    "privileged": context(privileged=True),
    "escalation": context(allowPrivilegeEscalation=True),
    "a writable root": context(readOnlyRootFilesystem=False),
    "root": context(runAsUser=0),
    "root allowed": context(runAsNonRoot=False),
    "no seccomp": context(seccompProfile={"type": "Unconfined"}),
    "another seccomp profile": context(seccompProfile={"type": "Localhost", "localhostProfile": "x"}),
    "an SELinux type": context(seLinuxOptions={"type": "spc_t"}),
    "an SELinux user": context(seLinuxOptions={"user": "system_u"}),
    "an unmasked proc": context(procMount="Unmasked"),
    "no AppArmor": context(appArmorProfile={"type": "Unconfined"}),
    "Windows options": context(windowsOptions={"hostProcess": True}),
    "never pull": lambda document: agent_of(document).update(imagePullPolicy="Never"),
    "another broker": lambda document: agent_of(document)["args"].__setitem__(1, "--broker=https://evil"),
    "a variable": lambda document: agent_of(document).update(env=[{"name": "PYTHONPATH", "value": "/x"}]),
    "variables of a map": lambda document: agent_of(document).update(
        envFrom=[{"configMapRef": {"name": "x"}}]
    ),
    "a port": lambda document: agent_of(document).update(ports=[{"containerPort": 1}]),
    "a terminal": lambda document: agent_of(document).update(stdin=True, tty=True),
    "a hook": lambda document: agent_of(document).update(lifecycle={"preStop": {"exec": {"command": ["x"]}}}),
    "a device": lambda document: agent_of(document)["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
    "smaller requests": lambda document: agent_of(document)["resources"]["requests"].update(memory="1Mi"),
    "another probe": lambda document: agent_of(document)["startupProbe"].update(exec={"command": ["sh"]}),
    "another mount": lambda document: agent_of(document)["volumeMounts"].append(
        {"name": "x", "mountPath": "/x"}
    ),
    "a part of a mount": lambda document: agent_of(document)["volumeMounts"][0].update(subPath="x"),
    "propagation to the node": lambda document: agent_of(document)["volumeMounts"][0].update(
        mountPropagation="Bidirectional"
    ),
    "a volume on disk": lambda document: volume_of(document)["emptyDir"].update(medium=""),
    "a larger volume": lambda document: volume_of(document)["emptyDir"].update(sizeLimit="1Gi"),
}


@pytest.mark.parametrize("change", TAMPERING.values(), ids=TAMPERING)
def test_anything_else_is_repaired(change):
    document, expected = injected()
    before = deepcopy(document)
    change(document)
    operations = plan.patch(document, expected)
    assert operations
    assert jsonpatch.apply_patch(document, list(operations)) == before


def test_a_running_sidecar_may_have_been_resized():
    """A LimitRange that changed, or a resize in place (KEP-1287), takes no keys from a running pod."""

    document, expected = injected()
    agent_of(document)["resources"] = {"limits": {"memory": "1Gi"}}
    assert plan.patch(document, expected._replace(running=True)) == ()
    agent_of(document)["resources"]["claims"] = [{"name": "gpu"}]
    assert plan.patch(document, expected._replace(running=True))


@pytest.mark.parametrize("policy", ["Always", "IfNotPresent", "Never"])
def test_a_running_sidecar_keeps_the_pull_policy_of_an_earlier_setting(policy):

    document, expected = injected()
    agent_of(document)["imagePullPolicy"] = policy
    assert plan.patch(document, expected._replace(running=True)) == ()


@pytest.mark.parametrize("policy", [None, "", "always", 1, ["Always"], {"Always": True}])
def test_a_running_sidecar_without_a_valid_pull_policy_differs(policy):

    document, expected = injected()
    agent_of(document)["imagePullPolicy"] = policy
    assert plan.patch(document, expected._replace(running=True))
