"""The workload kinds Weightlock knows: where each keeps its pod templates, one entry a kind.

``*`` stands for every item or value; a path that ends in ``:PodSpec`` runs to a pod spec without metadata of its own.
Kinds that make their pods from parts are in `workloadreaders`.
"""

from __future__ import annotations

POD_SPEC = ":PodSpec"

_RAY = ("headGroupSpec.template", "workerGroupSpecs.*.template")
_JOB_SET = "replicatedJobs.*.template.spec.template"
_LEADER_WORKER = ("leaderWorkerTemplate.leaderTemplate", "leaderWorkerTemplate.workerTemplate")
_LLM = tuple(
    f"spec.{path}{POD_SPEC}"
    for path in ("template", "worker", "prefill.template", "prefill.worker", "router.scheduler.template")
)


def _under(prefix: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{path}" for path in paths)


BUILT_IN: dict[str, tuple[str, ...]] = {
    "Pod": ("",),
    "PodTemplate": ("template",),
    "ReplicationController": ("spec.template",),
    "Deployment.apps": ("spec.template",),
    "StatefulSet.apps": ("spec.template",),
    "DaemonSet.apps": ("spec.template",),
    "ReplicaSet.apps": ("spec.template",),
    "Job.batch": ("spec.template",),
    "CronJob.batch": ("spec.jobTemplate.spec.template",),
    # Kubeflow training-operator v1, kubeflow.org/v1 and v2beta1.
    "PyTorchJob.kubeflow.org": ("spec.pytorchReplicaSpecs.*.template",),
    "TFJob.kubeflow.org": ("spec.tfReplicaSpecs.*.template",),
    "MPIJob.kubeflow.org": ("spec.mpiReplicaSpecs.*.template", "spec.template"),
    "XGBoostJob.kubeflow.org": ("spec.xgbReplicaSpecs.*.template",),
    "PaddleJob.kubeflow.org": ("spec.paddleReplicaSpecs.*.template",),
    "JAXJob.kubeflow.org": ("spec.jaxReplicaSpecs.*.template",),
    # Kubeflow trainer v2; podSpecOverrides and podTemplateOverrides came before runtimePatches.
    "TrainJob.trainer.kubeflow.org": (
        f"spec.runtimePatches.*.trainingRuntimeSpec.template.spec.{_JOB_SET}",
        f"spec.podTemplateOverrides.*.spec{POD_SPEC}",
        f"spec.podSpecOverrides.*{POD_SPEC}",
    ),
    "TrainingRuntime.trainer.kubeflow.org": (f"spec.template.spec.{_JOB_SET}",),
    "ClusterTrainingRuntime.trainer.kubeflow.org": (f"spec.template.spec.{_JOB_SET}",),
    "RayCluster.ray.io": _under("spec", _RAY),
    "RayJob.ray.io": (*_under("spec.rayClusterSpec", _RAY), "spec.submitterPodTemplate"),
    "RayCronJob.ray.io": (
        *_under("spec.jobTemplate.rayClusterSpec", _RAY),
        "spec.jobTemplate.submitterPodTemplate",
    ),
    "RayService.ray.io": (*_under("spec.rayClusterConfig", _RAY), *_under("spec.rayClusterSpec", _RAY)),
    "JobSet.jobset.x-k8s.io": (f"spec.{_JOB_SET}",),
    "LeaderWorkerSet.leaderworkerset.x-k8s.io": _under("spec", _LEADER_WORKER),
    "DisaggregatedSet.disaggregatedset.x-k8s.io": _under("spec.roles.*.spec", _LEADER_WORKER),
    "ServingRuntime.serving.kserve.io": (f"spec{POD_SPEC}", f"spec.workerSpec{POD_SPEC}"),
    "ClusterServingRuntime.serving.kserve.io": (f"spec{POD_SPEC}", f"spec.workerSpec{POD_SPEC}"),
    "LLMInferenceService.serving.kserve.io": _LLM,
    "LLMInferenceServiceConfig.serving.kserve.io": _LLM,
    # A Knative Revision has the shape of a pod itself.
    "Service.serving.knative.dev": ("spec.template",),
    "Configuration.serving.knative.dev": ("spec.template",),
    "Revision.serving.knative.dev": ("",),
    "Job.batch.volcano.sh": ("spec.tasks.*.template",),
    # Those that make pods themselves and not through a built-in workload.
    "Notebook.kubeflow.org": ("spec.template",),
    "Rollout.argoproj.io": ("spec.template",),
    "ScaledJob.keda.sh": ("spec.jobTargetRef.template",),
    "CloneSet.apps.kruise.io": ("spec.template",),
    "StatefulSet.apps.kruise.io": ("spec.template",),
    "DaemonSet.apps.kruise.io": ("spec.template",),
    "BroadcastJob.apps.kruise.io": ("spec.template",),
}

# Where a kind keeps the templates of claims it makes, named <template>-<workload> and perhaps ordinals.
CLAIM_TEMPLATES = {
    "StatefulSet.apps": "spec.volumeClaimTemplates",
    "StatefulSet.apps.kruise.io": "spec.volumeClaimTemplates",
    "LeaderWorkerSet.leaderworkerset.x-k8s.io": "spec.leaderWorkerTemplate.volumeClaimTemplates",
    "DisaggregatedSet.disaggregatedset.x-k8s.io": "spec.roles.*.spec.leaderWorkerTemplate.volumeClaimTemplates",
    "JobSet.jobset.x-k8s.io": "spec.volumeClaimPolicies.*.templates",
    "TrainingRuntime.trainer.kubeflow.org": "spec.template.spec.volumeClaimPolicies.*.templates",
    "ClusterTrainingRuntime.trainer.kubeflow.org": "spec.template.spec.volumeClaimPolicies.*.templates",
}
