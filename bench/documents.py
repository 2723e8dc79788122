"""The pods and policies that are measured: made, not recorded, so that their sizes can be chosen."""

import orjson

RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}

# What policies of this kind look at, over and over: containers, security contexts, labels, names.
EXPRESSIONS = (
    "object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))",
    "!has(object.spec.hostNetwork) || object.spec.hostNetwork == false",
    "!has(object.spec.hostPID) || object.spec.hostPID == false",
    (
        "object.spec.containers.all(c, !has(c.securityContext) || !has(c.securityContext.privileged)"
        " || c.securityContext.privileged == false)"
    ),
    "object.spec.containers.all(c, has(c.resources) && has(c.resources.limits))",
    "!has(object.metadata.labels) || !('forbidden' in object.metadata.labels)",
    "object.metadata.name.size() < 64",
    "weights.all(w, grants.exists(g, g.model == w.model))",
    "devices.all(d, d.vendor != 'example.com')",
    "escapes.all(e, e.kind != 'privileged')",
)


def pod(size):
    """A pod whose JSON has about ``size`` bytes."""
    context = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train-7", "namespace": "research", "labels": {"app": "train"}},
        "spec": {"serviceAccountName": "trainer", "restartPolicy": "Never", "containers": [], "volumes": []},
    }
    index = 0
    while len(orjson.dumps(document)) < size:
        document["spec"]["volumes"].append({"name": f"v{index}", "emptyDir": {}})
        document["spec"]["containers"].append(
            {
                "name": f"c{index}",
                "image": f"registry.example.com/research/train@sha256:{'4f2a' * 16}",
                "args": ["--steps", "100000", "--config", f"/etc/train/{index}.yaml"],
                "env": [
                    {"name": f"VARIABLE_{number}", "value": f"value-{number}" * 2} for number in range(6)
                ],
                "resources": {
                    "limits": {"cpu": "2", "memory": "8Gi"},
                    "requests": {"cpu": "1", "memory": "4Gi"},
                },
                "securityContext": context,
                "volumeMounts": [{"name": f"v{index}", "mountPath": f"/data/{index}"}],
            }
        )
        index += 1
    return document


def review(document):
    """The bytes an API server sends for the creation of a pod."""
    return orjson.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "name": document["metadata"]["name"],
                "namespace": document["metadata"]["namespace"],
                "operation": "CREATE",
                "userInfo": {
                    "username": "alice@example.com",
                    "groups": ["researchers", "system:authenticated"],
                },
                "object": document,
                "dryRun": False,
            },
        }
    )


def policy(number, **spec):
    """A policy that matches pods, with one of the expressions above."""
    expression = EXPRESSIONS[number % len(EXPRESSIONS)]
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": f"policy-{number}"},
        "spec": {
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": expression, "message": f"rule {number}"}],
            **spec,
        },
    }


def elsewhere(number):
    """A policy that no pod matches."""
    rule = {**RULE, "apiGroups": ["example.com"], "resources": [f"things{number}"]}
    document = policy(number, matchConstraints={"resourceRules": [rule]})
    return {**document, "metadata": {"name": f"elsewhere-{number}"}}
