"""The controllers that write pods for other objects, and the owners that they may write them for.

A controller's write is decided by the pod's service account instead of the controller's own access. The check is
strict, since a controller writes what another user describes: it must own the kind of the pod's owner, Weightlock must
cover that kind, and the owner must exist and name the service account. For example, KubeRay creates a service account
that is named after a RayCluster. A cluster that is named after an account with a grant does not name that account, so
the write is decided by the access of KubeRay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.operators import BUILT_IN_OWNERS, PRESETS
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import group_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.workloads.templates import WorkloadTable

_PREFIX = "system:serviceaccount:"
_KUBE_SYSTEM = f"{_PREFIX}kube-system:"
# Kinds that other objects take pods from. No operator writes pods for them alone.
_TEMPLATE_KINDS = frozenset({
    "ClusterServingRuntime.serving.kserve.io", "ClusterTask.tekton.dev", "ClusterTrainingRuntime.trainer.kubeflow.org",
    "ClusterWorkflowTemplate.argoproj.io", "LLMInferenceServiceConfig.serving.kserve.io", "Pipeline.tekton.dev",
    "SandboxTemplate.extensions.agents.x-k8s.io", "ServingRuntime.serving.kserve.io", "StepAction.tekton.dev",
    "Task.tekton.dev", "TrainingRuntime.trainer.kubeflow.org", "WorkflowTemplate.argoproj.io",
})  # fmt: skip


class Controllers:
    """The controllers of some settings, compiled."""

    __slots__ = ("_operators", "_owns", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # The kinds that each identity owns; None: any kind that contains pods.
        self._owns: dict[str, frozenset[str] | None] = {}
        self._operators: set[str] = set()
        for username in settings.controllers:
            self._add(username, _owned_by(username))
        for operator in settings.operators:
            preset = PRESETS.get(operator.name)
            namespace = operator.namespace or (preset.namespace if preset else "")
            owns = frozenset(operator.owns or (preset.owns if preset else ()))
            for account in operator.accounts or (preset.accounts if preset else ()):
                self._add(f"{_PREFIX}{namespace}:{account}", owns)

    def _add(self, username: str, owns: frozenset[str] | None) -> None:
        before = self._owns.get(username, frozenset())
        self._owns[username] = None if owns is None or before is None else before | owns
        if not username.startswith(_KUBE_SYSTEM):
            self._operators.add(username)

    def __contains__(self, username: str) -> bool:
        return username in self._owns

    def owns(self, username: str, kind: str) -> bool:
        """Whether the identity writes pods for owners of this kind."""
        kinds = self._owns.get(username, frozenset())
        return kinds is None or kind in kinds

    def is_operator(self, username: str) -> bool:
        """Whether the identity is listed and is not a controller of Kubernetes itself."""
        return username in self._operators

    def owner_listed(self, kind: str) -> bool:
        """Whether any listed controller writes pods for owners of this kind."""
        return any(kinds is None or kind in kinds for kinds in self._owns.values())


_last: list[Controllers] = []


def controllers_of(settings: Settings) -> Controllers:
    """The compiled controllers of these settings. The last ones stay compiled: settings rarely change."""
    if not _last or _last[0].settings is not settings:
        _last[:] = [Controllers(settings)]
    return _last[0]


def writes_for_owner(
    request: AdmissionRequest, settings: Settings, workloads: WorkloadTable, lookup: Lookup, account: str
) -> bool:
    """Whether a listed controller writes the object for an owner that Weightlock covers, under ``account``.

    Raises `MissingObjectError` if the owner must be fetched first.
    """
    controllers, username = controllers_of(settings), request.user.username
    if username not in controllers or request.object is None:
        return False
    metadata = request.object.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    if not isinstance(owners, list):
        # Controllers also update the status and annotations of objects that have no owner, such as a Deployment.
        return request.operation == "UPDATE"
    for owner in owners:
        if isinstance(owner, dict) and owner.get("controller") is True:
            kind = _kind_of(owner)
            if not controllers.owns(username, kind):
                return False
            if not controllers.is_operator(username):
                return True
            return kind in workloads and _names_account(owner, kind, request, workloads, lookup, account)
    return False


def unlisted_operators(kind: str, settings: Settings) -> tuple[str, ...] | None:
    """The presets that own a custom kind, if no listed controller does; None if one is listed or none is needed."""
    group = kind.partition(".")[2]
    if (
        group in ("", "apps", "batch")
        or kind in _TEMPLATE_KINDS
        or controllers_of(settings).owner_listed(kind)
    ):
        return None
    return tuple(name for name, preset in PRESETS.items() if kind in preset.owns)


def _owned_by(username: str) -> frozenset[str] | None:
    """The kinds of a plain entry of ``controllers``: those of its built-in controller or preset, otherwise any."""
    if username.startswith(_KUBE_SYSTEM):
        kinds = BUILT_IN_OWNERS.get(username.removeprefix(_KUBE_SYSTEM))
        return None if kinds is None else frozenset(kinds)
    account = username.rpartition(":")[2]
    kinds = tuple(kind for preset in PRESETS.values() if account in preset.accounts for kind in preset.owns)
    return frozenset(kinds) or None


def _kind_of(owner: Mapping[str, Any]) -> str:
    return group_kind(str(owner.get("apiVersion") or ""), str(owner.get("kind") or ""))


def _names_account(
    owner: Mapping[str, Any],
    kind: str,
    request: AdmissionRequest,
    workloads: WorkloadTable,
    lookup: Lookup,
    account: str,
) -> bool:
    """Whether the owner exists and one of its templates names the service account."""
    name = owner.get("name")
    if not isinstance(name, str) or not name:
        return False
    document = lookup.get(kind, request.namespace, name)
    if document is None:
        # A state directory need not contain the owner; on a cluster an owner that does not exist was never admitted.
        return lookup.store.complete
    uid = (document.get("metadata") or {}).get("uid")
    if uid and owner.get("uid") and uid != owner["uid"]:
        return False
    short, _, group = kind.partition(".")
    try:
        templates = workloads.templates(document, group, short, lookup)
    except MalformedObjectError:
        return False
    return any(_account_of(template.pod) == account for template in templates)


def _account_of(pod: Document) -> str:
    spec = pod.get("spec")
    name = (spec.get("serviceAccountName") or spec.get("serviceAccount")) if isinstance(spec, dict) else None
    return name if isinstance(name, str) and name else "default"
