"""ModelWeights: a protected asset, the storage that holds it, its approvers and its keys."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from webhook.api.base import LabelSelector, Name, Pattern, Resource, Schema
from webhook.api.duration import Duration
from webhook.api.quantity import BitRate, ByteCount  # noqa: TC001 - pydantic reads them

Sensitivity = Literal["public", "internal", "restricted", "frontier"]
Signer = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$", max_length=44)]

Measurement = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$", max_length=96)]


class ClaimVolumes(Schema):
    """PersistentVolumeClaims by namespace, name pattern (``*`` and ``?``) and labels; every set field must match."""

    namespaces: list[Pattern] = Field(default_factory=list, max_length=256)
    names: list[Pattern] = Field(default_factory=list, max_length=256)
    selector: LabelSelector | None = None


class PersistentVolumes(Schema):
    """PersistentVolumes by name pattern and labels; every set field must match."""

    names: list[Pattern] = Field(default_factory=list, max_length=256)
    selector: LabelSelector | None = None


class CsiVolumes(Schema):
    """CSI backends by driver, volume handle patterns and attribute patterns, in a volume or inline in a pod."""

    driver: Name
    volume_handles: list[Pattern] = Field(default_factory=list, max_length=256)
    attributes: dict[str, Pattern] = Field(default_factory=dict)
    paths: list[Pattern] = Field(
        default_factory=list, max_length=256, description="directories inside the volume; empty: all of it"
    )


class NfsVolumes(Schema):
    """An NFS export; the path protects what lies under it and what contains it."""

    server: Name
    path: Pattern


class HostPathVolumes(Schema):
    """A directory of the node; the path protects what lies under it and what contains it."""

    path: Pattern


class ImageVolumes(Schema):
    """An OCI image or artifact mounted as a volume, by reference pattern."""

    reference: Pattern


class ObjectNames(Schema):
    """Objects by namespace and name pattern; both must match."""

    namespaces: list[Pattern] = Field(default_factory=list, max_length=256)
    names: list[Pattern] = Field(default_factory=list, max_length=256)


class ObjectStore(Schema):
    """A bucket, hub or registry, with the Secrets and service accounts whose credentials can read it."""

    uris: list[Pattern] = Field(
        default_factory=list,
        max_length=256,
        description="such as s3://weights/atlas/*, gs://…, hf://org/atlas, oci://…",
    )
    secrets: list[ObjectNames] = Field(default_factory=list, max_length=64)
    service_accounts: list[ObjectNames] = Field(default_factory=list, max_length=64)


class VolumeMatch(Schema):
    """One rule that recognises storage as these weights: exactly one of the fields is set."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    persistent_volume_claim: ClaimVolumes | None = None
    persistent_volume: PersistentVolumes | None = None
    csi: CsiVolumes | None = None
    nfs: NfsVolumes | None = None
    host_path: HostPathVolumes | None = None
    image: ImageVolumes | None = None
    object_store: ObjectStore | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                "set exactly one of persistentVolumeClaim, persistentVolume, csi, nfs, hostPath, image, objectStore"
            )
        return self


class ApproverRule(Schema):
    """A number of distinct users of one group."""

    group: Name
    count: int = Field(default=1, ge=1, le=16)


class Approvers(Schema):
    """The approvers: members of any of the groups, and the users listed."""

    groups: list[Name] = Field(default_factory=list, max_length=64)
    users: list[Name] = Field(default_factory=list, max_length=256)


class AccessRules(Schema):
    """How access is requested, how long it lasts, and what happens to running pods when it expires."""

    approvals: int = Field(
        default=2, ge=0, le=16, description="number of distinct approvers, never the requester"
    )
    approvers: Approvers = Field(default_factory=Approvers)
    rules: list[ApproverRule] = Field(
        default_factory=list,
        max_length=16,
        description="groups that must each give a number of the approvals",
    )
    max_duration: Duration = Duration("12h")
    on_expiry: Literal["wipe", "evict"] = "wipe"
    memory_images: Literal["storeOnly", "forbidden"] = Field(
        default="storeOnly",
        description="whether a user with RBAC verb store is allowed to checkpoint a pod that reads the weights",
    )


class WrappedKey(Schema):
    """A data key, wrapped by a KMS."""

    id: str = Field(
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?$",
        max_length=253,
        description="unique among the keys of this object, and a valid file name",
    )
    kms: Pattern = Field(description="<provider>://<path>, such as vault://transit/atlas")
    wrapped: str = Field(max_length=65536, description="base64 of the KMS response")


class ManifestPins(Schema):
    """What a sealed directory's manifest must be. A reader of the weights cannot forge a manifest that meets a pin."""

    digest: str = Field(
        default="",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        max_length=71,
        description="the only accepted manifest; `weightlock weights inspect` prints its digest",
    )
    signers: list[Signer] = Field(
        default_factory=list,
        max_length=16,
        description="Ed25519 public keys in base64; one of them must have signed the manifest",
    )
    statement: str = Field(
        default="",
        max_length=262144,
        description="the signed statement about the manifest that `weightlock weights seal` prints; the broker "
        "evaluates spec.provenance over it",
    )


class ModelSigner(Schema):
    """An accepted signer of a model: a public key, a certificate of a CA, or a keyless identity."""

    key: str = Field(
        default="",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        max_length=71,
        description="digest of the public key (SubjectPublicKeyInfo, DER)",
    )
    ca: str = Field(
        default="",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        max_length=71,
        description="digest of the CA certificate (DER) at which the signing certificate's chain ends",
    )
    issuer: str = Field(
        default="", max_length=2048, description="OpenID Connect issuer of a keyless signature"
    )
    subject: str = Field(
        default="",
        max_length=2048,
        description="identity in the certificate; * stands for any text and ? for one character",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = {
            (True, False, False, False),  # key
            (False, True, False, False),  # ca
            (False, True, False, True),  # ca and subject
            (False, False, True, True),  # issuer and subject
        }
        if (bool(self.key), bool(self.ca), bool(self.issuer), bool(self.subject)) not in forms:
            raise ValueError("set key, or ca with or without subject, or issuer and subject")
        return self


class Provenance(Schema):
    """The signature that a model must have before a key is released, as verified when it was sealed."""

    signers: list[ModelSigner] = Field(
        default_factory=list,
        max_length=64,
        description="one of them must have signed the model; empty: any verified signer",
    )
    rule: str = Field(
        default="",
        max_length=8192,
        description="CEL over object.signature and object.attestations that must be true",
    )


class CpuAttestation(Schema):
    """The evidence that a confidential virtual machine must present, in addition to that of its accelerators."""

    kinds: list[Literal["sev-snp", "tdx"]] = Field(min_length=1, max_length=2)
    roots: str = Field(
        min_length=1, max_length=65536, description="root certificates in PEM: AMD's ARK, Intel's SGX root CA"
    )
    measurements: list[Measurement] = Field(
        min_length=1,
        max_length=64,
        description="accepted launch measurements (SEV-SNP) or MRTD (TDX), hexadecimal",
    )


class Attestation(Schema):
    """The evidence that accelerators and CPU must present before a key is released."""

    required: bool = False
    issuer: str = ""
    jwks_url: str = ""
    rule: str = Field(
        default="",
        max_length=8192,
        description="CEL over the claims: object.overall, object.devices, object.cpu",
    )
    cpu: CpuAttestation | None = Field(
        default=None, description="with it and without issuer, only the evidence of the CPU is required"
    )


class Egress(Schema):
    """The egress budget: the minimum time in which the readers together can send the whole model."""

    size: ByteCount = Field(description="bytes of the model, as a Kubernetes quantity such as 810Gi")
    minimum_time: Duration = Field(description="the least time to send all of it, such as 30d")
    per_pod: BitRate = Field(
        description="bits a second that one reader may send, in the unit of kubernetes.io/egress-bandwidth"
    )

    @model_validator(mode="after")
    def _not_zero(self) -> Self:
        if not self.minimum_time.timedelta:
            raise ValueError("minimumTime: must be longer than 0s")
        return self


class ModelWeightsSpec(Schema):
    """See `ModelWeights`."""

    sensitivity: Sensitivity
    owner: str = Field(default="", max_length=253)
    volumes: list[VolumeMatch] = Field(min_length=1, max_length=256)
    access: AccessRules = Field(default_factory=AccessRules)
    keys: list[WrappedKey] = Field(
        default_factory=list,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
    )
    delivery: Literal["key", "plaintext"] = "key"
    min_generation: int = Field(
        default=0, ge=0, le=2**53 - 1, description="the oldest accepted generation of the sealed directory"
    )
    manifest: ManifestPins = Field(default_factory=ManifestPins)
    provenance: Provenance | None = None
    attestation: Attestation = Field(default_factory=Attestation)
    exclusive_devices: bool = Field(
        default=False, description="readers must not share their accelerators with other pods"
    )
    egress: Egress | None = None

    @model_validator(mode="after")
    def _unique_key_ids(self) -> Self:
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("keys: each id must be unique")
        return self

    @model_validator(mode="after")
    def _provenance_needs_signers(self) -> Self:
        # Every reader of the weights holds the data key, so only a signature shows who wrote a manifest.
        if self.provenance is not None and not self.manifest.signers:
            raise ValueError("provenance: set manifest.signers to the keys that sign manifests")
        return self


class ModelWeights(Resource):
    """A protected asset, cluster-scoped, short name ``mw``."""

    kind: Literal["ModelWeights"]
    spec: ModelWeightsSpec
