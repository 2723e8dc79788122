"""The sidecar's resources fit the pod and its namespace, or the reason is for the writer of the pod."""

import pytest

from webhook.api.config import Injection
from webhook.core.injection.resources import Bounds, fit

SETTINGS = Injection()


def limit_range(**fields):
    return {"metadata": {"name": "bounds"}, "spec": {"limits": [{"type": "Container", **fields}]}}


def quota(*names, **fields):
    return {"metadata": {"name": "team"}, "spec": {"hard": dict.fromkeys(names, "10"), **fields}}


def priority(operator, *values):
    item = {
        "scopeName": "PriorityClass",
        "operator": operator,
        **({"values": list(values)} if values else {}),
    }
    return {"matchExpressions": [item]}


def fitted(spec=None, *, ranges=(), quotas=(), limits=None):
    return fit(
        spec or {},
        SETTINGS.requests,
        SETTINGS.limits if limits is None else limits,
        SETTINGS.quota_limits,
        Bounds(tuple(ranges), tuple(quotas)),
    )


def test_without_bounds_the_settings_apply():
    assert fitted().resources == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"requests": {"cpu": "4", "memory": "8Gi"}}, {}),
        ({"limits": {"cpu": "4", "memory": "8Gi"}}, {}),
        ({"limits": {"memory": "8Gi"}}, {"requests": {"cpu": "10m"}}),
        ({"requests": {"cpu": "4"}}, {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}}),
    ],
)
def test_pod_level_resources_bound_the_sum_of_the_containers(resources, expected):
    assert fitted({"resources": resources}).resources == expected


def test_a_quota_on_limits_gets_a_limit():
    result = fitted(
        quotas=[quota("limits.cpu", "limits.memory", "requests.cpu", "pods", "limits.ephemeral-storage")]
    )
    assert result.resources["limits"] == {"memory": "128Mi", "cpu": "1", "ephemeral-storage": "64Mi"}
    assert result.problems == ()


def test_a_quota_requires_only_compute_limits():
    """It counts other resources, and requires them of no container (pods.go, Constraints)."""
    bounds = Bounds((), (quota("limits.ephemeral-storage"),))
    result = fit({}, SETTINGS.requests, SETTINGS.limits, {}, bounds)
    assert (result.resources["limits"], result.problems) == ({"memory": "128Mi"}, ())


def test_a_default_of_a_limit_range_satisfies_a_quota():
    result = fitted(quotas=[quota("limits.cpu")], ranges=[limit_range(default={"cpu": "500m"})])
    assert "cpu" not in result.resources["limits"]
    assert result.problems == ()


def test_a_quota_that_no_value_satisfies_is_explained():
    """A sidecar that unseals into memory has no memory limit of its own."""
    quota_limits = {"cpu": "1"}
    result = fit({}, SETTINGS.requests, {}, quota_limits, Bounds((), (quota("limits.memory"),)))
    (problem,) = result.problems
    assert "ResourceQuota team requires a memory limit" in problem


@pytest.mark.parametrize(
    ("fields", "requests", "limits"),
    [
        ({"min": {"cpu": "100m"}}, {"cpu": "100m", "memory": "64Mi"}, {"memory": "128Mi"}),
        ({"min": {"memory": "256Mi"}}, {"cpu": "10m", "memory": "256Mi"}, {"memory": "256Mi"}),
        ({"max": {"memory": "100Mi"}}, {"cpu": "10m", "memory": "64Mi"}, {"memory": "100Mi"}),
        ({"max": {"memory": "1Gi"}}, {"cpu": "10m", "memory": "64Mi"}, {"memory": "128Mi"}),
        (
            {"maxLimitRequestRatio": {"memory": "1"}},
            {"cpu": "10m", "memory": "134217728"},
            {"memory": "128Mi"},
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "4"}, "default": {"cpu": "1"}},
            {"cpu": "250m", "memory": "64Mi"},
            {"memory": "128Mi"},
        ),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, {"cpu": "10m", "memory": "64Mi"}, {"memory": "128Mi"}),
    ],
)
def test_a_limit_range_moves_the_resources(fields, requests, limits):
    result = fitted(ranges=[limit_range(**fields)])
    assert result.problems == ()
    assert result.resources == {"requests": requests, "limits": limits}


def test_a_limit_range_that_is_too_small_is_explained():
    (problem,) = fitted(ranges=[limit_range(max={"memory": "32Mi"})]).problems
    assert problem == (
        "LimitRange bounds allows at most 32Mi memory per container, and the key sidecar needs 64Mi"
    )


@pytest.mark.parametrize(
    ("fields", "spec", "applies"),
    [
        ({"scopes": ["Terminating"]}, {}, False),
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 60}, True),
        ({"scopes": ["NotTerminating"]}, {}, True),
        ({"scopes": ["NotTerminating", "NotBestEffort"]}, {"activeDeadlineSeconds": 60}, False),
        ({"scopes": ["BestEffort"]}, {}, False),
        ({"scopes": ["NotBestEffort"]}, {}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {}, True),
        ({"scopes": ["PriorityClass"]}, {}, False),
        ({"scopes": ["PriorityClass"]}, {"priorityClassName": "high"}, True),
        ({"scopeSelector": priority("In", "high")}, {"priorityClassName": "high"}, True),
        ({"scopeSelector": priority("In", "high")}, {"priorityClassName": "low"}, False),
        ({"scopeSelector": priority("NotIn", "high")}, {"priorityClassName": "high"}, False),
        ({"scopeSelector": priority("DoesNotExist")}, {"priorityClassName": "high"}, False),
        ({"scopeSelector": priority("DoesNotExist")}, {}, True),
    ],
)
def test_a_quota_of_other_pods_changes_nothing(fields, spec, applies):
    result = fitted(spec, quotas=[quota("limits.cpu", **fields)])
    assert ("cpu" in result.resources["limits"]) is applies


@pytest.mark.parametrize("name", ["cpu", "requests.cpu"])
def test_a_quota_on_requests_gets_a_request(name):
    bounds = Bounds((), (quota(name),))
    assert fit({}, {}, {}, SETTINGS.quota_limits, bounds).resources["requests"] == {"cpu": "1"}


def pod(**containers):
    return {
        "containers": [
            {"name": name, "resources": {"limits": {"memory": amount}}} for name, amount in containers.items()
        ]
    }


def test_a_limit_range_of_pods_has_room_for_the_sidecar():
    bounds = [limit_range(type="Pod", max={"memory": "1Gi"})]
    assert fitted(pod(a="512Mi"), ranges=bounds).resources["limits"] == {"memory": "128Mi"}
    # Without room for its limit, the sidecar has a request only.
    result = fitted(pod(a="512Mi", b="448Mi"), ranges=bounds)
    assert (result.resources["limits"], result.problems) == ({}, ())
    (problem,) = fitted(pod(a="512Mi", b="500Mi"), ranges=bounds).problems
    assert problem == (
        "LimitRange bounds allows at most 1Gi memory per pod, "
        "and the containers leave no room for the key sidecar's request of 64Mi"
    )
    (problem,) = fitted(pod(a="1000Mi"), ranges=bounds, quotas=[quota("limits.memory")]).problems
    assert "limit of 128Mi" in problem


def test_init_containers_count_while_they_run():
    bounds = [limit_range(type="Pod", max={"memory": "1Gi"})]
    init = {"name": "i", "resources": {"limits": {"memory": "900Mi"}}}
    agent = {
        "name": "weightlock-agent",
        "restartPolicy": "Always",
        "resources": {"limits": {"memory": "1Gi"}},
    }
    spec = {**pod(a="100Mi"), "initContainers": [agent, init]}
    assert fitted(spec, ranges=bounds).resources == {
        "requests": {"cpu": "10m", "memory": "64Mi"},
        "limits": {},
    }


def test_odd_quantities_change_nothing():
    assert fitted(ranges=[limit_range(min={"cpu": "many"}, max={"cpu": ""})]).problems == ()
