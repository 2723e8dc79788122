"""Weightlock's configuration file: what an admin may set, with defaults that are safe as they stand.

`Settings` is the part a verdict depends on and core reads; the rest is for the processes around it.
"""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from webhook.api.access import AccessSettings
from webhook.api.audit import AuditSettings
from webhook.api.authorities import parse_authorities
from webhook.api.base import Name, Pattern, Schema
from webhook.api.detection import DetectionSettings
from webhook.api.operators import PRESETS

_DAY = 86400.0
_STEP = r"(?:[A-Za-z0-9_-]+|\*)"
# The parts of `core.workloads.schema.Part`, and PodSpec as another name of podSpec.
_PARTS = (
    "PodSpec", "claimName", "claimSpec", "claimTemplate", "claimTemplates", "container", "containers", "freeForm",
    "image", "modelAddress", "podSpec", "podTemplate", "serviceAccount", "volumeSource", "volumes",
)  # fmt: skip
_TEMPLATE_PATH = re.compile(rf"(?:{_STEP}(?:\.{_STEP})*)?(?::(?:{'|'.join(_PARTS)}))?")

if TYPE_CHECKING:
    from collections.abc import Mapping


def _template_path(text: str) -> str:
    if _TEMPLATE_PATH.fullmatch(text) is None:
        raise ValueError(
            f"{text!r:.80} is not a path to a pod template, such as spec.replicaSpecs.*.template"
        )
    return text


def _authorities(pem: str) -> str:
    parse_authorities(pem)
    return pem


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r:.80} is not a command: {error}") from None
    if text and not (words and words[0]):
        raise ValueError(f"{text!r:.80} is not a command: it names no program")
    return text


def _cidr(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r:.80} is not a network; one looks like 10.0.0.0/24") from None
    return text


Cidr = Annotated[str, AfterValidator(_cidr)]
Authorities = Annotated[str, AfterValidator(_authorities)]
Command = Annotated[str, AfterValidator(_command)]
TemplatePath = Annotated[str, AfterValidator(_template_path)]
Port = Annotated[int, Field(ge=0, le=65535)]


class DeviceVendor(Schema):
    """Extended resource names that mean an accelerator of one vendor; ``*`` matches any run of characters."""

    vendor: Name
    resources: list[Pattern] = Field(min_length=1)
    drivers: list[Pattern] = Field(
        default_factory=list, description="DRA drivers of the vendor, such as gpu.nvidia.com"
    )


class NodePath(Schema):
    """A path of the node that RBAC ``use`` on escapes.weightlock.dev, resource name = ``name``, allows to mount.

    A read-only path covers the paths below it. A writable path covers only itself, since links below it lead
    anywhere, and the PersistentVolumes below it.
    """

    name: Name
    path: Pattern
    read_only: bool = Field(default=True, description="false: the path may be mounted writable, too")
    persistent_volumes_only: bool = Field(
        default=False,
        description="true: only volumes behind a claim may use the path, and no hostPath volume",
    )

    @model_validator(mode="after")
    def _is_absolute(self) -> Self:
        if not self.path.startswith(("/", "\\")) and self.path[1:3] != ":\\":
            raise ValueError(f"path: {self.path!r:.80} is not an absolute path")
        return self


class WorkloadKind(Schema):
    """Where a kind keeps its pods. A path runs to a pod template; ``*`` stands for every item or value."""

    kind: Name = Field(description="Kind.group, such as PyTorchJob.kubeflow.org")
    paths: list[TemplatePath] = Field(
        description="such as spec.template or spec.replicaSpecs.*.template. A suffix names another part: "
        "spec.predictor:PodSpec, spec.cache.pvcName:claimName, spec.manifests.*:freeForm. Without paths the kind "
        "contains no pods, whatever its schema shows",
    )


class Operator(Schema):
    """An operator that writes pods: a preset elsewhere than in its default namespace, or one without a preset."""

    name: Name = Field(description="name of a preset, or any other name with accounts and owns")
    namespace: str = Field(default="", max_length=63, description="empty: that of the preset")
    accounts: list[Name] = Field(
        default_factory=list,
        max_length=16,
        description="names of service accounts; empty: those of the preset",
    )
    owns: list[Name] = Field(
        default_factory=list,
        max_length=64,
        description="Kind.group of the owners of its pods; empty: as in the preset",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in PRESETS and not (self.namespace and self.accounts and self.owns):
            names = ", ".join(sorted(PRESETS))
            raise ValueError(f"{self.name!r:.80} is not a preset ({names}): set namespace, accounts and owns")
        return self


def _operator(value: Any) -> Any:
    """A preset by name alone."""
    return {"name": value} if isinstance(value, str) else value


class Injection(Schema):
    """The key sidecar that Weightlock adds to pods that read weights."""

    renamed: ClassVar[Mapping[str, str]] = {"formerImages": "previousImages"}

    image: Name = "ghcr.io/weightlock/weightlock-sidecar:0.3.0"
    previous_images: list[Name] = Field(
        default_factory=list,
        max_length=16,
        description="images of earlier versions: pods that run with one keep their keys, new pods never get one",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    broker_url: Pattern = Field(
        default="https://weightlock-broker.weightlock-system.svc.cluster.local.:8443",
        description="a name that ends in a dot is not looked up in search domains; the certificate names it without",
    )
    ca_bundle: Authorities = Field(
        default="",
        description="CAs of the broker's certificate in PEM, at most 8; empty: system roots",
    )
    ca_file: str = Field(
        default="", description="file with these CAs instead; it is read again when it changes"
    )
    requests: dict[str, str] = Field(default_factory=lambda: {"cpu": "10m", "memory": "64Mi"})
    limits: dict[str, str] = Field(default_factory=lambda: {"memory": "128Mi"})
    quota_limits: dict[str, str] = Field(
        default_factory=lambda: {"cpu": "1", "memory": "128Mi", "ephemeral-storage": "64Mi"},
        description="limits where a ResourceQuota of the namespace requires one that limits does not set",
    )
    key_volume_size: str = "1Mi"
    startup_seconds: int = Field(
        default=600,
        ge=10,
        le=604_800,
        description="how long the sidecar may take for keys before the kubelet starts it again",
    )
    plaintext_startup_seconds: int = Field(
        default=21_600,
        ge=10,
        le=604_800,
        description="the same where it unseals files, which takes as long as reading them; a restart begins again",
    )
    evidence_command: Command = Field(
        default="",
        max_length=1024,
        description="in the sidecar's image: prints attestation evidence (JSON) for a nonce, its last argument",
    )
    named_key_only: bool = Field(
        default=False,
        description="the sidecar of delivery: key mounts the sealed files, and fetches only the key of their manifest",
    )
    cdh_address: str = Field(
        default="",
        max_length=32,
        pattern=r"^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}:\d{1,5}|\[::1\]:\d{1,5})?$",
        description="such as 127.0.0.1:8006: the sidecar serves delivered keys there, to every container of the pod",
    )
    security_context: dict[str, Any] | None = Field(
        default=None, description="replaces the sidecar's security context, which is Pod Security restricted"
    )
    hide_devices: bool = Field(
        default=True, description="give containers that ask for no GPU NVIDIA_VISIBLE_DEVICES=void"
    )


def _default_vendors() -> list[DeviceVendor]:
    # vendor: (resources, DRA drivers). Other names in a vendor's domain belong to the vendor, too.
    table: dict[str, tuple[list[str], list[str]]] = {
        # Passed-through devices are named after the chip (NVIDIA KubeVirt device plugin), shared ones after the plugin
        # that shares them.
        "nvidia.com": (
            [
                "nvidia.com/gpu*",
                "nvidia.com/mig-*",
                "nvidia.com/pgpu",
                "nvidia.com/vgpu",
                *(
                    f"nvidia.com/{chip}*"
                    for chip in ("AD", "GA", "GB", "GH", "GP", "GRID", "GV", "NVIDIA", "TU")
                ),
                "aliyun.com/gpu*",
                "k8s.amazonaws.com/vgpu*",
                "tencent.com/vcuda*",
                "volcano.sh/gpu*",
                "volcano.sh/vgpu*",
                "koordinator.sh/gpu*",
            ],
            ["gpu.nvidia.com", "compute-domain.nvidia.com"],
        ),
        # A partitioned device is named after its partition (ROCm device plugin, strategy "mixed").
        "amd.com": (
            ["amd.com/gpu*", *(f"amd.com/{mode}_*" for mode in ("cpx", "dpx", "qpx", "spx", "tpx"))],
            ["gpu.amd.com"],
        ),
        "intel.com": (
            ["gpu.intel.com/*", "habana.ai/*", "npu.intel.com/*"],
            ["gpu.intel.com", "gaudi.intel.com", "npu.intel.com"],
        ),
        "huawei.com": (["huawei.com/Ascend*", "huawei.com/npu*"], ["npu.huawei.com"]),
        "google.com": (["google.com/tpu*", "cloud-tpus.google.com/*"], ["tpu.google.com", "tpu.dra.dev"]),
        "aws.amazon.com": (["aws.amazon.com/neuron*"], ["neuron.aws.com", "neuron.amazonaws.com"]),
        "metax-tech.com": (["metax-tech.com/*"], []),
        "hygon.com": (["hygon.com/*"], []),
        "cambricon.com": (["cambricon.com/*"], []),
        "mthreads.com": (["mthreads.com/*"], []),
        "enflame.com": (["enflame.com/*"], []),
        "iluvatar.ai": (["iluvatar.ai/*"], []),
        "kunlunxin.com": (["kunlunxin.com/*"], []),
        "qualcomm.com": (["qualcomm.com/*"], []),
        "furiosa.ai": (["furiosa.ai/*", "alpha.furiosa.ai/*"], ["npu.furiosa.ai"]),
        "rebellions.ai": (["rebellions.ai/*"], ["npu.rebellions.ai"]),
        "tenstorrent.com": (["tenstorrent.com/*"], []),
    }
    return [
        DeviceVendor(vendor=vendor, resources=resources, drivers=drivers)
        for vendor, (resources, drivers) in table.items()
    ]


_WORKLOAD_CONTROLLERS = (
    "replicaset-controller",
    "deployment-controller",
    "statefulset-controller",
    "daemon-set-controller",
    "replication-controller",
    "job-controller",
    "cronjob-controller",
)


_HARMLESS_DRIVERS = (
    "csi.cert-manager.io",
    "csi.spiffe.io",
    "secrets-store.csi.k8s.io",
    "spiffe.csi.cert-manager.io",
)
# Populators whose volumes hold what a network address or a generator gives, and nothing of the cluster's storage.
_HARMLESS_POPULATORS = (
    "ObjectStorage.storage.alibabacloud.com",
    "VolumeImportSource.cdi.kubevirt.io",
    "VolumeUploadSource.cdi.kubevirt.io",
)


class StorageSettings(Schema):
    """Storage that never holds weights, although Weightlock does not know its content."""

    harmless_drivers: list[Name] = Field(
        default_factory=lambda: list(_HARMLESS_DRIVERS),
        description="CSI drivers whose inline volumes hold secrets, certificates or identities and no data",
    )
    harmless_populators: list[Name] = Field(
        default_factory=lambda: list(_HARMLESS_POPULATORS),
        description="kinds, as Kind.group, in a claim's dataSourceRef that read no storage of the cluster",
    )
    compare_secrets: bool = Field(
        default=False,
        description="read the Secrets that a ModelWeights names and recognise copies of them; needs RBAC get on them",
    )


class EgressSettings(Schema):
    """Egress budgets of models: what the network enforces, and what the broker tolerates."""

    enforced: bool = Field(
        default=False,
        description="whether the cluster's network enforces kubernetes.io/egress-bandwidth, as weightlock doctor "
        "--egress-image measured it; false: admission warns",
    )
    burst_bytes: int = Field(
        default=268435456,
        ge=0,
        le=1 << 40,
        description="bytes that a pod may send above its rate; the default is the burst that containerd configures",
    )
    tolerance_percent: int = Field(
        default=10, ge=0, le=1000, description="how far a pod's measured bytes may exceed its rate"
    )


class Settings(Schema):
    """What a verdict depends on in addition to the cluster's objects and the request."""

    exempt_namespaces: list[Name] = Field(
        default_factory=lambda: ["kube-system", "kube-node-lease", "kube-public", "weightlock-system"]
    )
    controllers: list[Name] = Field(
        default_factory=lambda: [
            f"system:serviceaccount:kube-system:{name}" for name in _WORKLOAD_CONTROLLERS
        ],
        description="identities that write pods for a workload. The pod's service account is evaluated instead",
    )
    operators: list[
        Annotated[Operator, BeforeValidator(_operator, json_schema_input_type=Operator | str)]
    ] = Field(
        default_factory=list,
        max_length=128,
        description="operators that write pods for custom resources, by preset such as jobset or kuberay. A pod that "
        "one writes for an object of a kind that it owns is decided by the pod's service account",
    )
    devices: list[DeviceVendor] = Field(default_factory=_default_vendors)
    harmless_resources: list[Pattern] = Field(
        default_factory=list,
        max_length=256,
        description="extended resources that are not accelerators, in addition to those built in",
    )
    harmless_drivers: list[Pattern] = Field(
        default_factory=list,
        max_length=256,
        description="DRA drivers whose devices are not accelerators, in addition to those built in",
    )
    node_paths: list[NodePath] = Field(
        default_factory=list,
        max_length=256,
        description="paths of the node that service accounts may mount with RBAC use on the name",
    )
    workloads: list[WorkloadKind] = Field(
        default_factory=list, description="kinds in addition to the built-in and detected ones"
    )
    pin_images: bool = Field(
        default=False,
        description="add the digest to images of new pods that have only a tag; the registry must be reachable",
    )
    help_url: str = Field(
        default="",
        max_length=200,
        pattern=r"^(https?://[!-~]+)?$",
        description="page that explains reason codes, without #; empty: the published documentation of this version",
    )
    injection: Injection = Field(default_factory=Injection)
    access: AccessSettings = Field(default_factory=AccessSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    egress: EgressSettings = Field(default_factory=EgressSettings)


class Listen(Schema):
    """An address to serve on; port 0 takes a free one."""

    host: str = "0.0.0.0"
    port: Port = 8443


class Tls(Schema):
    """Certificate and key in PEM files. ``client_ca`` names who may be believed to be the API server."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    client_names: list[Name] = Field(
        default_factory=list,
        description="common or DNS names, one of which the API server's certificate carries; empty: any of client_ca",
    )
    server_names: list[Name] = Field(
        default_factory=list, description="names the certificate must carry to be ready"
    )


class Callers(Schema):
    """Who may query /validate and /mutate, in addition to callers with a certificate of `tls.clientCa`.

    Without `tls.clientCa`, tokens and addresses, every client is answered, and each address is limited.
    """

    require_certificate: bool = Field(
        default=True,
        description="with tls.clientCa, reject callers without a certificate of it, unless another setting allows them",
    )
    token_configurations: list[Name] = Field(
        default_factory=list,
        max_length=8,
        description="webhook configurations to which the API server's token is bound (KEP-6060, Kubernetes 1.37)",
    )
    token_audiences: list[Pattern] = Field(
        default_factory=list,
        max_length=8,
        description="audiences of that token without the path, such as https://weightlock.weightlock-system.svc:443",
    )
    addresses: list[Cidr] = Field(
        default_factory=list, max_length=64, description="networks of the API servers, in CIDR notation"
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description="answer all other clients, too: any client that reaches the port can query permissions",
    )
    requests_per_second: float = Field(
        default=1000, gt=0, description="reviews of each address that is neither listed nor authenticated"
    )


class Signing(Schema):
    """Ed25519 keys, in PEM files, without which no access request or approval counts on a cluster."""

    key: str = Field(default="", description="the private key; its public key is always trusted")
    keys: str = Field(
        default="", description="additional trusted public keys, concatenated, for a key rotation"
    )
    stamp_key: str = Field(
        default="",
        description="key of at least 32 bytes, shared by webhook and controller: authenticates stamped objects",
    )


class Cluster(Schema):
    """How to reach the API server; without a kubeconfig the pod's own service account is used."""

    kubeconfig: str = ""
    context: str = ""
    max_snapshot_age_seconds: float = Field(default=300, gt=0)


class Tracing(Schema):
    """Traces over OTLP/HTTP; off while no endpoint is set."""

    endpoint: str = Field(
        default="",
        max_length=2048,
        pattern=r"^(https?://.+)?$",
        description="such as http://otel-collector.monitoring.svc:4318/v1/traces",
    )
    sample_ratio: float = Field(
        default=0,
        ge=0,
        le=1,
        description="share of the requests to trace that come without a trace; those in one follow it",
    )
    flush_seconds: float = Field(
        default=5, gt=0, le=60, description="interval in which finished spans are sent"
    )
    headers_file: str = Field(default="", description="headers for the collector, one NAME: VALUE a line")
    ca_file: str = Field(default="", description="CA of the collector's certificate, in PEM")


class Receiver(Schema):
    """Where news of requests, approvals and endings is sent."""

    name: Name
    url: Pattern
    format: Literal["json", "slack"] = "json"
    secret_file: str = Field(
        default="", description="file with the HMAC-SHA256 key that signs JSON notifications"
    )


class ServingPair(Schema):
    """A Secret with a serving certificate, and the DNS names or addresses that it is for."""

    secret: Name
    names: list[Name] = Field(min_length=1, max_length=16)


class Certificates(Schema):
    """Certificates that the controller makes and renews itself. The Secrets must be there; it fills them."""

    authority_secret: Name = Field(
        description="Secret with the CAs and their keys; no other component reads it"
    )
    pairs: list[ServingPair] = Field(min_length=1, max_length=8)
    authority_seconds: float = Field(default=730 * _DAY, gt=0)
    authority_renew_seconds: float = Field(
        default=365 * _DAY, gt=0, description="remaining validity at which it is renewed"
    )
    leaf_seconds: float = Field(default=90 * _DAY, gt=0)
    leaf_renew_seconds: float = Field(
        default=30 * _DAY, gt=0, description="remaining validity at which it is renewed"
    )
    propagation_seconds: float = Field(
        default=3600, gt=0, description="seconds after its publication until a new CA issues certificates"
    )
    check_seconds: float = Field(default=30, gt=0, le=3600)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.propagation_seconds < self.leaf_renew_seconds < self.leaf_seconds:
            raise ValueError("propagationSeconds < leafRenewSeconds < leafSeconds is needed")
        if self.authority_renew_seconds >= self.authority_seconds:
            raise ValueError("authorityRenewSeconds must be less than authoritySeconds")
        if self.authority_renew_seconds < self.leaf_seconds + self.propagation_seconds:
            raise ValueError(
                "authorityRenewSeconds must be at least leafSeconds and propagationSeconds together"
            )
        if self.authority_seconds > 6 * (self.authority_seconds - self.authority_renew_seconds):
            raise ValueError(
                "authorityRenewSeconds is so long that more than seven authorities would stand side by side"
            )
        return self


class KeySecrets(Schema):
    """Secrets with keys that all parts share. They must be there; the controller fills those that are empty, once."""

    signing: str = Field(
        default="",
        max_length=253,
        description="receives signing.key, with which the controller signs, and signing.pub",
    )
    stamp: str = Field(
        default="", max_length=253, description="receives key, with which the webhook stamps access objects"
    )
    record: str = Field(
        default="",
        max_length=253,
        description="receives the signed record of observed access decisions; empty: no record",
    )
    challenge: str = Field(
        default="", max_length=253, description="receives key, with which brokers sign their nonces"
    )


class Drills(Schema):
    """The scheduled drills, whose results the controller logs and exposes."""

    record: str = Field(
        default="", max_length=253, description="ConfigMap with the last drill's result; empty: no drills"
    )
    period_seconds: float = Field(
        default=86400, gt=0, description="interval of the schedule; an alert reports a drill that is overdue"
    )


class Controller(Schema):
    """The controller: its lease, and the webhook configurations it keeps as they should be."""

    namespace: Name = "weightlock-system"
    lease: Name = "weightlock-controller"
    identity: str = Field(default="", description="unique among replicas; empty: the host's name")
    webhooks: str = Field(
        default="",
        description="manifests of the webhook configurations; empty: none is restored, and no object is signed",
    )
    settle_seconds: float = Field(
        default=40,
        ge=0,
        description="an object is not signed if it is created so soon after a change of a webhook configuration",
    )
    receivers: list[Receiver] = Field(default_factory=list, max_length=16)
    restore: bool = Field(default=True, description="restore a modified or deleted webhook configuration")
    restore_definitions: bool = Field(
        default=True,
        description="restore a modified CRD of weightlock.dev (a deleted CRD is only reported)",
    )
    certificates: Certificates | None = Field(
        default=None,
        description="certificates that the controller manages itself; absent: they come from elsewhere",
    )
    keys: KeySecrets = Field(default_factory=KeySecrets)
    drills: Drills = Field(default_factory=Drills)


class Reports(Schema):
    """The background scan of running workloads, and the reports it writes."""

    enabled: bool = False
    api: Literal["auto", "openreports.io", "wgpolicyk8s.io"] = Field(
        default="auto",
        description="whose types hold the reports; auto: openreports.io where it is installed, else wgpolicyk8s.io",
    )
    kinds: list[Name] = Field(
        default_factory=list,
        max_length=32,
        description="workload kinds to evaluate in addition to pods, as Kind.group",
    )
    resources_per_second: float = Field(
        default=100, gt=0, le=10000, description="maximum evaluations per second"
    )
    interval_seconds: float = Field(default=21600, ge=10, description="full rescan interval in seconds")
    settle_seconds: float = Field(
        default=10, ge=0.1, description="delay in seconds before a changed namespace is rescanned"
    )
    max_results: int = Field(
        default=500, ge=1, le=500, description="how many results one report lists; all are counted"
    )
    events: bool = Field(
        default=True, description="create an Event for the owner of a running pod that would be denied"
    )


class Registry(Schema):
    """How to reach one registry."""

    registry: Name = Field(description="host and port, as image references name it; docker.io for Docker Hub")
    mirrors: list[Pattern] = Field(
        default_factory=list,
        max_length=8,
        description="base URLs of mirrors and pull-through caches, tried first",
    )
    mirrors_only: bool = Field(default=False, description="never contact the registry itself")
    ca_file: str = Field(
        default="", description="CA of the registry and of its mirrors in PEM; empty: system roots"
    )
    plain_http: bool = Field(default=False, description="contact the registry without TLS; for tests only")


class Images(Schema):
    """How webhook and controller verify images for ImageTrust objects."""

    credentials: str = Field(
        default="",
        description="file with credentials, as config.json of Docker; credential helpers in it may run",
    )
    pull_secrets: bool = Field(
        default=False,
        description="use the imagePullSecrets of pods and of service accounts; needs RBAC get on them",
    )
    layout: str = Field(default="", description="OCI layout directory instead of registries, for an air gap")
    registries: list[Registry] = Field(default_factory=list, max_length=64)
    wait_seconds: float = Field(
        default=3, gt=0, le=20, description="time that a review waits for the verification of a new digest"
    )
    interval_seconds: float = Field(
        default=60,
        ge=1,
        le=86400,
        description="interval in which the controller verifies new images ahead of time",
    )
    recheck_seconds: float = Field(
        default=600, ge=10, description="interval in which images that are not verified are checked again"
    )


class Config(Schema):
    """The whole file. ``embedded`` names a state directory and then no cluster is used."""

    renamed: ClassVar[Mapping[str, str]] = {"replaceAboveMib": "workerMemoryLimitMiB"}

    listen: Listen = Field(default_factory=Listen)
    metrics_listen: Listen | None = Field(
        default=None, description="plain HTTP for metrics and health; off by default"
    )
    tls: Tls = Field(default_factory=Tls)
    callers: Callers = Field(default_factory=Callers)
    signing: Signing = Field(default_factory=Signing)
    controller: Controller = Field(default_factory=Controller)
    reports: Reports = Field(default_factory=Reports)
    cluster: Cluster = Field(default_factory=Cluster)
    embedded: str = ""
    policies: str = Field(
        default="", description="directory of further policies; empty: only those in the cluster"
    )
    settings: Settings = Field(default_factory=Settings)
    max_concurrent_reviews: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="maximum number of reviews that wait for the API server at the same time",
    )
    max_waiting_reviews: int = Field(
        default=1024,
        ge=0,
        le=65536,
        description="maximum number of queued reviews; further ones are denied",
    )
    review_timeout_seconds: float = Field(
        default=8,
        gt=0,
        le=29,
        description="timeout of a review; the webhooks' timeouts must be longer",
    )
    drain_seconds: float = Field(
        default=5,
        ge=0,
        le=300,
        description="time to serve requests after a stop signal, while clients move to other replicas",
    )
    supervise: bool = Field(
        default=True, description="evaluate in a child process, which is replaced if it hangs or dies"
    )
    worker_memory_limit_mib: int = Field(
        default=0,
        ge=0,
        alias="workerMemoryLimitMiB",
        description="memory in MiB above which the worker process is replaced; 0: never",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    tracing: Tracing = Field(default_factory=Tracing)
    images: Images = Field(default_factory=Images)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    detection: DetectionSettings = Field(default_factory=DetectionSettings)
