"""Snapshot: all data that a verdict may depend on, except the request. Providers feed objects to a `SnapshotBuilder`.

Two providers exist, watches on a cluster and a directory of files; core cannot tell which. An object that cannot be
understood never harms the others: a policy that does not compile denies what it would have evaluated, an asset that
cannot be read keeps its last good form, and both are reported in ``problems``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import GROUP
from webhook.api.faults import describe
from webhook.api.images import ImageTrust, ImageVerification
from webhook.api.modelweights import ModelWeights
from webhook.api.policy import ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, WeightPolicy
from webhook.core.access import GrantIndex
from webhook.core.egress import readers as egress_readers
from webhook.core.egress.readers import Readers
from webhook.core.images.index import ImageIndex
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import ObjectKey, ObjectStore, key_of
from webhook.core.kube.selectors import SelectorError
from webhook.core.policies.compiler import PolicyError, broken_policy, compile_policy, unreadable_policy
from webhook.core.policies.match import Matcher
from webhook.core.policies.policy_set import PolicySet
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.protected import with_volumes
from webhook.core.workloads.schema import CRD, KindSchema, scan
from webhook.core.workloads.templates import WorkloadTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from webhook.api.config import Injection, Settings
    from webhook.api.policy import BindingSpec, PolicySpec, WeightPolicySpec
    from webhook.core.access import Verifier
    from webhook.core.kube.fields import Document
    from webhook.core.policies.match import RequestKind
    from webhook.core.policies.policy import Policy

MODELS = f"ModelWeights.{GROUP}"
POLICIES = f"WeightPolicy.{GROUP}"
REQUESTS = f"AccessRequest.{GROUP}"
APPROVALS = f"AccessApproval.{GROUP}"
IMAGE_TRUSTS = f"ImageTrust.{GROUP}"
IMAGE_VERIFICATIONS = f"ImageVerification.{GROUP}"
NATIVE_POLICIES = "ValidatingAdmissionPolicy.admissionregistration.k8s.io"
NATIVE_BINDINGS = "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io"

# The grant index reads these once and tracks changes itself. Storing them as objects would use too much memory.
_ACCESS = frozenset({REQUESTS, APPROVALS})
# Number of changes that may wait for the grant index.
_MOST_WAITING = 1000
# An asset or policy that becomes invalid keeps its last valid form. The API server's schema prevents this.
_TYPES: dict[str, type[BaseModel]] = {
    MODELS: ModelWeights,
    POLICIES: WeightPolicy,
    REQUESTS: AccessRequest,
    APPROVALS: AccessApproval,
    NATIVE_POLICIES: ValidatingAdmissionPolicy,
    NATIVE_BINDINGS: ValidatingAdmissionPolicyBinding,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the cluster. ``objects`` and ``readers`` are live, and constant during an evaluation."""

    settings: Settings
    objects: ObjectStore
    models: Mapping[str, ModelWeights]
    catalog: Catalog
    policies: PolicySet
    access: GrantIndex
    workloads: WorkloadTable
    problems: Mapping[ObjectKey, str] = field(default_factory=dict)
    images: ImageIndex = field(default_factory=ImageIndex)
    readers: Readers = field(default_factory=Readers)


class SnapshotBuilder:
    """Collects objects and builds a `Snapshot` of all of them. Only changed parts are built again."""

    def __init__(
        self,
        settings: Settings,
        *,
        complete: bool,
        verifier: Verifier | None = None,
        assumed_time: datetime | None = None,
    ) -> None:
        self._settings = settings
        self._workloads = WorkloadTable(settings.workloads, guess=complete)
        self._schemas: dict[str, tuple[Any, KindSchema]] = {}
        self._fresh_schemas = False
        self._objects = ObjectStore(complete=complete)
        self._readers = Readers()
        self._typed: dict[str, dict[str, Any]] = {kind: {} for kind in _TYPES}
        self._compiled: dict[ObjectKey, tuple[Policy, ...]] = {}
        self._shared: PolicySet | None = None
        self._problems: dict[ObjectKey, str] = {}
        self._access = GrantIndex.build(
            settings=settings.access, verifier=verifier, assumed_time=assumed_time
        )
        self._written: dict[tuple[str, str], AccessRequest | AccessApproval] = {}
        self._removed: set[tuple[str, str]] = set()
        self._images = ImageIndex(verifier)
        self._stale = set(_TYPES)
        self._tested: set[str] = set()
        self._kinds: frozenset[RequestKind] | None = None
        self._snapshot: Snapshot | None = None
        self._changed_models: set[str] = set()

    @property
    def objects(self) -> ObjectStore:
        """Return the store of all objects."""
        return self._objects

    def inject_by(self, injection: Injection) -> None:
        """Replace the settings of the key sidecar. No policy depends on them."""
        self._settings = self._settings.model_copy(update={"injection": injection})
        if self._snapshot is not None:
            self._snapshot = replace(self._snapshot, settings=self._settings)

    def compile_late(self, tested: Iterable[str], kinds: Iterable[RequestKind]) -> None:
        """Compile less of the WeightPolicies ``tested``, which are known to compile: for a process of few requests.

        Their messages are compiled when a violation needs them. Those that match no request of ``kinds`` are not
        compiled: only such requests may follow. A policy that changes later is compiled as a whole.
        """
        self._tested = set(tested)
        self._kinds = frozenset(kinds)

    def put(self, document: Document) -> ObjectKey:
        """Add or replace one object. Raises `ValueError` if it is not a Kubernetes object."""
        if document.get("kind") == "CustomResourceDefinition":
            return self._put_schema(document)
        if document.get("kind") == "ImageVerification" and key_of(document).kind == IMAGE_VERIFICATIONS:
            return self._put_verification(document)
        if document.get("kind") == "EgressReader":
            key = key_of(document)
            self._readers.put(document)
            return key
        key = self._objects.put(document)
        if key.kind == "Pod":
            # A state directory contains whole pods.
            self._readers.put(egress_readers.slim(document))
        self._note_volume(key)
        if key.kind == IMAGE_TRUSTS:
            self._put_trust(key, document)
        model = _TYPES.get(key.kind)
        if model is not None:
            self._read(key, model, document)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Remove one object."""
        if key.kind in (egress_readers.KIND, "Pod"):
            self._readers.remove(key)
        self._objects.remove(key)
        if key.kind == CRD:
            self._fresh_schemas |= self._schemas.pop(key.name, None) is not None
            self._problems.pop(key, None)
            return
        self._note_volume(key)
        if key.kind == IMAGE_TRUSTS:
            self._images.remove_trust(key.name)
            self._problems.pop(key, None)
        elif key.kind == IMAGE_VERIFICATIONS:
            self._images.remove_verification(key.name)
            self._problems.pop(key, None)
        if key.kind in _TYPES:
            self._renew(key)
            self._typed[key.kind].pop(key.name, None)
            self._problems.pop(key, None)
            self._compiled.pop(key, None)
            self._note_access(key, None)

    def snapshot(self) -> Snapshot:
        """Return the snapshot of all current objects."""
        if self._fresh_schemas:
            self._fresh_schemas = False
            schemas = [schema for _, schema in self._schemas.values()]
            self._workloads = WorkloadTable(self._settings.workloads, schemas, guess=self._objects.complete)
            if self._snapshot is not None:
                self._snapshot = replace(
                    self._snapshot, workloads=self._workloads, problems=dict(self._problems)
                )
        if self._snapshot is not None and not self._stale:
            return self._snapshot
        before = self._snapshot
        models = self._typed[MODELS]
        fresh_models = before is None or MODELS in self._stale
        fresh_access = fresh_models or bool(self._stale & _ACCESS)
        fresh_policies = before is None or bool(self._stale & {POLICIES, NATIVE_POLICIES, NATIVE_BINDINGS})
        self._snapshot = Snapshot(
            settings=self._settings,
            objects=self._objects,
            models=dict(models) if fresh_models else before.models,  # type: ignore[union-attr]
            catalog=self._catalog() if fresh_models else before.catalog,  # type: ignore[union-attr]
            policies=self._policies() if fresh_policies else before.policies,  # type: ignore[union-attr]
            access=self._book(fresh_models=fresh_models) if fresh_access else before.access,  # type: ignore[union-attr]
            workloads=self._workloads,
            problems=dict(self._problems),
            images=self._images,
            readers=self._readers,
        )
        self._stale.clear()
        return self._snapshot

    def _put_trust(self, key: ObjectKey, document: Document) -> None:
        """Take a trust rule. One that becomes invalid keeps its last valid form."""
        try:
            self._images.put_trust(ImageTrust.model_validate(document))
        except ValidationError as error:
            self._problems[key] = describe(error)
        else:
            self._problems.pop(key, None)

    def _put_verification(self, document: Document) -> ObjectKey:
        """Take statements about images. Their document is not stored: all of them take megabytes."""
        key = key_of(document)
        try:
            self._images.put_verification(ImageVerification.model_validate(document))
        except ValidationError as error:
            self._images.remove_verification(key.name)
            self._problems[key] = describe(error)
        else:
            self._problems.pop(key, None)
        return key

    def _put_schema(self, document: Document) -> ObjectKey:
        """Scan a CustomResourceDefinition. On a cluster its document is not stored: all of them take 100 MB."""
        key = key_of(document)
        if key.kind != CRD or self._objects.complete:
            self._objects.put(document)
        if key.kind != CRD:
            return key
        metadata = document["metadata"]
        version = (metadata.get("uid"), metadata.get("generation"))
        before = self._schemas.get(key.name)
        if before is not None and None not in version and before[0] == version:
            return key
        try:
            self._schemas[key.name] = version, scan(document)
        except MalformedObjectError as error:
            self._problems[key] = str(error)
            self._schemas.pop(key.name, None)
        else:
            self._problems.pop(key, None)
        self._fresh_schemas = True
        return key

    def _read(self, key: ObjectKey, model: type[BaseModel], document: Document) -> None:
        try:
            resource: Any = model.model_validate(document)
        except ValidationError as error:
            self._problems[key] = describe(error)
            # A vote or request that becomes invalid must not stay valid in its earlier form.
            self._note_access(key, None)
            self._renew(key)
            return
        if key.kind in _ACCESS:
            self._renew(key)
            self._note_access(key, resource)
        else:
            before = self._typed[key.kind].get(key.name)
            # A repeated list or new labels change nothing: the compiled form stays.
            if before is None or before.spec != resource.spec or key in self._problems:
                self._renew(key)
            self._typed[key.kind][key.name] = resource
        self._problems.pop(key, None)

    def _renew(self, key: ObjectKey) -> None:
        """Discard the compiled form of an object."""
        self._shared = None
        if key.kind == POLICIES:
            self._tested.discard(key.name)
        self._stale.add(key.kind)
        if key.kind == MODELS:
            self._changed_models.add(key.name)
        self._compiled.pop(key, None)

    def _catalog(self) -> Catalog:
        """Return the catalog of all models: the current one with the changed models, or a new one."""
        changed, self._changed_models = self._changed_models, set()
        models = self._typed[MODELS]
        settings = self._settings.storage
        before = self._snapshot.catalog if self._snapshot is not None else None
        if (
            before is None
            or before.backends is None
            or not before
            or before.is_worn
            or len(changed) > len(models) / 4 + 8
        ):
            return with_volumes(Catalog(models.values(), settings), self._objects)
        for name in changed:
            weights = models.get(name)
            if weights is None:
                before.discard(name)
            else:
                before.add(weights)
            before.backends.model_changed(name, Catalog([weights] if weights is not None else [], settings))
        return before.with_backends(before.backends)

    def _note_volume(self, key: ObjectKey) -> None:
        """Notify the catalog that a claim or volume may have changed. Other kinds cost one comparison."""
        if self._snapshot is not None and self._snapshot.catalog.backends is not None:
            self._snapshot.catalog.backends.changed(key)

    def _note_access(self, key: ObjectKey, resource: Any) -> None:
        if key.kind not in _ACCESS:
            return
        place = (key.kind.partition(".")[0], key.name)
        self._removed.add(place)
        self._written.pop(place, None)
        if resource is not None:
            self._written[place] = resource
        if len(self._removed) >= _MOST_WAITING:
            self._book(fresh_models=True)

    def share_policies(self, snapshot: Snapshot, builder: SnapshotBuilder) -> None:
        """Take the compiled policies of another builder's snapshot if both builders hold the same policies."""
        kinds = (POLICIES, NATIVE_POLICIES, NATIVE_BINDINGS)
        if all(_specs(self._typed[kind]) == _specs(builder._typed[kind]) for kind in kinds):
            self._shared = snapshot.policies

    def _policies(self) -> PolicySet:
        if self._shared is not None:
            return self._shared
        policies = [
            unreadable_policy(key.name, self._objects.get(key), problem)
            for key, problem in self._problems.items()
            if key.kind == POLICIES and key.name not in self._typed[POLICIES]
        ]
        for name, policy in self._typed[POLICIES].items():
            policies += self._compile(ObjectKey(POLICIES, "", name), name, policy.spec, policy.spec)
        for binding_name, binding in self._typed[NATIVE_BINDINGS].items():
            key = ObjectKey(NATIVE_BINDINGS, "", binding_name)
            native = self._typed[NATIVE_POLICIES].get(binding.spec.policy_name)
            if native is None:
                self._problems[key] = f"ValidatingAdmissionPolicy {binding.spec.policy_name} does not exist"
                continue
            # Compiled again if either of the two changed: a binding is part of the compiled policy.
            if NATIVE_POLICIES in self._stale:
                self._compiled.pop(key, None)
            policies += self._compile(key, native.metadata.name, native.spec, binding.spec)
        return PolicySet(policies)

    def _compile(
        self, key: ObjectKey, name: str, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec
    ) -> tuple[Policy, ...]:
        """Return the compiled policy. A policy that does not compile denies each request that it matches."""
        if key not in self._compiled:
            self._problems.pop(key, None)
            tested = key.kind == POLICIES and name in self._tested
            if tested and not self._matters(spec, binding):
                return ()
            try:
                policy = compile_policy(name, spec, binding, late_texts=tested)
            except PolicyError as error:
                self._problems[key] = str(error)
                policy = broken_policy(name, spec, binding, str(error))
            self._compiled[key] = (policy,)
        return self._compiled[key]

    def _matters(self, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec) -> bool:
        """Whether the rules of a policy can match a request that may follow. A faulty policy matters."""
        if self._kinds is None:
            return True
        try:
            matchers = [Matcher.compile(each) for each in (spec.match_constraints, binding.match_resources)]
        except SelectorError:
            return True
        return any(all(matcher.may_match(kind) for matcher in matchers) for kind in self._kinds)

    def _book(self, *, fresh_models: bool) -> GrantIndex:
        rules = (
            {name: model.spec.access for name, model in self._typed[MODELS].items()} if fresh_models else None
        )
        self._access = self._access.with_changes(self._written.values(), self._removed, rules)
        self._written.clear()
        self._removed.clear()
        return self._access


def _specs(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {name: resource.spec for name, resource in resources.items()}
