"""The chart on a real API server: accepted as rendered, and its whole life, from an older version to removal and back.

Pods cannot run here, so the parts run as local processes: see `harness.release`. The webhook of the older chart is the
current program, too, with the older configuration and policies, and the older rights beside those for what it watches.
"""

import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import manifests
from harness.cluster import Cluster
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.lab import Lab
from harness.release import CHART, NAME, NAMESPACE, SECRETS, Release, pod, previous_chart, signed_request
from harness.waiting import eventually

from webhook.cluster.controller.run import RECONCILE_SECONDS
from webhook.core.integrity.drift import DEFINITION_DEFAULTS, difference

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LONG = pytest.mark.skipif(os.environ.get("WEIGHTLOCK_E2E_LONG") != "1", reason="takes minutes: make e2e-long")
# Values of 0.2.0 that have another name since.
FORMER_VALUES = ("certificates.selfManaged.leafDays=80", "networkPolicy.keyServicePorts={8200}")


@pytest.fixture
def release(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Release]:
    cluster = new_control_plane(Options())
    matches = Release(cluster)
    yield matches
    matches.stop()
    cluster.stop()


def render(cluster: Cluster, namespace: str, *arguments: str) -> str:
    return cluster.helm("template", NAME, str(CHART), "-n", namespace, *arguments).ok().stdout


def cert_manager_type(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A stand-in for a CRD of cert-manager with only the fields that the chart writes, so any other is an error."""
    plural = f"{kind.lower()}s"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": spec}},
        "required": ["spec"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


def fields(*names: str, **others: Any) -> dict[str, Any]:
    """Fields of text, and others as they are given."""
    return {**{name: {"type": "string"} for name in names}, **others}


def holding(**properties: Any) -> dict[str, Any]:
    """An object with these fields."""
    return {"type": "object", "properties": properties}


# github.com/cert-manager/cert-manager pkg/apis/certmanager/v1
CERT_MANAGER = (
    cert_manager_type(
        "Issuer", {"selfSigned": {"type": "object"}, "ca": holding(secretName={"type": "string"})}
    ),
    cert_manager_type(
        "Certificate",
        fields(
            *("commonName", "duration", "renewBefore", "secretName"),
            isCA={"type": "boolean"},
            dnsNames={"type": "array", "items": {"type": "string"}},
            issuerRef=holding(**fields("name", "kind", "group")),
            privateKey=holding(**fields("algorithm", "rotationPolicy", size={"type": "integer"})),
        ),
    ),
)


@pytest.fixture
def cert_manager_types(own_control_plane: ControlPlane) -> Iterator[None]:
    """The types of cert-manager, as far as the chart uses them, while the test runs."""
    own_control_plane.apply(*CERT_MANAGER)
    names = [f"crd/{each['metadata']['name']}" for each in CERT_MANAGER]
    own_control_plane.kubectl("wait", *names, "--for=condition=Established", "--timeout=30s").ok()
    yield
    own_control_plane.kubectl("delete", *names).ok()


PROVIDED = (
    "certificates.mode=provided,certificates.provided.webhookSecret=w,certificates.provided.brokerSecret=b"
)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (
            "--set=webhook.apiServerClient.caConfigMap=apiserver-ca",
            "--set=networkPolicy.apiServerCIDRs={10.0.0.0/28}",
            f"--values={CHART / 'values-ha.yaml'}",
        ),
        ("--set=webhook.url=https://weightlock.example.com:8443", "--set=broker.enabled=false"),
        ("--set=podSecurityContext.runAsUser=null", "--set=webhook.clusterIP=10.96.77.77"),
        (
            f"--set={PROVIDED}",
            "--set=apiServerManifests.url=https://10.96.77.77",
            "--set-file=certificates.provided.caBundle={ca}",
        ),
        ("--set=certificates.mode=selfSigned", "--set=controller.enabled=false"),
        ("--set=certificates.mode=certManager",),
    ],
    ids=["defaults", "closed", "outside", "chosen", "provided", "self-signed", "cert-manager"],
)
@pytest.mark.usefixtures("cert_manager_types")
def test_the_api_server_accepts_the_rendered_manifests(
    own_control_plane: ControlPlane, namespace: str, arguments: tuple[str, ...]
) -> None:
    inputs = [argument.replace("{ca}", str(own_control_plane.ca)) for argument in arguments]
    rendered = render(own_control_plane, namespace, "--set", f"fullnameOverride=chart-{namespace}", *inputs)
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    for document in documents:
        if document["kind"] == "Pod":
            # A dry run makes no service account for it.
            document["spec"]["serviceAccountName"] = "default"
    apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"]
    done = own_control_plane.kubectl(*apply, stdin=documents).ok()
    assert len(done.stdout.splitlines()) == len(documents)
    # A field that the API server does not know is dropped with a warning.
    assert "unknown field" not in done.stderr


def test_it_refuses_the_system_namespace(control_plane: Cluster) -> None:
    output = control_plane.helm("install", NAME, str(CHART), "-n", "kube-system").failed()
    assert "cannot install Weightlock into kube-system" in output
    assert control_plane.helm("list", "-n", "kube-system", "-q").ok().stdout.strip() == ""


@LONG
@pytest.mark.parametrize("before", ["0.1.0", "0.2.0"])
def test_its_life(release: Release, before: str) -> None:
    cluster = release.cluster
    previous = previous_chart(before)
    former = FORMER_VALUES if before == "0.2.0" else ()
    # The older webhook configuration covers CRDs, and its webhook does not run yet.
    cluster.apply(*watched_since(NAME, previous))
    assert f"Weightlock {before} is installed" in release.helm("install", *former, chart=previous)
    namespace = cluster.new_namespace()

    # No webhook answers yet: enforced namespaces are closed.
    status, message = release.create(namespace, pod("early"))
    assert (status, "failed calling webhook" in message) == (500, True)

    # From 0.2.0 on the controller makes the keys and the certificates. The current one then leaves: it would take the
    # CRDs of that version for changed ones.
    if before != "0.1.0":
        controller = release.start("controller")
        release.pair("webhook")
        release.start("webhook")
        controller.stop(grace=10.0)
    else:
        release.start("webhook")
    release.wait_admitting(namespace)
    assert "[WL201]" in release.create(namespace, pod("gpu", container=GPU))[1]
    lab = Lab(cluster, namespace, approvals=1).build()
    # By code and model: the sentence is that of the older chart's policies.
    eventually(lambda: denied_reader(lab), "a reader is denied")

    upgraded(release, lab, previous, former)
    keeps_and_signs(release, lab)
    rolled_back(release, lab, previous)
    uninstalled(release, lab)
    installed_again(release, lab)


def denied_reader(lab: Lab) -> bool:
    """Whether a pod is denied because it would read the lab's weights."""
    message = lab.try_pod(dry=True).message
    return "[WL101]" in message and f'model "{lab.model}"' in message


def watched_since(name: str, previous: Path) -> list[dict[str, Any]]:
    """The CRDs that the current program watches and the older chart lacks, and the rights to watch them.

    An upgrade by Helm creates CRDs before it replaces pods. Here, the current program runs before the upgrade.
    """
    older = {each["metadata"]["name"] for each in crds_in(previous)}
    definitions = [each for each in manifests.crds() if each["metadata"]["name"] not in older]
    for each in definitions:
        # Helm takes over no object of another owner.
        each["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
        each["metadata"]["annotations"] = {
            "meta.helm.sh/release-name": name,
            "meta.helm.sh/release-namespace": NAMESPACE,
        }
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {
            "apiGroups": [""],
            "resources": ["limitranges", "pods", "resourcequotas"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["weightlock.dev"],
            "resources": [each["spec"]["names"]["plural"] for each in definitions],
            "verbs": ["list", "watch"],
        },
    ]
    head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": f"{name}-webhook-since"}}
    subjects = [
        {"kind": "ServiceAccount", "name": f"{name}-{part}", "namespace": NAMESPACE}
        for part in ("webhook", "controller")
    ]
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": f"{name}-webhook-since"}
    return [
        *definitions,
        {**head, "kind": "ClusterRole", "rules": rules},
        {**head, "kind": "ClusterRoleBinding", "subjects": subjects, "roleRef": role},
    ]


def agent_of(lab: Lab, name: str) -> bool:
    """Whether a pod that was just created has the key sidecar."""
    produced = lab.try_pod(name).ok()
    return [each["name"] for each in produced["spec"].get("initContainers", ())] == ["weightlock-agent"]


def keeps_and_signs(release: Release, lab: Lab) -> None:
    """Controller and broker work under the rights the chart gave them: a grant is signed, a webhook restored."""
    eventually(lambda: release.controller_says("/readyz") == (200, "ready\n"), "the controller is ready")
    for line in (
        "weightlock_controller_leader 1.0\n",
        "weightlock_controller_last_reconcile_timestamp_seconds ",
    ):
        eventually(
            lambda line=line: f"\n{line}" in release.controller_says("/metrics")[1],  # type: ignore[misc]
            f"its metrics say {line}",
        )
    release.cluster.client().delete(WEBHOOK_PATHS[0])
    eventually(lambda: release.webhooks() == [200, 200], "the controller puts a webhook configuration back")
    eventually(lambda: restored(release) == 1, "it counts that")
    release.start("broker")
    eventually(lambda: release.status("broker") == 200, "the broker is ready")
    granted(lab)
    assert agent_of(lab, "granted")
    for part in release.parts.values():
        assert "forbidden" not in part.log.read_text().lower()


def granted(lab: Lab) -> None:
    """A request of alice's and a vote of bob's, both signed by the controller."""
    request = signed_request(lab, "50m")
    eventually(lambda: lab.vote(request, "bob").status == 201, "bob may approve", every=0.5)
    eventually(lab.is_admitted, "the pod is admitted", every=0.5)


def injection(release: Release, part: str) -> dict[str, Any]:
    """The settings of the sidecar in a part's configuration."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-config"
    data = release.cluster.client().get(path).ok()["data"]
    matches: dict[str, Any] = yaml.safe_load(data[f"{part}.yaml"])["settings"]["injection"]
    return matches


def has_crds(release: Release, definitions: Sequence[dict[str, Any]]) -> bool:
    """Whether the CRDs of the cluster are these, but for the API server's defaults."""
    for expected in definitions:
        path = f"{CRD_PATH}/{expected['metadata']['name']}"
        actual = release.cluster.client().get(path).ok()
        if difference(expected["spec"], actual["spec"], DEFINITION_DEFAULTS) is not None:
            return False
    return True


def crds_in(chart: Path) -> list[dict[str, Any]]:
    """The CRDs in a packaged chart."""
    with tarfile.open(chart) as archive:
        names = [name for name in archive.getnames() if "/files/crds/" in name and name.endswith(".yaml")]
        return [yaml.safe_load(archive.extractfile(name)) for name in names]  # type: ignore[arg-type]


def keys_of(release: Release) -> dict[str, dict[str, bytes]]:
    """The keys in the Secrets of the release that exist and are filled."""
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    names = {item["metadata"]["name"] for item in release.cluster.client().get(path).ok()["items"]}
    matches = {name: release.filled(name) for name in SECRETS.values() if name in names}
    return {name: files for name, files in matches.items() if files}


def upgraded(release: Release, lab: Lab, previous: Path, former: Sequence[str]) -> None:
    """CRDs, policies and webhooks follow the chart and its values; keys stay."""
    assert has_crds(release, crds_in(previous))
    assert not has_crds(release, manifests.crds())
    before = keys_of(release)
    # As docs/install.md says it: the values that were given, and the defaults of the new chart.
    documented = ["upgrade", NAME, str(CHART), "-n", NAMESPACE, "--dry-run=server"]
    output = release.cluster.helm(*documented, "--reset-then-reuse-values").ok().stdout
    for value in former:
        assert f"the value {value.partition('=')[0]} is renamed to " in output
    # Without the defaults of the new chart: a name that is gone, or a value that is missing.
    output = release.cluster.helm(*documented, "--reuse-values").failed()
    assert "additional properties" in output or "nil pointer" in output
    output = release.helm(
        "upgrade",
        "policies.gpus-need-entitlement.enabled=false",
        "exemptNamespaces={kube-system,gpu-operator}",
        *former,
    )
    assert "OFF          gpus-need-entitlement" in output
    assert has_crds(release, manifests.crds())
    assert all("gpu-operator" in names for names in release.exempt())
    assert {name: keys_of(release).get(name) for name in before} == before
    # What runs keeps its keys; what is created gets the new sidecar.
    images = {part: injection(release, part) for part in ("broker", "webhook")}
    version = previous.stem.removeprefix("weightlock-")
    assert images["broker"]["previousImages"] == [f"ghcr.io/weightlock/weightlock:{version}"]
    assert images["broker"]["image"] == f"ghcr.io/weightlock/weightlock-sidecar:{chart_version()}"
    assert "previousImages" not in images["webhook"]
    # The previous CA stays trusted: no request is denied while the controller introduces its own.
    release.wait_admitting(lab.namespace)
    release.start("controller")
    release.pair("webhook")
    release.wait_admitting(lab.namespace)
    release.restart("webhook")
    release.wait_admitting(lab.namespace)
    assert release.create(lab.namespace, pod("gpu", container=GPU))[0] == 201


def restored(release: Release) -> float:
    """The number of webhook configurations that the controller reports as restored."""
    display = release.controller_says("/metrics")[1]
    matches = re.search(r"^weightlock_webhook_configurations_restored_total (\S+)$", display, re.MULTILINE)
    return float(matches[1]) if matches else 0


def rolled_back(release: Release, lab: Lab, previous: Path) -> None:
    """The older version is back with its policies, and no key or grant was lost; and so is, then, the newer."""
    # An older chart brings an older controller, which does not ask for what only the newer may see.
    release.parts["controller"].stop(grace=10.0)
    before = keys_of(release)
    release.rollback(1)
    assert has_crds(release, crds_in(previous))
    assert all("gpu-operator" not in names for names in release.exempt())
    # The older chart has no stamps, so it takes their key away.
    before.pop(SECRETS["stamp"], None)
    assert keys_of(release) == before
    release.restart("webhook")
    release.wait_admitting(lab.namespace)
    assert "[WL201]" in release.create(lab.namespace, pod("gpu-again", container=GPU))[1]
    eventually(lab.is_admitted, "the grant counts")
    release.rollback(2)
    assert has_crds(release, manifests.crds())
    release.start("controller")
    release.restart("webhook")
    eventually(lambda: release.controller_says("/readyz") == (200, "ready\n"), "the controller is ready")


def uninstalled(release: Release, lab: Lab) -> None:
    """Nothing stays that would close the cluster, though the controller still runs; people's objects stay."""
    release.uninstall()
    release.parts["webhook"].stop(grace=10.0)
    release.parts["broker"].stop(grace=10.0)
    controller = release.parts["controller"]
    eventually(lambda: "forbidden" in controller.log.read_text().lower(), "the controller may do no more")
    assert release.webhooks() == [404, 404], controller.log.read_text()
    assert release.create(lab.namespace, pod("after"))[0] == 201
    remaining = release.cluster.kubectl(
        "get", "modelweights,accessrequests,accessapprovals", "-o", "name"
    ).ok()
    kinds = {line.partition(".")[0] for line in remaining.stdout.split()}
    assert kinds == {"modelweights", "accessrequest", "accessapproval"}
    # A controller of this installation would be gone before the next one.
    controller.stop(grace=10.0)


def installed_again(release: Release, lab: Lab) -> None:
    """A second installation takes over what was kept: the grant that the first one signed still counts."""
    output = release.helm("install")
    assert f"1: {lab.model} (frontier)" in output
    assert release.webhooks() == [200, 200]
    release.start("controller")
    release.start("webhook")
    release.wait_admitting(lab.namespace)
    eventually(lab.is_admitted, "the grant counts")
    assert agent_of(lab, "granted-again")


EVERYTHING = (
    "clusterrolebindings,clusterroles,configmaps,crds,deployments,leases,mutatingwebhookconfigurations,networkpolicies,"
    "poddisruptionbudgets,pods,rolebindings,roles,secrets,serviceaccounts,services,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings,validatingwebhookconfigurations"
)


def everything(cluster: Cluster) -> set[str]:
    """Every object of the kinds that a release has, by kind and name."""
    matches = cluster.kubectl("get", EVERYTHING, "-A", "-o", "json", "--ignore-not-found").ok().stdout
    items = json.loads(matches)["items"] if matches else []
    return {f"{item['kind']} {item['metadata']['name']}" for item in items}


def identity(document: dict[str, Any]) -> dict[str, Any]:
    """What makes an object one of a release, and what it says."""
    metadata = {field: document["metadata"].get(field) for field in ("labels", "annotations")}
    return {**metadata, "webhooks": document.get("webhooks"), "spec": document.get("spec")}


@LONG
def test_an_uninstall_after_a_restore_leaves_only_the_listed_objects(release: Release) -> None:
    """A restored object belongs to the release, and objects that the components made are removed with it."""
    cluster = release.cluster
    client = cluster.client()
    cluster.kubectl("create", "namespace", NAMESPACE).ok()
    eventually(lambda: "ConfigMap kube-root-ca.crt" in everything(cluster), "the namespace is ready")
    before = everything(cluster)
    release.helm("install")
    release.start("controller")
    release.start("webhook")
    controller = release.parts["controller"]
    eventually(lambda: '"became leader"' in controller.log.read_text(), "the controller leads")
    paths = (*WEBHOOK_PATHS, f"{CRD_PATH}/modelweights.weightlock.dev")
    eventually(lambda: release.controller_says("/readyz")[0] == 200, "the controller is ready")
    time.sleep(3 * RECONCILE_SECONDS)
    installed = {path: identity(client.get(path).ok()) for path in paths}
    assert all("meta.helm.sh/release-name" in each["annotations"] for each in installed.values())

    def restored(path: str) -> bool:
        answer = client.get(path)
        return answer.status == 200 and identity(answer.body) == installed[path]

    for path in WEBHOOK_PATHS:
        client.delete(path).ok()
    eventually(lambda: all(map(restored, WEBHOOK_PATHS)), "the configurations are as Helm installed them")
    losses = {
        field: dict.fromkeys(
            name for name in installed[paths[-1]][field] if "helm" in name or "managed-by" in name
        )
        for field in ("labels", "annotations")
    }
    losses["labels"].pop("helm.sh/chart", None)
    losses["annotations"].pop("helm.sh/resource-policy", None)
    for path in paths:
        client.patch(path, {"metadata": losses}).ok()
    eventually(lambda: all(map(restored, paths)), "their metadata is back, that of a CRD too")
    lease = client.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}-controller").ok()
    assert [owner["name"] for owner in lease["metadata"]["ownerReferences"]] == [f"{NAME}-record"]

    controller.stop(grace=10.0)
    output = release.uninstall().stdout
    definitions = {f"CustomResourceDefinition {each['metadata']['name']}" for each in manifests.crds()}
    remaining = {*definitions, f"Secret {SECRETS['signing']}"}
    for each in remaining:
        assert f"[{each.partition(' ')[0]}] {each.partition(' ')[2]}" in output, output
    eventually(lambda: everything(cluster) - before == remaining, "nothing else is left", seconds=60)


def chart_version() -> str:
    """The chart's version."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])


def test_keys_are_made_once_and_are_in_no_manifest(release: Release) -> None:
    """Helm installs their Secrets empty, and no upgrade or rollback takes away what the controller put there."""
    release.helm("install")
    release.start("controller")
    produced = {name: eventually(lambda name=name: release.filled(name), name) for name in SECRETS.values()}  # type: ignore[misc]
    # No webhook answers here, and it is asked about the types.
    release.helm("upgrade", "crds.install=false")
    assert {name: release.data("secrets", name) for name in SECRETS.values()} == produced
    release.helm("upgrade", "crds.install=false", "controller.replicas=3")
    release.rollback(2)
    assert {name: release.data("secrets", name) for name in SECRETS.values()} == produced
    for revision in ("1", "2", "3", "4"):
        display = release.cluster.helm("get", "manifest", NAME, "-n", NAMESPACE, "--revision", revision).ok()
        secrets = [d for d in yaml.safe_load_all(display.stdout) if d and d["kind"] == "Secret"]
        assert {each["metadata"]["name"] for each in secrets if not each.get("data")} >= set(SECRETS.values())
    # The signing key stays for the installation to come, which leaves it as it is.
    release.uninstall()
    release.helm("install")
    assert release.data("secrets", SECRETS["signing"]) == produced[SECRETS["signing"]]


def test_notes_are_as_the_documents_show_them(release: Release, update_golden: bool) -> None:
    """What a newcomer sees on a cluster that is new, too."""
    command = ["install", NAME, str(CHART), "-n", NAMESPACE, "--create-namespace", "--dry-run=server"]
    output = release.cluster.helm(*command).ok().stdout
    page = CHART.parents[1] / "docs" / "install.md"
    display = f"```text\n{output.partition('NOTES:')[2].strip()}\n```\n"
    before, _, rest = page.read_text().partition("<!-- notes -->\n")
    matches, _, after = rest.partition("<!-- /notes -->")
    if update_golden:
        page.write_text(f"{before}<!-- notes -->\n{display}<!-- /notes -->{after}")
        return
    assert matches == display
