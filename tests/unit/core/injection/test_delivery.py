"""From which volume the sidecar unseals, and whether those who read what it writes may."""

from datetime import UTC, datetime

import jsonpatch
import pytest

from webhook.api.config import Injection
from webhook.api.modelweights import ModelWeights
from webhook.core.facts.model import Facts, WeightUse
from webhook.core.injection import plan as inject
from webhook.core.injection.delivery import UndeliverableError, is_closed_to_some, sealed_mount
from webhook.core.injection.sidecar import AGENT

USE = WeightUse("beta", "frontier", "w", "csi", True, ("main", "setup"))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PLAIN = {"name": "w", "readOnly": True, "mountPath": "/var/run/weightlock/sealed/beta"}


def spec(main=None, setup=None, **others):
    """A pod that has volume ``w``; its containers mount it so."""
    main = {"volumeMounts": [{"name": "w", "mountPath": "/w"}]} if main is None else main
    return {
        "initContainers": [{"name": "setup", "image": "x", **(setup or {})}],
        "containers": [{"name": "main", "image": "x", **main}],
        "volumes": [{"name": "w", "csi": {}}],
        **others,
    }


def mounts(*paths, **more):
    return {"volumeMounts": [{"name": "w", "mountPath": "/w", "subPath": path, **more} for path in paths]}


@pytest.mark.parametrize(
    ("pod", "part"),
    [
        (spec(), None),
        (spec(mounts("v2")), "v2"),
        (spec(mounts("v2"), mounts("v2")), "v2"),
        (spec(mounts("")), None),
        (spec({"volumeMounts": [{"name": "other", "mountPath": "/o", "subPath": "x"}]}), None),
    ],
)
def test_the_part_of_the_volume_that_the_readers_mount(pod, part):
    assert sealed_mount(pod, "beta", [USE]) == ({**PLAIN, "subPath": part} if part else PLAIN)


@pytest.mark.parametrize(
    ("pod", "output"),
    [
        (spec(mounts("a", "b")), 'several parts of volume "w": a, b'),
        (spec(mounts("a"), mounts("")), 'several parts of volume "w": the whole, a'),
        (spec(mounts("", subPathExpr="$(VERSION)")), "subPathExpr"),
        (spec({"volumeDevices": [{"name": "w", "devicePath": "/dev/w"}]}), "as a block device"),
    ],
)
def test_readers_of_no_one_part(pod, output):
    with pytest.raises(UndeliverableError, match=output):
        sealed_mount(pod, "beta", [USE])


def test_a_container_image_cannot_be_delivered_as_a_volume():
    image = WeightUse("beta", "frontier", "spec.containers[0].image", "image", True, ("main",))
    with pytest.raises(UndeliverableError, match=r"the pod reads it as spec\.containers\[0\]\.image"):
        sealed_mount(spec(), "beta", [image])
    assert sealed_mount(spec(), "beta", [image, USE]) == PLAIN, "a volume is taken where there is one"


def plan(document, use):
    model = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "beta"},
        "spec": {
            "sensitivity": "frontier",
            "delivery": "plaintext",
            "volumes": [{"hostPath": {"path": "/w"}}],
        },
    }
    return inject.plan(
        document, Facts((use,)), {"beta": ModelWeights.model_validate(model)}, Injection(), NOW
    )


def test_the_sidecar_is_injected_with_that_part_once_and_for_all():
    document = {"metadata": {}, "spec": spec(mounts("v2"))}
    expectation = plan(document, USE)
    after = jsonpatch.apply_patch(document, list(inject.patch(document, expectation)))
    agent = after["spec"]["initContainers"][0]
    assert agent["name"] == AGENT
    assert {**PLAIN, "subPath": "v2"} in agent["volumeMounts"]
    # Facts of the injected pod count the sidecar among the readers.
    again = plan(after, WeightUse("beta", "frontier", "w", "csi", True, ("main", "setup", AGENT)))
    assert inject.patch(after, again) == ()
    assert AGENT not in again.mounts


def test_an_undeliverable_model_adds_no_sidecar_and_gives_the_reason():
    expectation = plan({"metadata": {}, "spec": spec(mounts("a", "b"))}, USE)
    assert expectation.agent is None
    assert not expectation.mounts
    assert "several parts" in str(expectation.undeliverable[0])


def context(**fields):
    return {"securityContext": fields}


@pytest.mark.parametrize(
    ("pod", "agent", "expected"),
    [
        (spec(), None, True),
        (spec(**context(fsGroup=2000)), None, False),
        (spec(**context(fsGroup=0)), None, False),
        (spec(**context(runAsUser=1000)), None, False),
        (spec(context(runAsUser=1000), context(runAsUser=1000)), 1000, False),
        (spec(context(runAsUser=1000), context(runAsUser=2000)), None, True),
        (spec(context(runAsUser=1000), **context(runAsUser=2000)), None, True),
        (spec(context(runAsUser=1000), context(runAsUser=1000)), 5, True),
        (spec(context(runAsUser=0), context(runAsUser=0)), None, False),
        (spec(context(runAsUser=0, capabilities={"drop": ["ALL"]}), context(runAsUser=0)), None, True),
        (
            spec(
                context(runAsUser=0, capabilities={"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}),
                context(runAsUser=0),
            ),
            None,
            False,
        ),
        (spec(**context(runAsUser=True)), None, True),
    ],
)
def test_containers_that_cannot_read_the_delivered_key(pod, agent, expected):
    assert is_closed_to_some(pod, {"main", "setup"}, agent) is expected


def test_containers_that_read_nothing_may_run_as_any_user():
    assert not is_closed_to_some(spec(setup=context(runAsUser=7), **context(runAsUser=1000)), {"main"}, None)
