"""What the doctor says of types, webhook configurations, exemptions and Deployments."""

import copy

import pytest
import yaml

from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor import installation
from webhook.cluster.doctor.installation_view import SkippedError

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weightlock"
TYPE = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelweights.weightlock.dev"
DEPLOYMENT = "/apis/apps/v1/namespaces/weightlock-system/deployments/weightlock-webhook"


def said(results):
    return [(result.result, result.what) for result in results]


@pytest.mark.parametrize(
    "check",
    [installation.types, installation.configurations, installation.exemptions, installation.deployments],
)
async def test_a_healthy_installation_is_ok(view, check):
    (check,) = await check(view)
    assert (check.result, check.fix) == ("ok", "")


async def test_a_type_that_is_missing_or_changed(view, world):
    changed = world.objects[TYPE.replace("modelweights", "weightpolicies")]
    changed["spec"]["versions"][0]["served"] = False
    del world.objects[TYPE]
    first, second = await installation.types(view)
    assert (first.result, first.what) == (
        "fail",
        "modelweights.weightlock.dev and all its objects are missing",
    )
    assert "docs/runbook.md#a-type-was-deleted" in first.fix
    assert second.what == (
        "weightpolicies.weightlock.dev was changed: versions[0].served is False, expected True"
    )


async def test_a_crd_of_another_version_is_not_a_fault(view, world):
    world.objects[TYPE]["metadata"] = {"labels": {"app.kubernetes.io/version": "2.0.0"}}
    world.objects[TYPE]["spec"]["names"]["categories"] = ["new"]
    (check,) = await installation.types(view)
    assert (check.result, "has version 2.0.0, this command has version 1.0.0" in check.what) == ("warn", True)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("failurePolicy", "Ignore", "failurePolicy is Ignore, should be Fail"),
        ("timeoutSeconds", 30, "timeoutSeconds is 30, should be 10 or less"),
        ("rules", [], "rules is empty"),
    ],
)
async def test_a_loose_configuration_where_the_charts_may_not_be_read(view, world, field, value, words):
    path = "/api/v1/namespaces/weightlock-system/configmaps/weightlock-webhooks"
    world.refusals[path] = ApiError(403, "Forbidden", 'cannot get resource "configmaps"')
    world.objects[CONFIGURATION]["webhooks"][0][field] = value
    (check,) = await installation.configurations(view)
    assert (check.result, words in check.what) == ("fail", True)
    assert check.fix.startswith("helm upgrade weightlock ")


async def test_a_configuration_that_is_missing(view, world):
    del world.objects[CONFIGURATION]
    (check,) = await installation.configurations(view)
    assert (
        check.what == "ValidatingWebhookConfiguration weightlock is missing: Weightlock covers no namespace"
    )


def rendered(world, name, file, *documents):
    world.objects[f"/api/v1/namespaces/weightlock-system/configmaps/weightlock-{name}"] = {
        "data": {file: yaml.safe_dump_all(documents)}
    }


async def test_a_bundle_counts_where_the_chart_made_it_and_not_where_the_controller_does(view, world):
    """Who changed from selfSigned to selfManaged has the old bundle in what the chart rendered."""
    expected = [
        copy.deepcopy(world.objects[CONFIGURATION.replace("validating", kind)])
        for kind in ("validating", "mutating")
    ]
    for document in expected:
        document["webhooks"][0]["clientConfig"]["caBundle"] = "b2xk"
    rendered(world, "webhooks", "webhooks.yaml", *expected)
    rendered(world, "config", "controller.yaml", {"controller": {"lease": "weightlock-controller"}})
    first, second = await installation.configurations(view)
    assert ".caBundle is" in first.what
    assert second.result == "fail"
    view._read.clear()
    certificates = {"authoritySecret": "weightlock-authority", "pairs": []}
    rendered(world, "config", "controller.yaml", {"controller": {"certificates": certificates}})
    (check,) = await installation.configurations(view)
    assert check.result == "ok"
    view._read.clear()
    world.objects[CONFIGURATION]["webhooks"][0]["rules"] = []
    (check,) = await installation.configurations(view)
    assert (check.result, "rules" in check.what) == ("fail", True)


async def test_files_that_are_meant_for_api_servers_and_are_not_there(view, world):
    world.objects["/metrics"] = "up 1\n"
    assert said(await installation.manifests(view)) == [
        ("ok", "none (see apiServerManifests in the chart's values)")
    ]
    rendered(world, "apiserver-manifests", "validating.yaml")
    view._read.clear()
    (check,) = await installation.manifests(view)
    assert (check.result, "are not on the disk" in check.what) == ("warn", True)
    metric = "apiserver_manifest_admission_config_controller_last_config_info"
    world.objects["/metrics"] = f'{metric}{{plugin="ValidatingAdmissionWebhook"}} 1\n'
    assert said(await installation.manifests(view)) == [
        ("ok", "the queried API server has admission configuration on its disk")
    ]


def exempt(world, **selector):
    for kind in ("validating", "mutating"):
        path = CONFIGURATION.replace("validating", kind)
        world.objects[path]["webhooks"][0]["namespaceSelector"] = selector


async def test_exemptions_that_surprise(view, world):
    values = ["kube-system", "weightlock-system", "default", "not-there"]
    exempt(
        world,
        matchExpressions=[{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": values}],
    )
    assert said(await installation.exemptions(view)) == [
        (
            "warn",
            "namespace not-there is exempt but does not exist: any user that creates it bypasses Weightlock",
        ),
        ("warn", "also exempt: default"),
    ]


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"weightlock": "on"}},
        {"matchExpressions": [{"key": "weightlock", "operator": "NotIn", "values": ["off"]}]},
        {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["research"]}
            ]
        },
    ],
)
async def test_exemptions_that_people_can_give_themselves(view, world, selector):
    exempt(world, **selector)
    (check,) = await installation.exemptions(view)
    assert (check.result, "by labels that users can set" in check.what) == ("fail", True)


async def test_no_guard_and_a_loosened_one(view, world):
    (check,) = await installation.guard(view)
    assert check.result == "warn"
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    world.objects[f"{base}ies/weightlock-guard"] = {"metadata": {}, "spec": {"failurePolicy": "Fail"}}
    world.objects[f"{base}ybindings/weightlock-guard"] = {
        "metadata": {},
        "spec": {"validationActions": ["Audit"]},
    }
    view._read.clear()
    (check,) = await installation.guard(view)
    assert (check.result, check.what) == ("fail", "the policy weightlock-guard was weakened")
    world.objects[f"{base}ybindings/weightlock-guard"]["spec"]["validationActions"] = ["Deny"]
    assert (await installation.guard(view))[0].result == "ok"


@pytest.mark.parametrize(
    ("change", "result", "words"),
    [
        ({"status": {"readyReplicas": 0}}, "fail", "webhook: 0 of 2 replicas are ready"),
        (
            {"status": {"readyReplicas": 1, "updatedReplicas": 2}},
            "warn",
            "webhook: 1 of 2 replicas are ready",
        ),
        (
            {"status": {"readyReplicas": 2, "updatedReplicas": 1}},
            "warn",
            "webhook: 2 of 2 replicas are ready",
        ),
        (
            {"metadata": {"labels": {"app.kubernetes.io/version": "2.0.0"}}},
            "warn",
            "webhook has version 2.0.0, this command has version 1.0.0",
        ),
        (
            {"spec": {"replicas": 1}, "status": {"readyReplicas": 1, "updatedReplicas": 1}},
            "warn",
            "the webhook has one replica: covered namespaces are closed while it restarts",
        ),
    ],
)
async def test_a_deployment_that_is_not_well(view, world, change, result, words):
    world.objects[DEPLOYMENT] |= change
    assert said(await installation.deployments(view)) == [(result, words)]


async def test_a_webhook_outside_the_cluster_and_none_at_all(view, world):
    del world.objects[DEPLOYMENT]
    assert said(await installation.deployments(view))[0][0] == "fail"
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"] = {"url": "https://w:1/validate"}
    (check,) = await installation.deployments(view)
    assert check.what.startswith("webhook outside the cluster at https://w:1/validate")


async def test_forbidden_objects_are_skipped_with_the_missing_permission(view, world):
    words = (
        'deployments.apps "weightlock-webhook" is forbidden: User "u" cannot get resource "deployments" in API group '
        '"apps" in the namespace "weightlock-system"'
    )
    world.refusals[DEPLOYMENT] = ApiError(403, "Forbidden", words)
    with pytest.raises(SkippedError, match=r"^not allowed to get deployments in weightlock-system$"):
        await installation.deployments(view)
    world.refusals["/metrics"] = ApiError(403, "Forbidden", 'forbidden: User "u" cannot get path "/metrics"')
    with pytest.raises(SkippedError, match=r"^not allowed to get /metrics$"):
        await installation.manifests(view)
