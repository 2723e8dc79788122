"""References between objects: the lookups that readers make while they assemble the pods of a workload.

An object that must be fetched first ends the evaluation after all other lookups were made, so that one round fetches
everything. The number of references of one object is bounded.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import MissingObjectError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document

MAX_REFERENCES = 64
# The kinds that readers look up. The webhook's ClusterRole allows reading them; a test compares both.
REFERENCED = frozenset({
    "ClusterServingRuntime.serving.kserve.io", "ClusterTask.tekton.dev", "ClusterTrainingRuntime.trainer.kubeflow.org",
    "ClusterWorkflowTemplate.argoproj.io", "FlinkDeployment.flink.apache.org", "JobTemplate.flow.volcano.sh",
    "LLMInferenceServiceConfig.serving.kserve.io", "NIMCache.apps.nvidia.com", "Pipeline.tekton.dev",
    "RayCluster.ray.io", "SandboxTemplate.extensions.agents.x-k8s.io", "SandboxWarmPool.extensions.agents.x-k8s.io",
    "ServingRuntime.serving.kserve.io", "StepAction.tekton.dev", "Task.tekton.dev",
    "TrainingRuntime.trainer.kubeflow.org", "VirtualMachine.kubevirt.io", "WorkflowTemplate.argoproj.io",
})  # fmt: skip

_SANDBOXES = ("SandboxClaim.extensions.agents.x-k8s.io", "SandboxWarmPool.extensions.agents.x-k8s.io")
# Sensors, trigger templates and experiments create the workloads that they contain.
_WORKFLOWS = ("Workflow.argoproj.io", "CronWorkflow.argoproj.io", "Sensor.argoproj.io")
_TRIGGER = "TriggerTemplate.triggers.tekton.dev"
_TRAINING = ("TrainJob.trainer.kubeflow.org", "Experiment.kubeflow.org")
# The kinds whose pods come in part from an object of the kind. The webhook's ClusterRole allows listing them.
USERS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "WorkflowTemplate.argoproj.io": _WORKFLOWS,
    "ClusterWorkflowTemplate.argoproj.io": _WORKFLOWS,
    "TrainingRuntime.trainer.kubeflow.org": _TRAINING,
    "ClusterTrainingRuntime.trainer.kubeflow.org": _TRAINING,
    "ServingRuntime.serving.kserve.io": ("InferenceService.serving.kserve.io",),
    "ClusterServingRuntime.serving.kserve.io": ("InferenceService.serving.kserve.io",),
    "LLMInferenceServiceConfig.serving.kserve.io": ("LLMInferenceService.serving.kserve.io",),
    "Task.tekton.dev": ("TaskRun.tekton.dev", "PipelineRun.tekton.dev", _TRIGGER),
    "ClusterTask.tekton.dev": ("TaskRun.tekton.dev", "PipelineRun.tekton.dev", _TRIGGER),
    "Pipeline.tekton.dev": ("PipelineRun.tekton.dev", _TRIGGER),
    "StepAction.tekton.dev": ("TaskRun.tekton.dev", "PipelineRun.tekton.dev", _TRIGGER),
    "JobTemplate.flow.volcano.sh": ("JobFlow.flow.volcano.sh",),
    "SandboxTemplate.extensions.agents.x-k8s.io": _SANDBOXES,
    "SandboxWarmPool.extensions.agents.x-k8s.io": _SANDBOXES[:1],
})  # fmt: skip


class References(Protocol):
    """A source of referenced objects, such as `core.kube.objects.Lookup`."""

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """Return the object, or None if it does not exist. Raises `MissingObjectError` if that is unknown."""


class Resolver:
    """The references of one object, with the bound and with the names of those that do not exist."""

    def __init__(self, source: References) -> None:
        self._source = source
        self._count = 0
        self._incomplete: MissingObjectError | None = None

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """Return the object, an empty one if it must be fetched first, or None if it does not exist.

        Raises `MalformedObjectError` beyond the bound.
        """
        if "{{" in name or "{{" in namespace:
            # A placeholder has no value before the pods exist.
            return {}
        if kind not in REFERENCED:
            # A user wrote the kind; only those above can be read.
            return None
        self._count += 1
        if self._count > MAX_REFERENCES:
            raise MalformedObjectError("spec", f"refers to more than {MAX_REFERENCES} objects")
        try:
            return self._source.get(kind, namespace, name)
        except MissingObjectError as error:
            self._incomplete = error
            return {}

    def finish(self) -> None:
        """Raise `MissingObjectError` if an object must be fetched first."""
        if self._incomplete is not None:
            raise self._incomplete
