"""What the doctor concludes from what the API server says to objects that are only tried."""

import pytest

from webhook.cluster.doctor import webhook_probe
from webhook.cluster.doctor.installation_view import SkippedError

REFUSED = 'admission webhook "{}.weightlock.dev" denied the request: the request is refused: NUL [WL501]'
CALL = 'Internal error occurred: failed calling webhook "mutate.weightlock.dev": failed to call webhook: {}'


async def test_a_denial_by_weightlock_proves_that_it_was_called(view, world):
    world.said = [REFUSED.format("mutate"), REFUSED.format("validate")]
    assert [item.result for item in await webhook_probe.mutates(view)] == ["ok"]
    assert [item.result for item in await webhook_probe.validates(view)] == ["ok"]
    (pods, pod), (templates, template) = world.tried
    assert (pods, templates) == (
        "/api/v1/namespaces/default/pods",
        "/api/v1/namespaces/default/podtemplates",
    )
    assert pod["metadata"]["annotations"] == template["metadata"]["annotations"] == {"doctor": "\0"}


@pytest.mark.parametrize(
    ("words", "result", "meaning", "fix"),
    [
        ("", "fail", "does not call mutate.weightlock.dev", "helm upgrade"),
        (
            CALL.format("Post: tls: x509: unknown authority"),
            "fail",
            "does not trust its certificate",
            "#certificate",
        ),
        (
            CALL.format("dial tcp: connect: connection refused"),
            "fail",
            "no process listens at its address",
            "#the-webhook-is-down",
        ),
        (CALL.format("context deadline exceeded"), "fail", "it timed out", "#the-webhook-is-down"),
        (CALL.format("something new"), "fail", "something new", "#the-webhook-is-down"),
        (
            'admission webhook "other" denied the request: no',
            "warn",
            "another admission plugin denied the request first",
            "",
        ),
        (REFUSED.format("validate"), "warn", "another admission plugin denied the request first", ""),
    ],
)
async def test_everything_else_does_not(view, world, words, result, meaning, fix):
    world.said = [words]
    (check,) = await webhook_probe.mutates(view)
    assert (check.result, meaning in check.what, fix in check.fix) == (result, True, True)


async def test_without_the_permission_to_create_pods_the_probe_is_skipped(view, world):
    world.said = [
        'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "default"'
    ]
    with pytest.raises(SkippedError, match=r"^not allowed to create pods in default$"):
        await webhook_probe.mutates(view)


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("", "ok"),
        ('admission webhook "validate.weightlock.dev" denied the request: not allowed [WL510]', "ok"),
        (
            'admission webhook "validate.weightlock.dev" denied the request: could not be checked [WL903]',
            "fail",
        ),
    ],
)
async def test_a_verdict_is_a_verdict_and_a_fault_is_none(view, world, words, result):
    world.said = [words]
    assert [item.result for item in await webhook_probe.evaluates(view)] == [result]


async def test_the_probe_uses_an_enforced_namespace(view, world):
    for kind in ("validating", "mutating"):
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/weightlock"
        webhook = world.objects[path]["webhooks"][0]
        webhook["namespaceSelector"]["matchExpressions"][0]["values"] = ["default", "kube-system"]
    with pytest.raises(SkippedError, match="every namespace is exempt"):
        await webhook_probe.covered(view)
    world.lists["/api/v1/namespaces"] += [
        {"metadata": {"name": "going", "deletionTimestamp": "2026-11-02T09:00:00Z"}},
        {"metadata": {"name": "research"}},
    ]
    assert await webhook_probe.covered(view) == "research"
