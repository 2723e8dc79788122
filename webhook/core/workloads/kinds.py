"""The built-in workload kinds: where each keeps its pods and parts of pods, one entry per kind.

``*`` stands for every item or value. A suffix names a part (`schema.Part`): ``:PodSpec`` is a pod spec without its own
metadata, ``:freeForm`` a field that is searched by shape. Kinds that assemble their pods are in `readers`. A kind whose
CustomResourceDefinition shows its pods needs no entry.
"""

from __future__ import annotations

POD_SPEC = ":PodSpec"

# The operator runs the autoscaler as one more container of the head pod, and mounts the claim of its database there.
_RAY = (
    "headGroupSpec.template",
    "workerGroupSpecs.*.template",
    "autoscalerOptions:container",
    "gcsFaultToleranceOptions.storage.claimName:claimName",
)
_VOLCANO = ("tasks.*.template", "volumes.*.volumeClaimName:claimName", "volumes.*.volumeClaim:claimSpec")
_JOB_SET = "replicatedJobs.*.template.spec.template"
_LEADER_WORKER = ("leaderWorkerTemplate.leaderTemplate", "leaderWorkerTemplate.workerTemplate")


_SLINKY = ("spec.template", "spec.logfile:container", "spec.volumeClaimTemplates:claimTemplates")
_MODEL_CACHE = ("spec.sourceModelUri:modelAddress", "spec.serviceAccountName:serviceAccount")


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
    # Kubeflow trainer v2; a reader assembles TrainJobs.
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
    # A Knative Revision has the shape of a pod itself.
    "Service.serving.knative.dev": ("spec.template",),
    "Configuration.serving.knative.dev": ("spec.template",),
    "Revision.serving.knative.dev": ("",),
    # Volcano mounts the volumes of the job into every task's pod.
    "Job.batch.volcano.sh": _under("spec", _VOLCANO),
    "CronJob.batch.volcano.sh": _under("spec.jobTemplate.spec", _VOLCANO),
    "JobTemplate.flow.volcano.sh": _under("spec", _VOLCANO),
    "JobFlow.flow.volcano.sh": ("spec.flows.*.patch.jobSpec:freeForm",),
    # Kinds whose controllers create pods directly, not through a built-in workload.
    "Notebook.kubeflow.org": ("spec.template",),
    "Rollout.argoproj.io": ("spec.template",),
    "ScaledJob.keda.sh": ("spec.jobTargetRef.template",),
    "CloneSet.apps.kruise.io": ("spec.template",),
    "StatefulSet.apps.kruise.io": ("spec.template",),
    "DaemonSet.apps.kruise.io": ("spec.template",),
    "BroadcastJob.apps.kruise.io": ("spec.template",),
    # Kruise injects these containers into pods of other users.
    "SidecarSet.apps.kruise.io": ("spec:PodSpec",),
    "AdvancedCronJob.apps.kruise.io": (
        "spec.template.jobTemplate:freeForm",
        "spec.template.broadcastJobTemplate:freeForm",
    ),
    # The patches of its subsets change the pods.
    "UnitedDeployment.apps.kruise.io": ("spec.template:freeForm", "spec.topology:freeForm"),
    # Slurm on Kubernetes: the containers of the daemons join the pod of the template.
    "NodeSet.slinky.slurm.net": (*_SLINKY, "spec.slurmd:container"),
    "LoginSet.slinky.slurm.net": (*_SLINKY, "spec.login:container"),
    "Controller.slinky.slurm.net": (*_SLINKY, "spec.slurmctld:container", "spec.reconfigure:container"),
    "Accounting.slinky.slurm.net": (*_SLINKY, "spec.slurmdbd:container"),
    "RestApi.slinky.slurm.net": (*_SLINKY, "spec.slurmrestd:container"),
    # KServe copies the model with this account to volumes that it creates in user namespaces.
    "LocalModelCache.serving.kserve.io": _MODEL_CACHE,
    "LocalModelNamespaceCache.serving.kserve.io": _MODEL_CACHE,
    "LocalModelNodeGroup.serving.kserve.io": (
        "spec.persistentVolumeSpec:volumeSource",
        "spec.persistentVolumeClaimSpec:claimSpec",
    ),
    "ClusterStorageContainer.serving.kserve.io": ("spec.container:container",),
    # Objects inside objects. The decision applies to the user who writes the outer object.
    "AppWrapper.workload.codeflare.dev": ("spec.components.*.template:freeForm",),
    "ManifestWork.work.open-cluster-management.io": ("spec.workload.manifests.*:freeForm",),
    "ManifestWorkReplicaSet.work.open-cluster-management.io": (
        "spec.manifestWorkTemplate.workload.manifests.*:freeForm",
    ),
    "Work.work.karmada.io": ("spec.workload.manifests.*:freeForm",),
    "Sensor.argoproj.io": ("spec:freeForm",),
    "TriggerTemplate.triggers.tekton.dev": ("spec.resourcetemplates.*:freeForm",),
    "Experiment.kubeflow.org": ("spec.trialTemplate.trialSpec:freeForm",),
    "Trial.kubeflow.org": ("spec.runSpec:freeForm",),
    "ResourceDistribution.apps.kruise.io": ("spec.resource:freeForm",),
    "JobSink.sinks.knative.dev": ("spec.job:freeForm",),
    "ContainerSource.sources.knative.dev": ("spec.template",),
    "OptimizationJob.trainer.kubeflow.org": ("spec.trainJobTemplate:freeForm",),
}

# Where a kind keeps the templates of its claims, named <template>-<workload> and perhaps ordinals.
CLAIM_TEMPLATES = {
    "StatefulSet.apps": "spec.volumeClaimTemplates",
    "StatefulSet.apps.kruise.io": "spec.volumeClaimTemplates",
    "CloneSet.apps.kruise.io": "spec.volumeClaimTemplates",
    "LeaderWorkerSet.leaderworkerset.x-k8s.io": "spec.leaderWorkerTemplate.volumeClaimTemplates",
    "DisaggregatedSet.disaggregatedset.x-k8s.io": "spec.roles.*.spec.leaderWorkerTemplate.volumeClaimTemplates",
    "JobSet.jobset.x-k8s.io": "spec.volumeClaimPolicies.*.templates",
    "TrainingRuntime.trainer.kubeflow.org": "spec.template.spec.volumeClaimPolicies.*.templates",
    "ClusterTrainingRuntime.trainer.kubeflow.org": "spec.template.spec.volumeClaimPolicies.*.templates",
}
