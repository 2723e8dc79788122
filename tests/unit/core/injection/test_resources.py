"""The sidecar's resources fit the pod and its namespace, or the reason is for the writer of the pod."""

import pytest

from webhook.api.config import Injection
from webhook.core.injection.resources import Bounds, fit

SETTINGS = Injection()


def limit_range(**fields):
    return {"metadata": {"name": "bounds"}, "spec": {"limits": [{"type": "Container", **fields}]}}


def quota(*names):
    return {"metadata": {"name": "team"}, "spec": {"hard": dict.fromkeys(names, "10")}}


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
        ({"type": "Pod", "max": {"memory": "1Mi"}}, {"cpu": "10m", "memory": "64Mi"}, {"memory": "128Mi"}),
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


def test_odd_quantities_change_nothing():
    assert fitted(ranges=[limit_range(min={"cpu": "many"}, max={"cpu": ""})]).problems == ()
