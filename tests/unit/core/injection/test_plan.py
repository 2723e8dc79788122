"""The key sidecar. Golden patches stand in golden/inject; every property here is one the broker relies on."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.authorities import known
from webhook.api.config import Injection
from webhook.api.modelweights import ModelWeights
from webhook.core.facts.model import DeviceUse, Facts, WeightUse
from webhook.core.injection import plan
from webhook.core.injection.delivery import IMAGE_USER
from webhook.core.injection.hiding import ALL
from webhook.core.injection.sidecar import AGENT, volume_name
from webhook.server.tls import self_signed


def model(name="atlas-70b", delivery="key"):
    return ModelWeights.model_validate(
        {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": name},
            "spec": {
                "sensitivity": "frontier",
                "delivery": delivery,
                "volumes": [{"hostPath": {"path": "/w"}}],
            },
        }
    )


ROOT = Path(__file__).resolve().parents[4]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MODELS = {"atlas-70b": model(), "beta": model("beta", "plaintext")}
USE = WeightUse("atlas-70b", "frontier", "weights", "persistentVolumeClaim", True, ("main",))


def pod(*containers, **spec):
    by_name = [{"name": name, "image": "x"} for name in containers or ("main",)]
    return {"metadata": {"name": "p"}, "spec": {"containers": by_name, **spec}}


def injected(document, facts, settings=None, models=MODELS, now=NOW):
    """The pod after its patch, and the plan."""
    expectation = plan.plan(document, facts, models, settings or Injection(), now)
    return jsonpatch.apply_patch(document, list(plan.patch(document, expectation))), expectation


def test_the_agent_comes_first_and_only_readers_get_the_key():
    after, _ = injected(pod("main", "other", initContainers=[{"name": "setup", "image": "x"}]), Facts((USE,)))
    assert [container["name"] for container in after["spec"]["initContainers"]] == [
        "weightlock-agent",
        "setup",
    ]
    agent, main, other = after["spec"]["initContainers"][0], *after["spec"]["containers"]
    assert agent["restartPolicy"] == "Always"
    key = volume_name("atlas-70b")
    assert main["volumeMounts"] == [
        {"name": key, "readOnly": True, "mountPath": "/var/run/weightlock/keys/atlas-70b"}
    ]
    assert "volumeMounts" not in other
    assert {"name": key, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} in after["spec"]["volumes"]
    token = next(volume for volume in after["spec"]["volumes"] if volume["name"] == "weightlock-token")
    assert token["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "audience": "weightlock.dev/broker",
                "expirationSeconds": 600,
                "path": "token",
            }
        }
    ]


def test_the_sidecar_meets_pod_security_restricted():
    after, _ = injected(pod(), Facts((USE,)))
    context = after["spec"]["initContainers"][0]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["runAsNonRoot"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "runAsUser" not in context


@pytest.mark.parametrize(
    ("users", "expected"),
    [([1000], 1000), ([1000, 1000], 1000), ([1000, 2000], None), ([0], None), ([True], None)],
)
def test_the_agent_runs_as_the_user_of_the_key_readers(users, expected):
    names = [f"c{index}" for index in range(len(users))]
    document = pod(*names)
    for container, user in zip(document["spec"]["containers"], users, strict=True):
        container["securityContext"] = {"runAsUser": user}
    use = WeightUse("atlas-70b", "frontier", "w", "csi", True, tuple(names))
    after, _ = injected(document, Facts((use,)))
    assert after["spec"]["initContainers"][0]["securityContext"].get("runAsUser") == expected


@pytest.mark.parametrize(
    ("own", "expected"), [({}, IMAGE_USER), ({"runAsUser": 0}, IMAGE_USER), ({"runAsUser": 7}, 7)]
)
def test_in_a_pod_of_roots_the_agent_runs_as_its_images_user(own, expected):
    document = pod(securityContext={"runAsUser": 0})
    document["spec"]["containers"][0]["securityContext"] = own
    agent = injected(document, Facts((USE,)))[0]["spec"]["initContainers"][0]
    assert agent["securityContext"]["runAsUser"] == expected


def test_the_images_user_is_that_of_the_dockerfile():
    assert f"USER {IMAGE_USER}:{IMAGE_USER}" in (ROOT / "Dockerfile").read_text().splitlines()


def test_plaintext_gives_the_agent_the_sealed_files_and_the_reader_the_open_ones():
    use = WeightUse("beta", "frontier", "sealed", "csi", True, ("main",))
    after, _ = injected(pod(volumes=[{"name": "sealed", "csi": {}}]), Facts((use,)))
    agent = after["spec"]["initContainers"][0]
    assert {"name": "sealed", "readOnly": True, "mountPath": "/var/run/weightlock/sealed/beta"} in agent[
        "volumeMounts"
    ]
    assert (
        after["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == "/var/run/weightlock/weights/beta"
    )


def test_the_memory_limit_of_the_sidecar_does_not_bound_files_in_memory():
    use = WeightUse("beta", "frontier", "sealed", "csi", True, ("main",))
    limits = {"cpu": "1", "memory": "128Mi"}
    volumes = [{"name": "sealed", "csi": {}}]
    after, expectation = injected(pod(volumes=volumes), Facts((use,)), Injection(limits=limits))
    resources = after["spec"]["initContainers"][0]["resources"]
    assert resources["limits"] == {"cpu": "1"}
    assert resources["requests"]["memory"] == "64Mi"
    assert (
        injected(pod(), Facts((USE,)), Injection(limits=limits))[0]["spec"]["initContainers"][0]["resources"][
            "limits"
        ]
        == limits
    )
    resources["limits"]["memory"] = "200Gi"
    assert plan.patch(after, expectation) == (), "a namespace's LimitRange may set one"


def startup(document):
    return document["spec"]["initContainers"][0]["startupProbe"]["failureThreshold"]


def test_unsealing_has_the_time_that_it_takes():
    use = WeightUse("beta", "frontier", "sealed", "csi", True, ("main",))
    files, keys = pod(volumes=[{"name": "sealed", "csi": {}}]), pod()
    assert startup(injected(keys, Facts((USE,)))[0]) == 600
    assert startup(injected(files, Facts((use,)))[0]) == 6 * 3600
    longer = Injection(startup_seconds=60, plaintext_startup_seconds=86_400)
    assert startup(injected(keys, Facts((USE,)), longer)[0]) == 60
    assert startup(injected(files, Facts((use,)), longer)[0]) == 86_400


def test_a_pod_from_before_the_time_was_configured_is_as_it_should_be():
    before, _ = injected(pod(), Facts((USE,)))
    expectation = plan.plan(pod(), Facts((USE,)), MODELS, Injection(startup_seconds=60), NOW)
    assert plan.patch(before, expectation) == ()
    for change in ({"periodSeconds": 60}, {"exec": {"command": ["sh"]}}, {"httpGet": {"port": 1}}):
        forged = deepcopy(before)
        forged["spec"]["initContainers"][0]["startupProbe"].update(change)
        assert plan.patch(forged, expectation)
    forged["spec"]["initContainers"][0].pop("startupProbe")
    assert plan.patch(forged, expectation)


def test_the_collector_of_evidence_is_configured_for_the_whole_cluster():
    after, _ = injected(pod(), Facts((USE,)), Injection(evidence_command="collect --gpu"))
    assert "--evidence-command=collect --gpu" in after["spec"]["initContainers"][0]["args"]
    after, _ = injected(pod(), Facts((USE,)))
    assert not any(word.startswith("--evidence") for word in after["spec"]["initContainers"][0]["args"])


def test_the_sidecar_reads_the_manifest_to_fetch_one_key_only_if_the_cluster_says_so():
    document = pod(volumes=[{"name": "weights", "persistentVolumeClaim": {"claimName": "w"}}])
    document["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "weights", "mountPath": "/w", "subPath": "v1"}
    ]
    after, _ = injected(document, Facts((USE,)), Injection(named_key_only=True))
    sidecar = after["spec"]["initContainers"][0]
    place = "/var/run/weightlock/sealed/atlas-70b"
    assert sidecar["volumeMounts"][-1] == {
        "name": "weights",
        "readOnly": True,
        "mountPath": place,
        "subPath": "v1",
    }
    assert f"--key=atlas-70b:/var/run/weightlock/keys/atlas-70b:{place}" in sidecar["args"]
    after, _ = injected(document, Facts((USE,)))
    sidecar = after["spec"]["initContainers"][0]
    assert "--key=atlas-70b:/var/run/weightlock/keys/atlas-70b" in sidecar["args"]
    assert "weights" not in [mount["name"] for mount in sidecar["volumeMounts"]]


def test_a_model_without_a_mountable_volume_gets_all_keys():
    after, expectation = injected(pod(), Facts((USE,)), Injection(named_key_only=True))
    assert not expectation.undeliverable
    assert "--key=atlas-70b:/var/run/weightlock/keys/atlas-70b" in after["spec"]["initContainers"][0]["args"]


def test_the_endpoint_for_keys_is_off_by_default_and_serves_delivered_keys_only():
    after, _ = injected(pod(), Facts((USE,)), Injection(cdh_address="127.0.0.1:8006"))
    assert "--cdh=127.0.0.1:8006" in after["spec"]["initContainers"][0]["args"]
    after, _ = injected(pod(), Facts((USE,)))
    assert not any(word.startswith("--cdh") for word in after["spec"]["initContainers"][0]["args"])


def test_several_models_each_have_a_volume_of_their_own():
    uses = (USE, WeightUse("beta", "frontier", "sealed", "csi", True, ("other",)))
    after, _ = injected(pod("main", "other", volumes=[{"name": "sealed", "csi": {}}]), Facts(uses))
    main, other = after["spec"]["containers"]
    assert [mount["name"] for mount in main["volumeMounts"]] == [volume_name("atlas-70b")]
    assert [mount["name"] for mount in other["volumeMounts"]] == [volume_name("beta")]


def test_the_users_container_stays_the_first_and_the_default_one():
    document = pod()
    document["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "main"}
    after, _ = injected(document, Facts((USE,)))
    assert after["metadata"] == document["metadata"]
    assert after["spec"]["containers"][0]["name"] == "main"


def test_a_pod_that_reads_nothing_gets_no_sidecar():
    after, expectation = injected(pod(), Facts(), Injection(hide_devices=False))
    assert expectation.agent is None
    assert after == pod()


def test_unresolved_weights_get_nothing_since_they_are_denied():
    assert (
        plan.plan(pod(), Facts((WeightUse("?", "?", "w", "unresolved"),)), MODELS, Injection(), NOW).agent
        is None
    )


def test_devices_are_hidden_from_containers_that_request_none():
    document = pod("main", "gpu")
    facts = Facts(devices=(DeviceUse("nvidia.com", "nvidia.com/gpu", 1, "resource", "gpu"),))
    after, _ = injected(document, facts)
    assert after["spec"]["containers"][0]["env"] == list(ALL)
    assert after["spec"]["containers"][1]["env"] == list(ALL[1:])


@pytest.mark.parametrize("name", [{}, [], 1, None])
def test_a_variable_without_a_usable_name_hides_nothing(name):
    """A name of another type stops no patch; the API server rejects the pod."""
    document = pod()
    document["spec"]["containers"][0]["env"] = [{"name": name, "value": "void"}]
    after, _ = injected(document, Facts())
    assert after["spec"]["containers"][0]["env"][1:] == list(ALL)


@pytest.mark.parametrize("value", ["void", "none", "", "  "])
def test_a_pod_that_hides_them_itself_is_left_alone(value):
    document = pod()
    document["spec"]["containers"][0]["env"] = [{"name": item["name"], "value": value} for item in ALL]
    assert injected(document, Facts())[0] == document


def test_the_last_value_counts_as_it_does_for_the_kubelet():
    document = pod()
    document["spec"]["containers"][0]["env"] = [
        *ALL,
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
    ]
    assert injected(document, Facts())[0]["spec"]["containers"][0]["env"][-1]["value"] == "void"


TAMPERINGS = {
    "another image": lambda agent: agent.update(image="evil"),
    "another broker": lambda agent: agent["args"].__setitem__(1, "--broker=https://evil"),
    "a command": lambda agent: agent.update(command=["sh"]),
    "an environment": lambda agent: agent.update(env=[{"name": "LD_PRELOAD", "value": "/x"}]),
    "no restart": lambda agent: agent.pop("restartPolicy"),
    "privileged": lambda agent: agent["securityContext"].update(privileged=True),
    "a further mount": lambda agent: agent["volumeMounts"].append({"name": "weights", "mountPath": "/x"}),
    "a lifecycle hook": lambda agent: agent.update(lifecycle={"postStart": {"exec": {"command": ["x"]}}}),
    "a device": lambda agent: agent["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
    "a claim": lambda agent: agent["resources"].update(claims=[{"name": "gpu"}]),
    "another memory limit": lambda agent: agent["resources"]["limits"].update(memory="64Gi"),
}


@pytest.mark.parametrize("change", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_sidecar_is_fixed(change):
    after, expectation = injected(pod(), Facts((USE,)))
    tampered = deepcopy(after)
    change(tampered["spec"]["initContainers"][0])
    operations = plan.patch(tampered, expectation)
    assert operations
    assert jsonpatch.apply_patch(tampered, list(operations)) == after


def test_additions_of_the_api_server_are_accepted():
    after, expectation = injected(pod(), Facts((USE,)))
    agent = after["spec"]["initContainers"][0]
    agent["volumeMounts"].append(
        {
            "name": "kube-api-access-x7x7x",
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
    )
    agent["resources"]["limits"]["ephemeral-storage"] = "1Gi"
    assert plan.patch(after, expectation) == ()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_agents_in_the_wrong_place_are_replaced(place):
    after, expectation = injected(
        pod(initContainers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]), Facts((USE,))
    )
    forged = deepcopy(after)
    forged["spec"]["initContainers"].insert(place, {"name": "weightlock-agent", "image": "evil"})
    restored = jsonpatch.apply_patch(forged, list(plan.patch(forged, expectation)))
    assert restored == after


@pytest.mark.parametrize("place", ["first", "last"])
def test_another_injector_may_come_before_the_agent_but_no_reader(place):
    """The sidecar of a mesh that is asked after us and wants to be the first gets its way; see docs/decisions."""
    mesh = {"name": "mesh", "image": "x", "restartPolicy": "Always"}
    document = pod(initContainers=[{"name": "setup", "image": "x"}])
    uses = replace(USE, containers=("main", "setup"))
    after, expectation = injected(document, Facts((uses,)))
    containers = after["spec"]["initContainers"]
    containers.insert(0 if place == "first" else len(containers), mesh)
    assert plan.patch(after, expectation) == ()
    assert plan.reserved_name_violations(after, expectation) == ()
    containers.sort(key=lambda container: container["name"] == AGENT)
    (restored,) = [jsonpatch.apply_patch(after, list(plan.patch(after, expectation)))]
    names = [container["name"] for container in restored["spec"]["initContainers"]]
    assert names[0] == AGENT
    assert sorted(names) == sorted(["mesh", "setup", AGENT])


def authority(age):
    """An authority of this age, in PEM, and as the sidecar's argument."""
    pem = self_signed.make(["broker"], now=NOW - age).authority.decode()
    return pem, f"--authority={known(pem)[0]}"


def test_authorities_stand_in_the_arguments_and_only_those_of_the_broker():
    (old, old_word), (new, new_word), (_, other_word) = (authority(timedelta(days=1)) for _ in range(3))
    before = injected(pod(), Facts((USE,)), Injection(ca_bundle=old))[0]
    arguments = before["spec"]["initContainers"][0]["args"]
    assert [word for word in arguments if word.startswith("--authority")] == [old_word]
    both = Injection(ca_bundle=old + new)
    after, expectation = injected(pod(), Facts((USE,)), both)
    assert old_word in after["spec"]["initContainers"][0]["args"]
    assert new_word in after["spec"]["initContainers"][0]["args"]
    assert plan.patch(before, expectation) == (), "a pod from before the rotation is as it should be"
    only_new = plan.plan(pod(), Facts((USE,)), MODELS, Injection(ca_bundle=new), NOW)
    assert plan.patch(before, only_new), "an authority that is taken out is out"
    assert plan.patch(after, only_new)
    for change in (
        lambda words: words.append(other_word),
        lambda words: words.remove(old_word),
        lambda words: words.append(old_word),
        lambda words: words.append(3),
        lambda words: words.remove("agent"),
    ):
        forged = deepcopy(before)
        change(forged["spec"]["initContainers"][0]["args"])
        assert plan.patch(forged, expectation)


def test_an_authority_is_given_out_when_every_replica_has_had_time_to_learn_of_it():
    (old, old_word), (new, new_word) = authority(timedelta(days=1)), authority(timedelta(minutes=1))
    both = Injection(ca_bundle=new + old)

    def words(now):
        document, _ = injected(pod(), Facts((USE,)), both, now=now)
        return [a for a in document["spec"]["initContainers"][0]["args"] if a.startswith("--authority")]

    assert words(NOW) == [old_word]
    assert words(NOW + timedelta(minutes=10)) == [new_word, old_word]
    assert injected(pod(), Facts((USE,)), Injection(ca_bundle=new))[0]["spec"]["initContainers"][0][
        "args"
    ].count(new_word), "the first of all is given at once"
    early, _ = injected(pod(), Facts((USE,)), both, now=NOW + timedelta(minutes=10))
    late = plan.plan(pod(), Facts((USE,)), MODELS, both, NOW)
    assert plan.patch(early, late) == (), "a replica whose clock is behind accepts it all the same"


STRAYS = {
    "the key in a container that does not read the weights": (
        lambda p: p["spec"]["containers"][1].update(
            volumeMounts=[{"name": volume_name("atlas-70b"), "mountPath": "/k"}]
        )
    ),
    "the token in a container": (
        lambda p: p["spec"]["containers"][0]["volumeMounts"].append(
            {"name": "weightlock-token", "mountPath": "/t"}
        )
    ),
    "an ephemeral container with the key": (
        lambda p: p["spec"].update(
            ephemeralContainers=[
                {
                    "name": "debug",
                    "volumeMounts": [{"name": volume_name("atlas-70b"), "mountPath": "/k"}],
                }
            ]
        )
    ),
    "a second agent among the containers": (
        lambda p: p["spec"]["containers"].append({"name": "weightlock-agent", "image": "evil"})
    ),
    "a volume with our prefix": lambda p: p["spec"]["volumes"].append(
        {"name": "weightlock-x", "emptyDir": {}}
    ),
}


@pytest.mark.parametrize("change", STRAYS.values(), ids=STRAYS)
def test_strays_are_named(change):
    after, expectation = injected(pod("main", "other"), Facts((USE,)))
    assert plan.reserved_name_violations(after, expectation) == ()
    change(after)
    assert len(plan.reserved_name_violations(after, expectation)) == 1


NAMES = ("main", "other", "third")
mounts = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["w", "weightlock-token", volume_name("beta")]),
            "mountPath": st.just("/m"),
        }
    ),
    max_size=3,
)
containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from([*NAMES, AGENT])},
        optional={"volumeMounts": mounts, "image": st.just("x")},
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda container: container["name"],
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.just({}),
        "spec": st.fixed_dictionaries({"containers": containers}, optional={"initContainers": containers}),
    }
)
uses = st.lists(
    st.builds(
        WeightUse,
        model=st.sampled_from(["atlas-70b", "beta", "?"]),
        sensitivity=st.just("frontier"),
        volume=st.sampled_from(["w", "v"]),
        via=st.just("csi"),
        containers=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
    ),
    max_size=3,
)


@given(pods, uses)
def test_injection_is_idempotent_and_changes_no_input(document, weights):
    before = deepcopy(document)
    after, expectation = injected(document, Facts(tuple(weights)))
    assert document == before
    assert plan.patch(after, expectation) == ()
    again, _ = injected(after, Facts(tuple(weights)))
    assert again == after


def test_a_pod_that_runs_may_have_the_sidecar_of_an_earlier_version_and_a_new_one_may_not():
    old, new = "registry.example.com/weightlock:1", "registry.example.com/weightlock:2"
    running = injected(pod(), Facts((USE,)), Injection(image=old))[0]
    expectation = plan.plan(pod(), Facts((USE,)), MODELS, Injection(image=new, previous_images=[old]), NOW)
    assert plan.patch(running, expectation), "the creator of a pod does not choose the version"
    judged_again = expectation._replace(images=frozenset({old}))
    assert plan.patch(running, judged_again) == ()
    for change in (
        lambda agent: agent.update(image="registry.example.com/other:1"),
        lambda agent: agent.update(image=[old]),
        lambda agent: agent.update(command=["sh"]),
        lambda agent: agent["args"].append("--more"),
    ):
        forged = deepcopy(running)
        change(forged["spec"]["initContainers"][0])
        assert plan.patch(forged, judged_again)
