"""The chart as helm renders it: which kinds it asks about, which rights it gives, what values change.

Skipped where there is no helm: `make control-plane` builds one.
"""

import base64
import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import documents
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from webhook.api.broker import BrokerConfig, BrokerSettings
from webhook.api.config import Config, Injection
from webhook.api.operators import PRESETS
from webhook.core.admission.rules import MUTATED, validated, workloads
from webhook.core.kube.kinds import plural
from webhook.core.workloads.kinds import BUILT_IN
from webhook.core.workloads.readers import READERS
from webhook.core.workloads.references import REFERENCED, USERS
from webhook.server.tls import self_signed

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "weightlock"
NAMESPACE = "weightlock-system"
VALUES = documents.load((CHART / "values.yaml").read_text())
PROVIDED = {
    "certificates": {
        "mode": "provided",
        "provided": {"webhookSecret": "tls-w", "brokerSecret": "tls-b", "caBundle": "-----BEGIN"},
    },
    "signing": {"existingSecret": "keys"},
}


@pytest.fixture
def refused(helm):
    """A function from values to what helm says when it refuses them."""

    def refused(namespace=NAMESPACE, accepted=True, **values):
        done = helm("template", "weightlock", CHART, "-n", namespace, values=values, accepted=accepted)
        assert done.returncode != 0
        return done.stderr

    return refused


def deployments(objects):
    return {name: document for (kind, name), document in objects.items() if kind == "Deployment"}


def webhook_rules(objects, kind="ValidatingWebhookConfiguration"):
    """Every (group, resource, operation) that a webhook configuration matches."""
    (webhook,) = objects[kind, "weightlock"]["webhooks"]
    return {
        (group, resource, operation)
        for rule in webhook["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }


def policies(objects):
    text = objects["ConfigMap", "weightlock-policies"]["data"]["policies.yaml"]
    return {document["metadata"]["name"]: document for document in documents.load_all(text) if document}


def shipped():
    """The WeightPolicies of policies/ by name."""
    files = [
        f for f in (ROOT / "policies").glob("*.yaml") if not f.name.endswith((".test.yaml", ".state.yaml"))
    ]
    policies = (document for file in files for document in documents.load_all(file.read_text()))
    return {d["metadata"]["name"]: d for d in policies if d and d["kind"] == "WeightPolicy"}


def leaves(tree, path=""):
    for key, value in tree.items():
        here = f"{path}{key}"
        yield from [here] if not isinstance(value, dict) or not value else [here, *leaves(value, f"{here}.")]


def test_lint_is_strictly_clean(helm):
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


def test_rendering_twice_gives_the_same_bytes(helm):
    for values in ({}, PROVIDED, {"certificates": {"mode": "certManager"}}):
        first, second = (
            helm("template", "weightlock", CHART, "-n", NAMESPACE, values=values) for _ in range(2)
        )
        assert first.returncode == 0, first.stderr
        assert first.stdout == second.stdout


def test_a_cluster_without_native_sidecars_is_refused_with_its_version(helm):
    refused = helm(
        "template", "weightlock", CHART, "-n", NAMESPACE, "--kube-version", "1.32.4", values=PROVIDED
    )
    assert refused.returncode != 0
    assert "requires kubeVersion: >=1.33.0-0 which is incompatible with Kubernetes v1.32.4" in refused.stderr


def test_the_webhook_rules_cover_every_workload_kind(render):
    rules = webhook_rules(render())
    for kind in {*BUILT_IN, *READERS}:
        group = kind.partition(".")[2]
        assert {(group, plural(kind), verb) for verb in ("CREATE", "UPDATE")} <= rules, kind


def test_the_rules_are_those_of_the_code(render):
    """As installed, and as controller and broker expect them."""
    objects = render()
    rules = {
        (rule.group, resource, verb)
        for rule in validated()
        for resource in rule.resources
        for verb in rule.operations
    }
    rules |= {
        (g, r, verb) for g, names in workloads().items() for r in names for verb in ("CREATE", "UPDATE")
    }
    assert webhook_rules(objects) == rules
    assert webhook_rules(objects, "MutatingWebhookConfiguration") == {
        (rule.group, resource, verb)
        for rule in MUTATED
        for resource in rule.resources
        for verb in rule.operations
    }
    text = objects["ConfigMap", "weightlock-webhooks"]["data"]["webhooks.yaml"]
    expected = {(item["kind"], item["metadata"]["name"]): item for item in documents.load_all(text)}
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        assert webhook_rules(expected, kind) == webhook_rules(objects, kind)


def test_comparing_secrets_sends_and_reads_them(render):
    """Without the setting, the webhook receives no Secret but those for tokens and copies, and reads none."""
    plain, objects = render(), render(config={"settings": {"storage": {"compareSecrets": True}}})
    more = {("", "configmaps", "CREATE"), ("", "configmaps", "UPDATE")}
    assert webhook_rules(objects) - webhook_rules(plain) == more
    assert not more & webhook_rules(plain)

    def conditions(rendered):
        (webhook,) = rendered["ValidatingWebhookConfiguration", "weightlock"]["webhooks"]
        return {condition["name"] for condition in webhook["matchConditions"]}

    assert conditions(plain) - conditions(objects) == {"secrets-for-tokens-and-copies"}
    for component in ("webhook", "broker", "controller"):
        assert rules_of(objects, component) - rules_of(plain, component) == {("", "secrets", "get")}
    without = render(config={"settings": {"storage": {"compareSecrets": True}}}, reports={"enabled": False})
    assert ("", "secrets", "get") not in rules_of(without, "controller")


def test_the_webhook_reads_the_objects_that_workloads_refer_to(render):
    objects = render()
    readable = {(group, name) for group, name, verb in rules_of(objects, "webhook") if verb == "get"}
    for kind in {*REFERENCED, *(kind for preset in PRESETS.values() for kind in preset.owns)}:
        assert (kind.partition(".")[2], plural(kind)) in readable, kind
    # Only the webhook decides a changed template with the workloads that use it.
    users = {kind for users in USERS.values() for kind in users}
    listable = {(kind.partition(".")[2], plural(kind), "list") for kind in users}
    assert listable <= rules_of(objects, "webhook")
    assert not listable & (rules_of(objects, "controller") | rules_of(objects, "broker"))


@pytest.mark.parametrize("policy", shipped().values(), ids=lambda policy: policy["metadata"]["name"])
def test_the_webhook_rules_cover_the_resources_of_each_policy(render, policy):
    rules = webhook_rules(render())
    for rule in policy["spec"]["matchConstraints"]["resourceRules"]:
        expectation = {
            (group, resource, verb)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["operations"]
            if resource != "*"
        }
        for group, resource, verb in expectation:
            # A subresource in all groups is one of the core group; each has one of the operations named.
            groups = [""] if group == "*" else [group]
            verbs = rule["operations"] if "/" in resource else [verb]
            assert any((g, resource, v) in rules for g in groups for v in verbs), (group, resource, verb)


def test_webhooks_fail_closed_and_exempt_by_name_alone(render):
    objects = render(namespace="guards", exemptNamespaces=["kube-system", "gpu-operator"])
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        (webhook,) = objects[kind, "weightlock"]["webhooks"]
        assert (webhook["failurePolicy"], webhook["sideEffects"], webhook["timeoutSeconds"]) == (
            "Fail",
            "None",
            10,
        )
        assert webhook["namespaceSelector"] == {
            "matchExpressions": [
                {
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": ["gpu-operator", "guards", "kube-system"],
                }
            ]
        }
        assert "objectSelector" not in webhook
        assert webhook["clientConfig"]["service"]["name"] == "weightlock-webhook"
    assert (
        objects["MutatingWebhookConfiguration", "weightlock"]["webhooks"][0]["reinvocationPolicy"]
        == "IfNeeded"
    )


def test_controller_and_broker_expect_the_installed_webhooks(render):
    objects = render()
    text = objects["ConfigMap", "weightlock-webhooks"]["data"]["webhooks.yaml"]
    # Helm adds these annotations to what it installs, so a restored object must have them.
    owner = {"meta.helm.sh/release-name": "weightlock", "meta.helm.sh/release-namespace": "weightlock-system"}
    for expected in documents.load_all(text):
        annotations = expected["metadata"].pop("annotations")
        assert annotations == owner
        assert expected == objects[expected["kind"], "weightlock"]


def test_pods_are_restricted_and_spread(render):
    for name, deployment in deployments(render()).items():
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert deployment["spec"]["replicas"] == 2
        assert spec["priorityClassName"] == "system-cluster-critical"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert spec["affinity"]["podAntiAffinity"]
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert [c["labelSelector"]["matchLabels"] for c in spec["topologySpreadConstraints"]] == [
            selector
        ] * 2
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        probe = {"controller": ("metrics", "HTTP")}.get(container["name"], ("https", "HTTPS"))
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {probe[0]: ports[probe[0]], "metrics": 8080}
        for kind, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
            request = container[f"{kind}Probe"]["httpGet"]
            assert (request["path"], request["port"], request["scheme"]) == (path, *probe), name


@pytest.mark.parametrize("part", ["webhook", "controller", "broker"])
def test_a_part_is_watched_from_the_namespaces_that_are_named(render, part):
    def rules(**values):
        objects = render(networkPolicy=values)
        config = objects["ConfigMap", "weightlock-config"]["data"][f"{part}.yaml"]
        plain = BrokerConfig.model_validate(documents.load(config)).metrics_listen.port
        matches = objects["NetworkPolicy", f"weightlock-{part}"]["spec"]["ingress"]
        return [rule for rule in matches if plain in [port["port"] for port in rule["ports"]]]

    assert rules() == []
    (rule,) = rules(metricsNamespaces=["monitoring"])
    (source,) = rule["from"]
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert len(rule["ports"]) == 1


def test_a_webhook_outside_the_cluster_opens_no_plain_port(render):
    """No NetworkPolicy stands before it."""
    objects = render(webhook={"url": "https://weightlock.example.com:8443"})
    config = documents.load(objects["ConfigMap", "weightlock-config"]["data"]["webhook.yaml"])
    assert "metricsListen" not in config


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory": "1Gi"}, 768),
        ({"memory": "1.5Gi"}, 1152),
        ({"memory": "2G"}, 1430),
        ({"memory": 1073741824}, 768),
        ({"memory": None}, 0),
        ({"memory": "much"}, 0),
    ],
)
def test_the_worker_is_replaced_before_the_kernel_ends_it(render, limits, expected):
    values = {"webhook": {"resources": {"limits": limits}}}

    def above(part="webhook", **config):
        text = render(**values, config=config)["ConfigMap", "weightlock-config"]["data"][f"{part}.yaml"]
        return BrokerConfig.model_validate(documents.load(text)).worker_memory_limit_mib

    assert above() == expected
    assert above("broker") == 0
    assert above(workerMemoryLimitMiB=100) == 100


def test_every_file_a_configuration_names_is_mounted(render):
    objects = render(webhook={"apiServerClient": {"caConfigMap": "apiserver-ca"}})
    data = objects["ConfigMap", "weightlock-config"]["data"]
    for name, deployment in deployments(objects).items():
        part = name.removeprefix("weightlock-")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        volumes = {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        for path in re.findall(r"/etc/weightlock/\S+", data[f"{part}.yaml"]):
            assert any(path.startswith(mount) or mount.startswith(path) for mount in mounts), (part, path)


def test_configurations_are_such_and_know_the_release(render):
    data = render(namespace="guards")["ConfigMap", "weightlock-config"]["data"]
    parsed = {part: documents.load(data[f"{part}.yaml"]) for part in ("webhook", "controller", "broker")}
    webhook, controller = (Config.model_validate(parsed[part]) for part in ("webhook", "controller"))
    assert webhook.settings.exempt_namespaces == ["guards", "kube-system"]
    assert webhook.settings.access.controllers == ["system:serviceaccount:guards:weightlock-controller"]
    injection = webhook.settings.injection
    assert injection.broker_url == "https://weightlock-broker.guards.svc.cluster.local.:8443"
    assert (injection.ca_file, injection.ca_bundle) == ("/etc/weightlock/broker-ca/ca.crt", "")
    assert (controller.controller.namespace, controller.controller.restore) == ("guards", True)
    assert BrokerConfig.model_validate(parsed["broker"]).broker.production is True
    assert VALUES["webhook"]["timeoutSeconds"] > webhook.review_timeout_seconds


def test_sidecars_trust_the_brokers_ca_and_no_namespace_chooses_it(render):
    for name, deployment in deployments(render()).items():
        volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
        assert volumes["broker-ca"]["secret"] == {
            "secretName": "weightlock-broker-serving",
            "items": [{"key": "ca.crt", "path": "ca.crt"}],
            # It may be the controller who makes them.
            **({"optional": True} if name == "weightlock-controller" else {}),
        }
    pem = self_signed.make(["broker"]).authority.decode()
    provided = {**PROVIDED["certificates"]["provided"], "caBundle": pem}
    objects = render(**PROVIDED | {"certificates": {"mode": "provided", "provided": provided}})
    config = Config.model_validate(
        documents.load(objects["ConfigMap", "weightlock-config"]["data"]["webhook.yaml"])
    )
    assert config.settings.injection.ca_bundle == pem
    assert config.settings.injection.ca_file == ""


def test_settings_go_over_those_of_the_chart(render):
    objects = render(config={"logLevel": "debug", "settings": {"injection": {"hideDevices": False}}})
    config = Config.model_validate(
        documents.load(objects["ConfigMap", "weightlock-config"]["data"]["webhook.yaml"])
    )
    assert (config.log_level, config.settings.injection.hide_devices) == ("debug", False)
    assert config.settings.exempt_namespaces == ["kube-system", NAMESPACE]


def test_only_signing_components_get_the_private_key(render):
    def files(**values):
        return {
            name.removeprefix("weightlock-"): volume["secret"]["items"][0]["key"]
            for name, deployment in deployments(render(**values)).items()
            for volume in deployment["spec"]["template"]["spec"]["volumes"]
            if volume["name"] == "signing"
        }

    # The controller reads through the API what it fills itself.
    assert files() == {"webhook": "signing.pub", "broker": "signing.pub"}
    assert files(**PROVIDED)["controller"] == "signing.key"
    assert files(webhook={"apiServerClient": {"caConfigMap": "ca"}})["webhook"] == "signing.key"


def test_the_controller_fills_the_secrets_with_keys_that_pods_wait_for(render):
    objects = render()
    names = {key: f"weightlock-{key}" for key in ("signing", "challenge", "stamp", "record")}
    config = documents.load(objects["ConfigMap", "weightlock-config"]["data"]["controller.yaml"])
    assert Config.model_validate(config).controller.keys.model_dump() == names
    assert "signing" not in config
    for name in names.values():
        secret = objects["Secret", name]
        assert "data" not in secret
        assert secret["metadata"]["annotations"]["weightlock.dev/filled-by"] == "controller"
    # A volume that names its files is mounted when they are there.
    for name, deployment in deployments(objects).items():
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            if "secret" in volume and volume["name"] in ("tls", *names):
                assert volume["secret"]["items"], name
                assert not volume["secret"].get("optional"), name
    # What is not ours is not filled.
    config = documents.load(render(**PROVIDED)["ConfigMap", "weightlock-config"]["data"]["controller.yaml"])
    del names["signing"]
    assert config["controller"]["keys"] == names
    assert config["signing"] == {"key": "/etc/weightlock/signing/signing.key"}


WITHOUT_CONTROLLER = {"controller": {"enabled": False}, "certificates": {"mode": "selfSigned"}}


def test_without_a_controller_helm_makes_the_keys(render):
    objects = render(**WITHOUT_CONTROLLER)
    assert len(_decoded(objects["Secret", "weightlock-challenge"]["data"]["key"])) == 32
    for name in ("weightlock-signing", "weightlock-challenge"):
        annotations = objects["Secret", name]["metadata"].get("annotations") or {}
        assert "weightlock.dev/filled-by" not in annotations


def test_the_public_half_belongs_to_the_private_key(render):
    objects = render(**WITHOUT_CONTROLLER)
    data = {k: _decoded(v) for k, v in objects["Secret", "weightlock-signing"]["data"].items()}
    private = load_pem_private_key(data["signing.key"], None)
    public = load_pem_public_key(data["signing.pub"])
    assert public.public_bytes_raw() == private.public_key().public_bytes_raw()


def test_one_new_authority_vouches_for_both_certificates(render):
    objects = render(certificates={"mode": "selfSigned"})
    authorities = set()
    for part in ("webhook", "broker"):
        data = {k: _decoded(v) for k, v in objects["Secret", f"weightlock-{part}-tls"]["data"].items()}
        authority = x509.load_pem_x509_certificate(data["ca.crt"])
        certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert f"weightlock-{part}.{NAMESPACE}.svc" in names.get_values_for_type(x509.DNSName)
        authorities.add(data["ca.crt"])
    (webhook,) = objects["ValidatingWebhookConfiguration", "weightlock"]["webhooks"]
    assert {_decoded(webhook["clientConfig"]["caBundle"])} == authorities


def test_provided_certificates_are_used_and_none_is_made(render):
    objects = render(**PROVIDED)
    secrets = {name for kind, name in objects if kind == "Secret"}
    assert secrets == {"weightlock-challenge", "weightlock-stamp", "weightlock-record"}
    (webhook,) = objects["MutatingWebhookConfiguration", "weightlock"]["webhooks"]
    assert _decoded(webhook["clientConfig"]["caBundle"]) == b"-----BEGIN"


def test_cert_manager_fills_the_authority_in(render):
    objects = render(certificates={"mode": "certManager"})
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        configuration = objects[kind, "weightlock"]
        injected = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
        assert ("Certificate", injected.removeprefix(f"{NAMESPACE}/")) in objects
        assert "caBundle" not in configuration["webhooks"][0]["clientConfig"]
    data = objects["ConfigMap", "weightlock-config"]["data"]
    controller = Config.model_validate(documents.load(data["controller.yaml"])).controller
    assert (controller.restore, controller.certificates) == (True, None)


def test_the_controller_makes_certificates_for_the_parts_that_serve(render):
    objects = render(namespace="guards")
    data = objects["ConfigMap", "weightlock-config"]["data"]
    own = Config.model_validate(documents.load(data["controller.yaml"])).controller.certificates
    assert {pair.secret: pair.names[0] for pair in own.pairs} == {
        "weightlock-webhook-serving": "weightlock-webhook.guards.svc",
        "weightlock-broker-serving": "weightlock-broker.guards.svc",
    }
    for secret in (own.authority_secret, *(pair.secret for pair in own.pairs)):
        assert "data" not in objects["Secret", secret]
    broker = BrokerConfig.model_validate(documents.load(data["broker.yaml"]))
    assert broker.broker.authorities == "guards/weightlock-broker-serving"
    assert broker.broker.record == "guards/weightlock-record"
    (rule,) = objects["Role", "weightlock-broker"]["rules"]
    assert rule["resourceNames"] == ["weightlock-broker-serving", "weightlock-record"]
    for part, deployment in deployments(objects).items():
        volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
        mounted = [v["secret"]["secretName"] for v in volumes.values() if "secret" in v]
        assert own.authority_secret not in mounted
        if part != "weightlock-controller":
            assert volumes["tls"]["secret"]["secretName"] == f"{part}-serving"
            assert [item["key"] for item in volumes["tls"]["secret"]["items"]] == [
                "tls.crt",
                "tls.key",
                "ca.crt",
            ]
            config = BrokerConfig.model_validate(
                documents.load(data[f"{part.removeprefix('weightlock-')}.yaml"])
            )
            assert config.tls.server_names == [f"{part}.guards.svc"]
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        assert "caBundle" not in objects[kind, "weightlock"]["webhooks"][0]["clientConfig"]


def test_two_secrets_are_read_by_the_broker_and_seven_by_the_controller(render):
    objects = render()
    matches = {
        name: rule
        for (kind, name), document in objects.items()
        for rule in (document["rules"] if kind == "Role" else ())
        if "secrets" in rule["resources"]
    }
    assert matches == {
        "weightlock-controller": {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [
                "weightlock-authority",
                "weightlock-webhook-serving",
                "weightlock-broker-serving",
                "weightlock-challenge",
                "weightlock-record",
                "weightlock-signing",
                "weightlock-stamp",
            ],
            "verbs": ["get", "patch"],
        },
        "weightlock-broker": {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["weightlock-broker-serving", "weightlock-record"],
            "verbs": ["get"],
        },
    }


def test_policies_are_those_shipped(render):
    matches = policies(render())
    assert matches == shipped()


def test_policies_follow_the_values(render):
    objects = render(
        namespace="guards",
        policies={
            "session-risk": {"enabled": False},
            "gpu-bypass": {"actions": ["Warn"]},
            "trusted-images": {"params": {"registries": "registry.example.com"}},
        },
    )
    matches = policies(objects)
    assert set(shipped()) - set(matches) == {"session-risk"}
    assert matches["gpu-bypass"]["spec"]["validationActions"] == ["Warn"]
    assert matches["trusted-images"]["spec"]["paramRef"]["namespace"] == "guards"
    params = objects["ConfigMap", "trusted-images"]
    assert params["metadata"]["namespace"] == "guards"
    assert params["data"] == {"registries": "registry.example.com", "digests": "optional"}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://otel-collector.monitoring.svc:4318/v1/traces", 4318),
        ("https://collector.example.com/v1/traces", 443),
        ("http://collector/v1/traces", 80),
    ],
)
def test_traces_may_leave(render, endpoint, port):
    objects = render(config={"tracing": {"endpoint": endpoint}}, networkPolicy={"apiServerPorts": [6443]})
    for part, expected in (("webhook", True), ("broker", True), ("controller", False)):
        rules = objects["NetworkPolicy", f"weightlock-{part}"]["spec"]["egress"]
        ports = {item["port"] for rule in rules for item in rule["ports"]}
        assert (port in ports) is expected, part


def test_a_digest_beats_a_tag(render):
    digest = f"sha256:{'0' * 64}"
    pinned = f"ghcr.io/weightlock/weightlock@{digest}"
    for values, image, sidecar in (
        ({"tag": "2"}, "ghcr.io/weightlock/weightlock:2", "ghcr.io/weightlock/weightlock-sidecar:2"),
        # A tag would undo the digest, so the sidecar is that of the pinned image.
        ({"tag": "2", "digest": digest}, pinned, pinned),
    ):
        objects = render(image=values)
        for deployment in deployments(objects).values():
            assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
        config = documents.load(objects["ConfigMap", "weightlock-config"]["data"]["webhook.yaml"])
        assert config["settings"]["injection"]["image"] == sidecar


def test_types_stay_when_it_is_uninstalled(render):
    remaining = [d for (kind, _), d in render().items() if kind == "CustomResourceDefinition"]
    assert len(remaining) == 6
    assert {d["metadata"]["annotations"]["helm.sh/resource-policy"] for d in remaining} == {"keep"}
    assert not [kind for kind, _ in render(crds={"install": False}) if kind == "CustomResourceDefinition"]


def test_no_role_allows_everything_or_reads_secrets(render):
    for (kind, name), document in render().items():
        for rule in document["rules"] if kind in ("ClusterRole", "Role") else ():
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"]), name
            if kind == "ClusterRole" or not rule.get("resourceNames"):
                assert "secrets" not in rule["resources"], name


def controller_rules(objects):
    return rules_of(objects, "controller")


def rules_of(objects, part):
    """What a part may do beyond its own namespace: (group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in objects["ClusterRole", f"weightlock-{part}"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_scan_gets_the_rights_it_needs_and_no_more(render):
    without = controller_rules(render(reports={"enabled": False}))
    plain = controller_rules(render(reports={"events": False})) - without
    content = {right for right in plain if right[0] in ("openreports.io", "wgpolicyk8s.io")}
    assert {verb for *_, verb in content} == {"list", "create", "patch", "delete"}
    assert {resource for _, resource, _ in content} == {
        *("reports", "clusterreports", "policyreports", "clusterpolicyreports")
    }
    # To judge takes what the broker may look up.
    broker = rules_of(render(), "broker")
    assert plain - content <= broker
    assert {verb for *_, verb in plain - content} == {"get", "create"}
    assert controller_rules(render()) - without - plain == {
        ("apps", "replicasets", "get"),
        ("batch", "jobs", "get"),
    }
    images = {"templates": False}
    workloads = controller_rules(render(reports={"workloads": True}, images=images))
    workloads -= controller_rules(render(images=images))
    assert {verb for *_, verb in workloads} == {"list"}


def test_the_scan_follows_the_values(render):
    def reports(**values):
        text = render(**values)["ConfigMap", "weightlock-config"]["data"]["controller.yaml"]
        return Config.model_validate(documents.load(text)).reports

    matches = reports()
    assert (matches.enabled, matches.api, matches.kinds, matches.resources_per_second) == (
        True,
        "auto",
        [],
        100,
    )
    settings = reports(
        reports={"workloads": True, "api": "wgpolicyk8s.io"}, config={"reports": {"maxResults": 20}}
    )
    assert (settings.api, settings.max_results) == ("wgpolicyk8s.io", 20)
    # The controller may list each evaluated kind.
    rules = controller_rules(render(reports={"workloads": True}))
    for kind in settings.kinds:
        assert (kind.partition(".")[2], plural(kind), "list") in rules


@pytest.mark.parametrize(
    ("values", "output"),
    [
        ({"reports": {"api": "kyverno.io"}}, "reports/api"),
        ({"namespace": "kube-system"}, "cannot install Weightlock into kube-system"),
        ({"policies": {"weights-ned-grant": {"enabled": False}}}, "unknown policy"),
        ({"certificates": {"mode": "provided"}}, "caBundle is required"),
        ({"controller": {"enabled": False}}, "selfManaged needs the controller"),
        ({"certificates": {"selfManaged": {"certificateDays": 365}}}, "more than twice certificateDays"),
        ({"certificates": {"selfManaged": {"leafDays": 365}}}, "more than twice certificateDays"),
        (
            {"certificates": {"selfManaged": {"certificateDays": 1, "propagationMinutes": 480}}},
            "less than a third",
        ),
        ({"webhook": {"url": "http://weightlock.example.com"}}, "webhook/url"),
        ({"image": {"digest": "latest"}}, "image/digest"),
        ({"webhok": {}}, "webhok"),
        ({"apiServerManifests": {"url": "https://10.96.0.50"}}, "certificates.mode provided"),
        ({"topologySpread": {"host": "Never"}}, "topologySpread/host"),
        ({"webhook": {"minAvailable": 2}}, "webhook.minAvailable 2 of 2 replicas allows no eviction"),
        ({"broker": {"replicas": 3, "minAvailable": 4}}, "broker.minAvailable 4 of 3 replicas"),
        ({"controller": {"minAvailable": "51%"}}, "controller.minAvailable 51% of 2 replicas"),
        ({"controller": {"minAvailable": "abc"}}, "controller/minAvailable"),
        ({"webhook": {"timeoutSeconds": 11}}, "webhook/timeoutSeconds': maximum"),
        ({"webhook": {"timeoutSeconds": 8}}, "must be greater than config.reviewTimeoutSeconds (8)"),
        ({"config": {"reviewTimeoutSeconds": 10}}, "must be greater than config.reviewTimeoutSeconds (10)"),
        ({"policies": {"gpu-bypass": {"actions": ["Deny", "Warn"]}}}, "must not contain both Deny and Warn"),
        ({"policies": {"gpu-bypass": {"params": {"a": "b"}}}}, "gpu-bypass.params: this policy has no"),
        (
            {"policies": {"trusted-images": {"params": {"registires": "a"}}}},
            "this policy has digests, registries",
        ),
        ({"monitoring": {"rules": {"disabled": ["WeightlockSlowly"]}}}, "unknown alert WeightlockSlowly"),
        (
            {"config": {"settings": {"exemptNamespaces": ["a"]}}},
            "set exemptNamespaces, which applies to both",
        ),
        ({"config": {"listen": {"port": 9443}}}, "config.listen is set by the chart"),
        ({"audit": {"enabled": True}}, "audit.existingClaim or audit.bucket is required"),
        (
            {
                "audit": {
                    "enabled": True,
                    "existingClaim": "logs",
                    "bucket": "s3://logs/prod",
                    "existingSecret": "k",
                }
            },
            "audit.existingClaim and audit.bucket exclude each other",
        ),
        ({"audit": {"enabled": True, "existingClaim": "logs"}}, "audit.existingSecret is required"),
        ({"detection": {"enabled": True}}, "detection.enabled needs audit.enabled"),
        ({"config": {"audit": {"directory": "/x"}}}, "config.audit.directory is set by the chart"),
        ({"config": {"bogus": 1}}, "'/config': additional properties 'bogus'"),
        ({"config": {"settings": {"injection": {"hideDevice": True}}}}, "'hideDevice' not allowed"),
        ({"config": {"controller": {"receivers": [{"url": "https://a"}]}}}, "missing property 'name'"),
        ({"broker": {"config": {"leaseSeconds": "x"}}}, "'/broker/config/leaseSeconds': got string"),
        ({"config": {"tracing": {"sampleRatio": "x"}}}, "'x' does not match pattern"),
        ({"broker": {"config": {"challengeKey": "x"}}}, "broker.config.challengeKey is set by the chart"),
    ],
)
def test_mistakes_are_refused(refused, values, output):
    assert output in refused(**values)


def test_detection_has_its_configmaps_and_the_rights_on_them(render):
    values = {
        "audit": {"enabled": True, "existingClaim": "logs", "existingSecret": "log-key"},
        "detection": {
            "enabled": True,
            "rulesConfigMap": "own-rules",
            "triageUrl": "http://llm.internal:8000/v1",
            "triageModel": "small",
            "triageSecret": "llm-key",
        },
    }
    rendered = render(**values)
    text = rendered["ConfigMap", "weightlock-config"]["data"]
    settings = Config.model_validate(documents.load(text["controller.yaml"])).detection
    assert settings.enabled
    assert {("ConfigMap", settings.state), ("ConfigMap", settings.silences)} <= set(rendered)
    assert settings.triage.model == "small"
    assert "detection" not in documents.load(text["webhook.yaml"])
    pod = rendered["Deployment", "weightlock-controller"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["detections"]["mountPath"] == settings.rules
    assert settings.triage.key_file == f"{mounts['triage']['mountPath']}/key"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secret = {"secretName": "llm-key", "items": [{"key": "key", "path": "key"}]}
    assert volumes["triage"]["secret"] == secret
    rights = {
        (name, verb)
        for rule in rendered["Role", "weightlock-controller"]["rules"]
        if rule["resources"] == ["configmaps"]
        for name in rule["resourceNames"]
        for verb in rule["verbs"]
    }
    assert rights == {(settings.state, "get"), (settings.state, "patch"), (settings.silences, "get")}
    egress = rendered["NetworkPolicy", "weightlock-controller"]["spec"]["egress"]
    assert 8000 in {port["port"] for rule in egress for port in rule.get("ports", ())}


def test_the_audit_log_is_on_a_claim_with_a_key_from_a_secret(render):
    values = {
        "audit": {
            "enabled": True,
            "existingClaim": "logs",
            "existingSecret": "log-key",
            "witnessPorts": [7380],
        }
    }
    rendered = render(config={"audit": {"quorum": 1}}, **values)
    for component in ("webhook", "broker", "controller"):
        pod = rendered["Deployment", f"weightlock-{component}"]["spec"]["template"]["spec"]
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert volumes["audit"]["persistentVolumeClaim"]["claimName"] == "logs"
        assert volumes["audit-key"]["secret"]["secretName"] == "log-key"
        mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert mounts["audit-key"]["readOnly"]
        text = rendered["ConfigMap", "weightlock-config"]["data"][f"{component}.yaml"]
        settings = documents.load(text)["audit"]
        assert settings["directory"].startswith(mounts["audit"]["mountPath"])
        assert settings["key"].startswith(mounts["audit-key"]["mountPath"])
        assert (settings["quorum"], settings["cluster"]) == (1, "cluster")
        egress = rendered["NetworkPolicy", f"weightlock-{component}"]["spec"]["egress"]
        assert 7380 in {port["port"] for rule in egress for port in rule.get("ports", ())}


def test_the_audit_log_is_in_a_bucket_without_a_claim(render):
    audit = {
        "enabled": True,
        "bucket": "s3://logs/prod",
        "bucketSecret": "bucket",
        "existingSecret": "log-key",
        "witnessPorts": [443],
    }
    rendered = render(audit=audit)
    for component in ("webhook", "broker", "controller"):
        pod = rendered["Deployment", f"weightlock-{component}"]["spec"]["template"]["spec"]
        assert "audit" not in {each["name"] for each in pod["volumes"]}
        assert "audit" not in {each["name"] for each in pod["containers"][0]["volumeMounts"]}
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
        text = rendered["ConfigMap", "weightlock-config"]["data"][f"{component}.yaml"]
        assert documents.load(text)["audit"]["directory"] == "s3://logs/prod"
        egress = rendered["NetworkPolicy", f"weightlock-{component}"]["spec"]["egress"]
        assert 443 in {port["port"] for rule in egress for port in rule.get("ports", ())}


def test_helm_accepts_every_setting_of_the_program(render):
    """Every setting at its default, and a part of a type that needs more fields over what the chart gives them."""
    chart_sets = {"embedded", "listen", "metricsListen", "tls", "policies", "signing", "controller"}
    config = Config().model_dump(mode="json", by_alias=True)
    config["settings"].pop("exemptNamespaces")
    inputs = {key: value for key, value in config.items() if key not in chart_sets}
    # As `helm --set` gives a fraction.
    inputs["controller"] = {"certificates": {"checkSeconds": 5}, "settleSeconds": "0.5"}
    broker = BrokerSettings().model_dump(mode="json", by_alias=True)
    for key in ("challengeKey", "webhooks", "authorities", "record"):
        del broker[key]
    data = render(config=inputs, broker={"config": broker})["ConfigMap", "weightlock-config"]["data"]
    controller = Config.model_validate(documents.load(data["controller.yaml"])).controller
    assert (controller.certificates.check_seconds, controller.settle_seconds) == (5, 0.5)


def test_every_parameter_of_a_policy_can_be_set():
    """The values know the parameters by the ConfigMap that is shipped."""
    for name, policy in shipped().items():
        used = set(re.findall(r"params\.\??data\.\??(\w+)", json.dumps(policy)))
        file = CHART / "files" / "params" / f"{name}.yaml"
        assert used == (set(documents.load(file.read_text())["data"]) if file.exists() else set()), name


def test_the_readme_and_the_schema_hold_every_value():
    rows = set(re.findall(r"^\| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    described = [
        path for path in leaves(VALUES) if any(path == row or path.startswith(f"{row}.") for row in rows)
    ]
    groups = {row.rpartition(".")[0] for row in rows}
    assert set(leaves(VALUES)) - set(described) <= {g for group in groups for g in _ancestors(group)}
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in rows:
        node = schema
        for step in path.split("."):
            node = node["properties"][step]


def _ancestors(path):
    steps = path.split(".")
    return {".".join(steps[: n + 1]) for n in range(len(steps))}


def _decoded(text):
    return base64.b64decode(text)


def test_versions_agree_and_annotations_can_be_read():
    chart = documents.load((CHART / "Chart.yaml").read_text())
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
    image = f"{VALUES['image']['repository']}:{version}"
    notes = {
        key.removeprefix("artifacthub.io/"): documents.load(text)
        for key, text in chart["annotations"].items()
    }
    sidecar = f"{VALUES['image']['repository']}-sidecar:{version}"
    assert Injection().image == sidecar
    assert {each["image"] for each in notes["images"]} == {image, sidecar}
    assert (notes["category"], notes["license"]) == ("security", "Apache-2.0")
    definitions = [documents.load(file.read_text()) for file in (CHART / "files" / "crds").glob("*.yaml")]
    assert {(crd["name"], crd["kind"]) for crd in notes["crds"]} == {
        (each["metadata"]["name"], each["spec"]["names"]["kind"]) for each in definitions
    }
    assert {each["kind"] for each in notes["changes"]} <= {
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    }


def test_every_deployment_has_a_budget_that_leaves_room_for_a_drain(render):
    for values in ({}, documents.load((CHART / "values-ha.yaml").read_text())):
        objects = render(**values)
        budgets = {name: d["spec"] for (kind, name), d in objects.items() if kind == "PodDisruptionBudget"}
        assert set(budgets) == set(deployments(objects))
        for name, deployment in deployments(objects).items():
            assert budgets[name]["selector"] == deployment["spec"]["selector"]
            assert 1 <= budgets[name]["minAvailable"] < deployment["spec"]["replicas"]


def test_one_replica_has_no_budget_since_it_could_never_be_evicted(render):
    objects = render(
        webhook={"replicas": 1, "minAvailable": 1}, broker={"replicas": 3, "minAvailable": "60%"}
    )
    budgets = {name: d["spec"] for (kind, name), d in objects.items() if kind == "PodDisruptionBudget"}
    assert set(budgets) == {"weightlock-controller", "weightlock-broker"}
    assert budgets["weightlock-broker"]["minAvailable"] == "60%"


def test_values_for_high_availability_keep_replicas_apart(render):
    objects = render(**documents.load((CHART / "values-ha.yaml").read_text()))
    for deployment in deployments(objects).values():
        spec = deployment["spec"]["template"]["spec"]
        assert deployment["spec"]["replicas"] == 3
        constraints = {
            c["topologyKey"]: (c["whenUnsatisfiable"], c["maxSkew"])
            for c in spec["topologySpreadConstraints"]
        }
        assert constraints == {
            "kubernetes.io/hostname": ("DoNotSchedule", 1),
            "topology.kubernetes.io/zone": ("ScheduleAnyway", 1),
        }


def test_names_of_digits_stay_names(helm):
    """Unquoted, YAML takes them for numbers, and the API server refuses them."""
    name, number = "4711", 4711
    values = {
        "webhook": {"apiServerClient": {"caConfigMap": name}},
        "image": {"repository": name, "tag": name, "pullSecrets": [{"name": name}]},
        "priorityClassName": name,
        "exemptNamespaces": [name],
        "certificates": {"mode": "provided", "provided": {"webhookSecret": name, "brokerSecret": name}},
        "signing": {"existingSecret": name},
        "networkPolicy": {"metricsNamespaces": [name]},
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"a": name}},
            "rules": {"enabled": True},
            "dashboards": {"enabled": True, "namespace": name},
        },
        "apiServerManifests": {"url": "https://10.96.0.50"},
    }
    values["certificates"]["provided"]["caBundle"] = self_signed.make(["broker"]).authority.decode()
    for mode in ("provided", "selfManaged", "certManager", "selfSigned"):
        selection = {**values, "certificates": {**values["certificates"], "mode": mode}}
        if mode != "provided":
            selection |= {"apiServerManifests": {}, "signing": {}}
        done = helm("template", name, CHART, "-n", name, values=selection)
        assert done.returncode == 0, done.stderr
        for document in documents.load_all(done.stdout):
            assert number not in list(scalars(document)), document


def scalars(tree):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from scalars(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from scalars(item)
    else:
        yield tree


DETERMINISTIC = {
    "defaults": (),
    "zones": ("--values", str(CHART / "values-ha.yaml")),
    "cert-manager": ("--set", "certificates.mode=certManager"),
    "no broker": ("--set", "broker.enabled=false"),
}


@pytest.mark.parametrize("arguments", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_two_renders_are_the_same(helm, arguments):
    """Tools that render and compare, such as Argo CD, see no drift."""
    command = ("template", "weightlock", CHART, "-n", NAMESPACE)
    first, second = (helm(*command, *arguments) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_helm_deletes_the_pod_of_its_test(helm):
    done = helm("template", "weightlock", CHART, "-n", NAMESPACE)
    hooks = [
        document["metadata"]["annotations"]
        for document in documents.load_all(done.stdout)
        if document and (document["metadata"].get("annotations") or {}).get("helm.sh/hook") == "test"
    ]
    assert len(hooks) > 1
    for annotations in hooks:
        assert {"hook-succeeded", "hook-failed"} <= set(annotations["helm.sh/hook-delete-policy"].split(","))


SIDECARS = {
    "the published one": ({}, "ghcr.io/weightlock/weightlock-sidecar:{version}"),
    "of the same tag": ({"image": {"tag": "2"}}, "ghcr.io/weightlock/weightlock-sidecar:2"),
    "an image of one's own": ({"image": {"repository": "r/w", "tag": "2"}}, "r/w:2"),
    "a pinned image": (
        {"image": {"digest": "sha256:" + "a" * 64}},
        "ghcr.io/weightlock/weightlock@sha256:" + "a" * 64,
    ),
    "a pinned sidecar": (
        {"sidecar": {"image": {"digest": "sha256:" + "b" * 64}}},
        "ghcr.io/weightlock/weightlock-sidecar@sha256:" + "b" * 64,
    ),
    "another repository": ({"sidecar": {"image": {"repository": "r/s"}}}, "r/s:{version}"),
}


@pytest.mark.parametrize(("values", "expected"), SIDECARS.values(), ids=SIDECARS)
def test_pods_get_the_image_of_the_sidecar(render, values, expected):
    version = documents.load((CHART / "Chart.yaml").read_text())["appVersion"]
    text = render(**values)["ConfigMap", "weightlock-config"]["data"]["webhook.yaml"]
    assert documents.load(text)["settings"]["injection"]["image"] == expected.format(version=version)


FORMER = {
    "certificates.selfManaged.leafDays=80": "certificates.selfManaged.leafDays is renamed to certificateDays",
    "certificates.selfManaged.authorityDays=800": "certificates.selfManaged.authorityDays is renamed to caDays",
    "networkPolicy.keyServicePorts={8200}": "networkPolicy.keyServicePorts is renamed to kmsPorts",
}


@pytest.mark.parametrize(("value", "warning"), FORMER.items())
def test_a_former_name_of_a_value_warns(helm, value, warning):
    command = ("install", "weightlock", CHART, "-n", NAMESPACE, "--dry-run=client", "--set", value)
    done = helm(*command)
    assert done.returncode == 0, done.stderr
    assert f"the value {warning}" in done.stdout


def test_helm_test_has_the_rights_that_the_doctor_uses_and_no_other(helm, render):
    done = helm("template", "weightlock", CHART, "-n", NAMESPACE)
    # It evaluates the running pods as the broker does.
    evaluating = {
        f"{verb} {resource}"
        for _, resource, verb in rules_of(render(), "broker")
        if resource
        not in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations", "tokenreviews")
    }
    matches = {"ClusterRole": set(), "Role": set()}
    for document in documents.load_all(done.stdout):
        if document and document["metadata"]["name"] == "weightlock-test" and document["kind"] in matches:
            matches[document["kind"]] |= {
                f"{verb} {resource}"
                for rule in document["rules"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    assert matches == {
        "ClusterRole": {
            *evaluating,
            *("list nodes", "list pods", "create podtemplates", "list clusterpolicies"),
            *("get mutatingwebhookconfigurations", "get validatingwebhookconfigurations"),
            *("list mutatingwebhookconfigurations", "list mutatingadmissionpolicies"),
            *("get validatingadmissionpolicies", "get validatingadmissionpolicybindings"),
            *("get customresourcedefinitions", "list daemonsets", "get deployments", "list deployments"),
        },
        "Role": {"get leases", "get pods/proxy", "get services/proxy"},
    }


@pytest.mark.parametrize(
    ("policies", "gpus", "weights"),
    [
        ({}, "all: a pod gets one only if", "NONE YET: only volumes"),
        (
            {"gpus-need-entitlement": {"actions": ["Warn"]}},
            "NOT PROTECTED: policy gpus-need-entitlement only warns",
            "NONE YET: only volumes",
        ),
        (
            {"gpus-need-entitlement": {"enabled": False}, "weights-need-grant": {"actions": ["Audit"]}},
            "NOT PROTECTED: policy gpus-need-entitlement is OFF",
            "NOT PROTECTED: policy weights-need-grant only audits",
        ),
        ({"weights-need-grant": {"actions": ["Deny", "Audit"]}}, "all: a pod gets", "NONE YET: only volumes"),
    ],
)
def test_the_notes_claim_no_protection_that_the_policies_do_not_give(helm, policies, gpus, weights):
    dry = ("install", "weightlock", CHART, "-n", NAMESPACE, "--dry-run=client")
    done = helm(*dry, values={"policies": policies})
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert re.search(rf"^  GPUs         {re.escape(gpus)}", notes, re.MULTILINE), notes
    assert re.search(rf"^  weights      {re.escape(weights)}", notes, re.MULTILINE), notes


def test_the_notes_say_that_nothing_can_be_scraped(helm):
    def notes(**policy):
        values = {"monitoring": {"serviceMonitor": {"enabled": True}}, "networkPolicy": policy}
        return helm("install", "weightlock", CHART, "-n", NAMESPACE, "--dry-run=client", values=values).stdout

    assert "set networkPolicy.metricsNamespaces" in notes()
    assert "set networkPolicy.metricsNamespaces" not in notes(metricsNamespaces=["monitoring"])


def test_the_icon_is_a_picture_that_needs_no_fetching():
    icon = documents.load((CHART / "Chart.yaml").read_text())["icon"]
    head, _, body = icon.partition(",")
    assert head == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(_decoded(body)).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_platform_may_choose_the_user(render):
    selection = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    for deployment in deployments(render(podSecurityContext=selection)).values():
        assert deployment["spec"]["template"]["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_the_service_may_have_a_fixed_address(render):
    objects = render(webhook={"clusterIP": "10.96.0.50"})
    assert objects["Service", "weightlock-webhook"]["spec"]["clusterIP"] == "10.96.0.50"
    assert "clusterIP" not in render()["Service", "weightlock-webhook"]["spec"]


def test_manifests_for_api_servers_differ_in_name_and_address_only(render):
    objects = render(**PROVIDED, apiServerManifests={"url": "https://10.96.0.50/"})
    data = objects["ConfigMap", "weightlock-apiserver-manifests"]["data"]
    for file, kind in (
        ("validating.yaml", "ValidatingWebhookConfiguration"),
        ("mutating.yaml", "MutatingWebhookConfiguration"),
    ):
        manifest = documents.load(data[file])
        assert (manifest["kind"], manifest["metadata"]["name"]) == (kind, "weightlock.static.k8s.io")
        (webhook,) = manifest["webhooks"]
        (installed,) = objects[kind, "weightlock"]["webhooks"]
        address = webhook["clientConfig"].pop("url")
        path = installed["clientConfig"].pop("service")["path"]
        assert address == f"https://10.96.0.50{path}"
        assert webhook == installed
    assert ("ConfigMap", "weightlock-apiserver-manifests") not in render(**PROVIDED)


def test_the_pull_policy_reaches_the_sidecar(render):
    def policy(**values):
        text = render(**values)["ConfigMap", "weightlock-config"]["data"]
        sidecars = {
            documents.load(text[f"{part}.yaml"])["settings"]["injection"]["imagePullPolicy"]
            for part in ("webhook", "controller", "broker")
        }
        (only,) = sidecars
        return only

    assert policy() == "IfNotPresent"
    assert policy(image={"pullPolicy": "Always"}) == "Always"
    own = {"settings": {"injection": {"imagePullPolicy": "Never"}}}
    assert policy(image={"pullPolicy": "Always"}, config=own) == "Never"


@pytest.mark.parametrize("part", ["webhook", "controller", "broker"])
def test_a_component_gets_files_and_containers(render, part):
    volume = {"name": "vault-ca", "secret": {"secretName": "vault-ca"}}
    mount = {"name": "vault-ca", "mountPath": "/etc/vault", "readOnly": True}
    container = {"name": "agent", "image": "vault:1", "volumeMounts": [mount]}
    values = {"volumes": [volume], "volumeMounts": [mount], "extraContainers": [container]}
    plain = deployments(render())
    for name, deployment in deployments(render(**{part: values})).items():
        spec, before = (d["spec"]["template"]["spec"] for d in (deployment, plain[name]))
        if name != f"weightlock-{part}":
            assert spec == before
            continue
        assert spec["volumes"] == [*before["volumes"], volume]
        first, second = spec["containers"]
        assert first["volumeMounts"] == [*before["containers"][0]["volumeMounts"], mount]
        assert second == container


def test_volumes_and_containers_of_the_chart_are_not_replaced(render, refused):
    audit = {"audit": {"enabled": True, "existingClaim": "logs", "existingSecret": "keys"}}
    client = {"webhook": {"apiServerClient": {"caConfigMap": "client-ca"}}}
    detection = {"detection": {"enabled": True, "rulesConfigMap": "rules", "triageSecret": "llm-key"}}
    names = {
        volume["name"]
        for deployment in deployments(render(**audit, **client, **detection)).values()
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
    }
    check = (CHART / "templates" / "_check.tpl").read_text()
    listing = re.search(r"\$volumes := list (.*?) -", check)
    assert set(re.findall(r'"([a-z-]+)"', listing[1])) == names
    output = refused(broker={"volumes": [{"name": "tls", "emptyDir": {}}]})
    assert "broker.volumes: the chart has a volume tls: use another name" in output
    output = refused(webhook={"extraContainers": [{"name": "webhook", "image": "x"}]})
    assert "webhook.extraContainers: the chart has a container webhook: use another name" in output
    assert "mountPath" in refused(controller={"volumeMounts": [{"name": "x"}]})


CALLERS = {
    "addresses": {"networkPolicy": {"apiServerCIDRs": ["10.0.0.0/24"]}},
    "addresses in the configuration": {"config": {"callers": {"addresses": ["10.0.0.0/24"]}}},
    "certificates": {"webhook": {"apiServerClient": {"caConfigMap": "client-ca"}}},
    "tokens": {
        "config": {
            "callers": {
                "tokenConfigurations": ["weightlock"],
                "tokenAudiences": ["https://weightlock-webhook.weightlock-system.svc:443"],
            }
        }
    },
    "no proof, by the configuration": {"config": {"callers": {"allowUnauthenticated": True}}},
    "no proof, accepted": {"webhook": {"acceptUnauthenticatedCallers": True}},
}
UNPROVEN = {
    "nothing": {},
    "certificates that are not required": {
        "webhook": {"apiServerClient": {"caConfigMap": "client-ca"}},
        "config": {"callers": {"requireCertificate": False}},
    },
    "addresses that the configuration removes": {
        "networkPolicy": {"apiServerCIDRs": ["10.0.0.0/24"]},
        "config": {"callers": {"addresses": []}},
    },
}


@pytest.mark.parametrize("values", CALLERS.values(), ids=CALLERS)
def test_a_new_release_has_a_choice_of_its_callers(helm, values):
    done = helm("template", "weightlock", CHART, "-n", NAMESPACE, values=values, accepted=False)
    assert done.returncode == 0, done.stderr
    texts = [d["data"]["webhook.yaml"] for d in documents.load_all(done.stdout) if _is_config(d)]
    Config.model_validate(documents.load(texts[0]))


def _is_config(document):
    return bool(document) and (document["kind"], document["metadata"]["name"]) == (
        "ConfigMap",
        "weightlock-config",
    )


@pytest.mark.parametrize("values", UNPROVEN.values(), ids=UNPROVEN)
def test_a_new_release_without_a_choice_of_its_callers_is_rejected(refused, values):
    output = refused(accepted=False, **values)
    assert "accept the risk with webhook.acceptUnauthenticatedCallers=true" in output


def test_an_upgrade_without_a_choice_only_warns(helm):
    upgrade = ("template", "weightlock", CHART, "-n", NAMESPACE, "--is-upgrade")
    done = helm(*upgrade, accepted=False)
    assert done.returncode == 0, done.stderr


def test_the_webhook_reviews_tokens_only_if_callers_present_them(render):
    review = ("authentication.k8s.io", "tokenreviews", "create")
    assert review not in rules_of(render(), "webhook")
    assert review not in rules_of(render(**CALLERS["addresses"]), "webhook")
    objects = render(**CALLERS["tokens"])
    assert review in rules_of(objects, "webhook")
    assert review not in rules_of(objects, "controller")


DRILL = {"drill": {"schedule": "17 3 * * *", "ignore": ["WL512"]}}


def test_no_drill_is_scheduled_by_default(render):
    assert not [key for key in render() if "drill" in key[1]]


def test_a_scheduled_drill_runs_with_its_own_rights_only(render):
    objects = render(**DRILL)
    name = "weightlock-drill"
    spec = objects["CronJob", name]["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"], pod["serviceAccountName"]) == (
        "17 3 * * *",
        "Forbid",
        name,
    )
    (container,) = pod["containers"]
    assert {"--in-cluster", f"--drill-namespace={name}", f"--model={name}", "--ignore=WL512"} <= set(
        container["args"]
    )
    assert container["securityContext"]["readOnlyRootFilesystem"]
    config = documents.load(objects["ConfigMap", "weightlock-config"]["data"]["controller.yaml"])
    assert config["controller"]["drills"] == {"record": name, "periodSeconds": 86400}
    assert objects["ResourceQuota", "nothing-runs"]["spec"]["hard"]["pods"] == "0"
    assert objects["ResourceQuota", "nothing-runs"]["metadata"]["namespace"] == name
    rights = {
        (group, resource, verb, ",".join(rule.get("resourceNames", ())))
        for rule in objects["ClusterRole", name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # In the whole cluster it writes nothing that could run or be read, except by dry run.
    assert {item for item in rights if item[2] not in ("get", "list")} == {
        ("weightlock.dev", "modelweights", "create", ""),
        ("weightlock.dev", "modelweights", "delete", name),
        ("weightlock.dev", "modelweights", "weaken", name),
        ("weightlock.dev", "accessrequests", "create", ""),
        ("weightlock.dev", "accessapprovals", "create", ""),
    }
    assert {item[1] for item in rights if item[2] == "list"} == {"nodes", "deviceclasses", "csidrivers"}
    assert all(item[3] for item in rights if item[2] == "get")


def test_the_drill_creates_workloads_in_its_own_namespace_only(render, helm):
    done = helm("template", "weightlock", CHART, "-n", NAMESPACE, values={**PROVIDED, **DRILL})
    roles = [
        document
        for document in documents.load_all(done.stdout)
        if document and document["kind"] == "Role" and document["metadata"]["name"] == "weightlock-drill"
    ]
    creates = {
        role["metadata"]["namespace"]: {verb for rule in role["rules"] for verb in rule["verbs"]}
        for role in roles
    }
    assert creates == {"weightlock-drill": {"create"}, NAMESPACE: {"get", "patch"}}
    secrets = [rule for role in roles for rule in role["rules"] if "secrets" in rule["resources"]]
    assert secrets == []


@pytest.mark.parametrize("ignored", ["all", "WL5", "*"])
def test_only_codes_can_be_ignored(refused, ignored):
    assert "ignore" in refused(**PROVIDED, drill={"schedule": "@daily", "ignore": [ignored]})
