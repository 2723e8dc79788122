"""The write patterns of controllers and GitOps tools, with the shipped policies: admitted, and no attack with them.

Each test is one situation: a template before its claim, a dry run of a whole stage, a queue that un-suspends a Job, a
placeholder, a cluster-scoped template, an assembled component, a custom resource with nulls.
"""

from copy import deepcopy
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from webhook.api.config import Settings
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, review

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
POLICIES = list(read_path(shipped_policies()))
KUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
FLUX = "system:serviceaccount:flux-system:kustomize-controller"


def rbac(kind, name, **fields):
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "ml"},
        **fields,
    }


def user(name):
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def bound(name, subject):
    return rbac(
        "RoleBinding",
        name,
        subjects=[subject],
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    )


def claim(name, namespace="ml"):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "disks",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


STATE = [
    *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("ml", "web")),
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "server", "namespace": "ml"}},
    {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "disks"},
        "provisioner": "disk.example.com",
    },
    {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "llama"},
        "spec": {
            "sensitivity": "internal",
            "volumes": [{"persistentVolumeClaim": {"namespaces": ["ml"], "names": ["llama*"]}}],
            "access": {"approvals": 1, "approvers": {"users": ["carol"]}},
        },
    },
    claim("llama"),
    claim("scratch"),
    rbac(
        "Role",
        "use-server",
        rules=[
            {
                "apiGroups": [""],
                "resources": ["serviceaccounts"],
                "resourceNames": ["server"],
                "verbs": ["use"],
            }
        ],
    ),
    bound("use-server", user("alice")),
    rbac(
        "Role",
        "gpus",
        rules=[
            {
                "apiGroups": ["weightlock.dev"],
                "resources": ["accelerators"],
                "resourceNames": ["nvidia.com"],
                "verbs": ["use"],
            }
        ],
    ),
    bound("gpus", {"kind": "ServiceAccount", "name": "server", "namespace": "ml"}),
    {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessRequest",
        "metadata": {"name": "r", "uid": "r-1", "creationTimestamp": "2026-11-29T11:00:00Z"},
        "spec": {
            "model": "llama",
            "subject": {"kind": "ServiceAccount", "namespace": "ml", "name": "server"},
            "namespaces": ["ml"],
            "duration": "8h",
            "reason": "serving",
            "requester": {"username": "alice"},
        },
    },
    {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessApproval",
        "metadata": {"name": "a", "creationTimestamp": "2026-11-29T11:01:00Z"},
        "spec": {
            "request": {"name": "r", "uid": "r-1"},
            "decision": "Approve",
            "approver": {"username": "carol"},
        },
    },
]


@pytest.fixture(scope="module")
def provider():
    manifests = [*POLICIES, *(Manifest("state", document) for document in STATE)]
    return ManifestProvider(manifests, Settings(), now=NOW)


@pytest.fixture(scope="module")
def decide(provider):
    """The verdict on one request: allowed, the codes of its denials, the codes of its warnings."""

    def call(document, username="alice", operation="CREATE", old=None, dry_run=False, apply=False, plural=""):
        group, _, version = document["apiVersion"].rpartition("/")
        resource = plural or f"{document['kind'].lower()}s"
        namespace = document["metadata"].get("namespace", "")
        request = {
            "uid": "u",
            "kind": {"group": group, "version": version, "kind": document["kind"]},
            "resource": {"group": group, "version": version, "resource": resource},
            "operation": operation,
            "name": document["metadata"].get("name", ""),
            "userInfo": {"username": username, "groups": ["system:authenticated"]},
            "object": document,
            "oldObject": old,
            "dryRun": dry_run,
        }
        if namespace:
            request["namespace"] = namespace
        recorded = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        verdict = review(Manifest("test", recorded), Requester(), provider, NOW, apply=apply).verdict
        return (
            verdict.allowed,
            sorted({finding.code for finding in verdict.denials}),
            {finding.code for finding in verdict.warnings} - {"WL304", "WL143"},
        )

    return call


def pod_spec(claim_name="", account="server", **fields):
    spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "train:1"}]}
    if claim_name:
        spec["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]
    return spec | fields


def job(spec, **template):
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "finetune", "namespace": "ml"},
        "spec": {
            "suspend": True,
            "template": {"metadata": {"labels": {"app": "finetune"}, **template}, "spec": spec},
        },
    }


def pod(spec, namespace="ml"):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": spec,
    }


def deployment(spec, namespace="web"):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {}, "template": {"metadata": {}, "spec": spec}},
    }


class TestReferencesThatDoNotExistYet:
    def test_a_template_is_admitted_with_a_warning_and_its_pod_is_decided(self, decide):
        spec = pod_spec("later", account="default")
        assert decide(deployment(spec), FLUX) == (True, [], {"WL105"})
        assert decide(pod(spec, "web"), FLUX) == (False, ["WL102"], set())

    def test_a_stage_of_dry_runs_is_admitted(self, decide):
        """Flux and Terraform send every object of a stage as a dry run first, and nothing is stored."""
        spec = pod_spec("later", account="default")
        for document in (claim("later", "web"), deployment(spec), pod(spec, "web")):
            allowed, codes, _ = decide(
                document,
                FLUX,
                dry_run=True,
                plural="persistentvolumeclaims" if document["kind"] == "PersistentVolumeClaim" else "",
            )
            assert (allowed, codes) == (True, [])
        assert decide(pod(spec, "web"), FLUX, dry_run=True)[2] == {"WL105"}
        assert decide(pod(spec, "web"), FLUX)[0] is False

    def test_a_dry_run_of_a_claim_with_a_missing_source(self, decide):
        restored = claim("copy", "web")
        restored["spec"]["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": "later",
        }
        plural = "persistentvolumeclaims"
        assert decide(restored, FLUX, dry_run=True, plural=plural)[0] is True
        assert decide(restored, FLUX, plural=plural)[0] is False

    def test_a_claim_of_a_device_that_does_not_exist_yet(self, decide):
        spec = pod_spec(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "later"}])
        assert decide(job(spec)) == (True, [], {"WL205"})
        assert decide(pod(spec), dry_run=True) == (True, [], {"WL205"})
        assert decide(pod(spec))[0] is False

    def test_known_weights_of_a_template_are_decided_now(self, decide):
        spec = pod_spec("llama")
        spec["volumes"].append({"name": "other", "persistentVolumeClaim": {"claimName": "later"}})
        assert decide(job(spec)) == (True, [], {"WL105"})
        assert decide(job(spec), "mallory") == (False, ["WL103"], {"WL105"})

    def test_a_name_that_a_pattern_protects_is_decided_now(self, decide):
        assert decide(job(pod_spec("llama-new", account="default"))) == (False, ["WL101"], set())

    def test_a_missing_claim_does_not_give_access_to_the_account(self, decide):
        assert decide(job(pod_spec("later")), "mallory") == (False, ["WL141"], {"WL105"})


class TestUpdatesOfTemplates:
    ADD_NOTHING: ClassVar = {
        "a label": lambda spec, meta: meta["labels"].update({"kueue.x-k8s.io/podset": "main"}),
        "an annotation": lambda spec, meta: meta.update(
            annotations={"kubectl.kubernetes.io/restartedAt": "now"}
        ),
        "a node selector": lambda spec, meta: spec.update(nodeSelector={"accelerator": "h100"}),
        "tolerations": lambda spec, meta: spec.update(tolerations=[{"key": "gpu", "operator": "Exists"}]),
        "an affinity": lambda spec, meta: spec.update(affinity={"nodeAffinity": {}}),
        "a scheduling gate": lambda spec, meta: spec.update(
            schedulingGates=[{"name": "kueue.x-k8s.io/topology"}]
        ),
        "a priority": lambda spec, meta: spec.update(priorityClassName="high"),
        "fewer devices": lambda spec, meta: spec["containers"][0]["resources"]["limits"].update(
            {"nvidia.com/gpu": "1"}
        ),
        "no devices": lambda spec, meta: spec["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu"),
        "more memory": lambda spec, meta: spec["containers"][0]["resources"]["limits"].update(memory="64Gi"),
        "another spelling": lambda spec, meta: spec["containers"][0]["resources"]["limits"].update(
            {"nvidia.com/gpu": 2}
        ),
        "values that Kubernetes fills in": lambda spec, meta: spec.update(
            dnsPolicy="ClusterFirst", schedulerName="default-scheduler", securityContext={}, initContainers=[]
        ),
        "fields that a typed client writes": lambda spec, meta: spec["containers"][0].update(
            command=[], lifecycle=None, terminationMessagePolicy="File", securityContext={}
        ),
        "the mark of Reloader": lambda spec, meta: spec["containers"][0].update(
            env=[{"name": "STAKATER_APP_CONFIGMAP", "value": "da39a3ee5e6b4b0d"}]
        ),
    }
    ADD: ClassVar = {
        "a command": lambda spec, meta: spec["containers"][0].update(command=["cat", "/model"]),
        "arguments": lambda spec, meta: spec["containers"][0].update(args=["--dump"]),
        "an image": lambda spec, meta: spec["containers"][0].update(image="evil"),
        "a variable": lambda spec, meta: spec["containers"][0].update(
            env=[{"name": "LD_PRELOAD", "value": "/x"}]
        ),
        "a variable in disguise": lambda spec, meta: spec["containers"][0].update(
            env=[{"name": "STAKATER_APP_CONFIGMAP", "value": "/tmp/x.so"}]
        ),
        "a variable from a map": lambda spec, meta: spec["containers"][0].update(
            envFrom=[{"configMapRef": {"name": "x"}}]
        ),
        "a container": lambda spec, meta: spec["containers"].append({"name": "x", "image": "evil"}),
        "an init container": lambda spec, meta: spec.update(initContainers=[{"name": "x", "image": "evil"}]),
        "a probe": lambda spec, meta: spec["containers"][0].update(
            livenessProbe={"exec": {"command": ["x"]}}
        ),
        "a working directory": lambda spec, meta: spec["containers"][0].update(workingDir="/x"),
        "another account": lambda spec, meta: spec.update(serviceAccountName="default"),
        "a runtime annotation": lambda spec, meta: meta.update(
            annotations={"io.kubernetes.cri-o.Devices": "/dev/x"}
        ),
        "an injector's image": lambda spec, meta: meta.update(
            annotations={"sidecar.istio.io/proxyImage": "evil"}
        ),
        "an unknown injector": lambda spec, meta: meta.update(
            annotations={"vault.security.banzaicloud.io/vault-env-image": "evil"}
        ),
        "a node": lambda spec, meta: spec.update(nodeName="node-1"),
        "another policy of DNS": lambda spec, meta: spec.update(dnsPolicy="None"),
        "a scheduler": lambda spec, meta: spec.update(schedulerName="mine"),
        "a runtime class": lambda spec, meta: spec.update(runtimeClassName="other"),
        "more devices": lambda spec, meta: spec["containers"][0]["resources"]["limits"].update(
            {"nvidia.com/gpu": "8"}
        ),
        "another device": lambda spec, meta: spec["containers"][0]["resources"]["limits"].update(
            {"amd.com/gpu": "1"}
        ),
        "shared processes": lambda spec, meta: spec.update(shareProcessNamespace=True),
    }

    @staticmethod
    def updated(change):
        spec = pod_spec("llama")
        spec["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2", "memory": "8Gi"}}
        old = job(spec)
        new = deepcopy(old)
        new["spec"]["suspend"] = False
        template = new["spec"]["template"]
        change(template["spec"], template["metadata"])
        return new, old

    @pytest.mark.parametrize("change", ADD_NOTHING.values(), ids=ADD_NOTHING)
    def test_a_queue_may_write_changes_that_add_no_access(self, decide, change):
        new, old = self.updated(change)
        assert decide(new, KUEUE, "UPDATE", old)[:2] == (True, [])

    @pytest.mark.parametrize("change", ADD.values(), ids=ADD)
    def test_every_other_change_is_decided_with_the_whole_template(self, decide, change):
        new, old = self.updated(change)
        assert decide(new, "mallory", "UPDATE", old)[0] is False


class TestPlaceholders:
    @staticmethod
    def workflow(account="server", claim_name="{{workflow.parameters.pvc}}", kind="Workflow"):
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": "w", "namespace": "ml"},
            "spec": {
                "serviceAccountName": account,
                "entrypoint": "main",
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}],
                "templates": [
                    {
                        "name": "main",
                        "container": {"image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                    }
                ],
            },
        }

    def test_a_placeholder_is_decided_at_the_pod(self, decide):
        assert decide(self.workflow()) == (True, [], {"WL105"})

    @pytest.mark.parametrize(
        "account", ["{{workflow.parameters.sa}}", "{{=inputs.parameters.sa}}", "KSA_NAME"]
    )
    def test_an_account_that_is_not_known_yet(self, decide, account):
        assert decide(self.workflow(account, "scratch")) == (True, [], {"WL105"})
        assert decide(self.workflow(account, "llama")) == (True, [], {"WL105"})

    @pytest.mark.parametrize("claim_name", ["scratch", "llama", "{{workflow.parameters.pvc}}"])
    def test_a_placeholder_does_not_give_access_to_an_account_with_a_grant(self, decide, claim_name):
        """Argo fills it in and creates the pods, so the writer needs the right for each account it may become."""
        allowed, codes, _ = decide(self.workflow("{{workflow.parameters.sa}}", claim_name), "mallory")
        assert (allowed, codes) == (False, ["WL141"])

    def test_a_namespace_without_grants_has_nothing_to_protect(self, decide):
        document = self.workflow("{{workflow.parameters.sa}}", "scratch")
        document["metadata"]["namespace"] = "web"
        assert decide(document, "mallory")[:2] == (True, [])

    def test_a_pod_with_a_placeholder_is_malformed(self, decide):
        assert decide(pod(pod_spec(account="KSA_NAME"))) == (False, ["WL502"], set())


class TestClusterScopedTemplates:
    def test_the_decision_is_on_the_object_that_uses_it(self, decide):
        document = {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "ClusterTrainingRuntime",
            "metadata": {"name": "torch"},
            "spec": {
                "template": {
                    "spec": {
                        "replicatedJobs": [
                            {"name": "node", "template": {"spec": {"template": {"spec": pod_spec("llama")}}}}
                        ]
                    }
                }
            },
        }
        document["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
            "containers"
        ][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        assert decide(document, "admin")[:2] == (True, [])


class TestNulls:
    @pytest.mark.parametrize(
        "member", ["securityContext", "hostNetwork", "volumes", "initContainers", "tolerations"]
    )
    def test_null_is_absent_in_a_custom_resource(self, decide, member):
        document = TestPlaceholders.workflow(claim_name="scratch")
        document["spec"]["templates"][0]["container"] |= {
            "securityContext": None,
            "env": None,
            "resources": None,
        }
        document["spec"][member] = document["spec"].get(member) if member == "volumes" else None
        document["spec"]["volumes"][0]["hostPath"] = None
        assert decide(document)[:2] == (True, [])

    def test_nulls_hide_nothing(self, decide):
        document = TestPlaceholders.workflow(account="default", claim_name="llama")
        document["spec"]["volumes"][0]["emptyDir"] = None
        assert decide(document)[:2] == (False, ["WL101"])
