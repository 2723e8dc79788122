"""Other injectors before and after Weightlock: Istio, Linkerd, Vault Agent, gcsfuse, OpenTelemetry.

Each changes a pod as its webhook does in its own documentation. After a last call of Weightlock (reinvocationPolicy:
IfNeeded) the pod carries the plan, whatever the order was, and the containers of the injector stay.
"""

from copy import deepcopy

import jsonpatch
import pytest

from webhook.api.config import Injection
from webhook.core.facts.model import Facts, WeightUse
from webhook.core.injection import plan
from webhook.core.injection.sidecar import AGENT

from .test_plan import MODELS, NOW, pod

FACTS = Facts((WeightUse("atlas-70b", "frontier", "weights", "persistentVolumeClaim", containers=("main",)),))


def inject(document):
    expected = plan.plan(document, FACTS, MODELS, Injection(), NOW)
    return jsonpatch.apply_patch(document, list(plan.patch(document, expected)))


def _init(spec):
    return spec.setdefault("initContainers", [])


def _volumes(spec):
    return spec.setdefault("volumes", [])


def istio(spec):
    """A native sidecar that wants to be first, after its own init container."""
    _init(spec).insert(0, {"name": "istio-proxy", "image": "istio/proxyv2", "restartPolicy": "Always"})
    _init(spec).insert(0, {"name": "istio-init", "image": "istio/proxyv2"})
    _volumes(spec).append({"name": "workload-socket", "emptyDir": {}})


def linkerd(spec):
    _init(spec).insert(0, {"name": "linkerd-init", "image": "linkerd/proxy-init"})
    _init(spec).append({"name": "linkerd-proxy", "image": "linkerd/proxy", "restartPolicy": "Always"})


def vault(spec):
    """A container beside, an init container, and a mount in each container of the pod."""
    _volumes(spec).append({"name": "vault-secrets", "emptyDir": {"medium": "Memory"}})
    for container in (*spec["containers"], *_init(spec)):
        container.setdefault("volumeMounts", []).append(
            {"name": "vault-secrets", "mountPath": "/vault/secrets"}
        )
    spec["containers"].append({"name": "vault-agent", "image": "hashicorp/vault"})
    _init(spec).insert(0, {"name": "vault-agent-init", "image": "hashicorp/vault"})


def gcsfuse(spec):
    _init(spec).insert(0, {"name": "gke-gcsfuse-sidecar", "image": "gcs-fuse", "restartPolicy": "Always"})
    _volumes(spec).insert(0, {"name": "gke-gcsfuse-tmp", "emptyDir": {}})


def opentelemetry(spec):
    _init(spec).append({"name": "opentelemetry-auto-instrumentation-python", "image": "otel"})
    _volumes(spec).append({"name": "opentelemetry-auto-instrumentation-python", "emptyDir": {}})
    main = spec["containers"][0]
    main.setdefault("env", []).append({"name": "PYTHONPATH", "value": "/otel-auto-instrumentation-python"})
    main.setdefault("volumeMounts", []).append(
        {
            "name": "opentelemetry-auto-instrumentation-python",
            "mountPath": "/otel-auto-instrumentation-python",
        }
    )


def always_pull(spec):
    for container in (*spec["containers"], *_init(spec)):
        container["imagePullPolicy"] = "Always"


INJECTORS = {each.__name__: each for each in (istio, linkerd, vault, gcsfuse, opentelemetry, always_pull)}


def changed(document, injector):
    result = deepcopy(document)
    injector(result["spec"])
    return result


def carries_the_plan(document):
    expected = plan.plan(document, FACTS, MODELS, Injection(), NOW)
    return plan.patch(document, expected) == () and plan.reserved_name_violations(document, expected) == ()


def others(document):
    return [
        container["name"]
        for field in ("initContainers", "containers")
        for container in document["spec"].get(field, [])
        if container["name"] != AGENT
    ]


@pytest.mark.parametrize("injector", INJECTORS.values(), ids=INJECTORS)
def test_an_injector_before(injector):
    document = changed(pod(), injector)
    after = inject(document)
    assert carries_the_plan(after)
    assert others(after) == others(document)


@pytest.mark.parametrize("injector", INJECTORS.values(), ids=INJECTORS)
def test_an_injector_after_with_a_last_call(injector):
    between = changed(inject(pod()), injector)
    after = inject(between)
    assert carries_the_plan(after)
    assert others(after) == others(between)


@pytest.mark.parametrize("injector", [always_pull])
def test_an_injector_after_without_a_last_call(injector):
    """A new container needs the last call: the variables that hide devices are missing in it."""
    assert carries_the_plan(changed(inject(pod()), injector))


@pytest.mark.parametrize("first", INJECTORS.values(), ids=INJECTORS)
@pytest.mark.parametrize("second", INJECTORS.values(), ids=INJECTORS)
def test_two_injectors_around(first, second):
    document = inject(changed(inject(changed(pod(), first)), second))
    assert carries_the_plan(document)
    assert inject(document) == document
