"""Presets for the operators that write pods and workloads: their service accounts and the kinds they own.

Each account is that of the project's own chart or manifests, in its default namespace. ``settings.operators`` lists
presets by name, or with another namespace or account. A pod that a listed operator writes is decided by the pod's
service account only if the operator owns the kind of the pod's owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Preset:
    """One operator: its namespace and service accounts by default, and the kinds it owns, as ``Kind.group``."""

    project: str
    namespace: str
    accounts: tuple[str, ...]
    owns: tuple[str, ...]


_KSERVE_KINDS = (
    "InferenceService.serving.kserve.io",
    "InferenceGraph.serving.kserve.io",
    "LLMInferenceService.serving.kserve.io",
    "LocalModelCache.serving.kserve.io",
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "jobset": Preset(
            "kubernetes-sigs/jobset",
            "jobset-system",
            ("jobset-controller-manager", "jobset-controller"),
            ("JobSet.jobset.x-k8s.io",),
        ),
        "lws": Preset(
            "kubernetes-sigs/lws",
            "lws-system",
            ("lws-controller-manager",),
            (
                "LeaderWorkerSet.leaderworkerset.x-k8s.io",
                "DisaggregatedSet.disaggregatedset.x-k8s.io",
                "StatefulSet.apps",
            ),
        ),
        # Kueue writes the templates of the workloads that it queues, and the pods of a pod group.
        "kueue": Preset(
            "kubernetes-sigs/kueue",
            "kueue-system",
            ("kueue-controller-manager",),
            ("Workload.kueue.x-k8s.io",),
        ),
        "kuberay": Preset(
            "ray-project/kuberay",
            "kuberay",
            ("kuberay-operator",),
            ("RayCluster.ray.io", "RayJob.ray.io", "RayService.ray.io", "RayCronJob.ray.io"),
        ),
        "training-operator": Preset(
            "kubeflow/training-operator",
            "kubeflow",
            ("training-operator",),
            tuple(
                f"{kind}.kubeflow.org"
                for kind in ("PyTorchJob", "TFJob", "MPIJob", "XGBoostJob", "PaddleJob", "JAXJob")
            ),
        ),
        "trainer": Preset(
            "kubeflow/trainer",
            "kubeflow-system",
            ("kubeflow-trainer-controller-manager",),
            ("TrainJob.trainer.kubeflow.org",),
        ),
        "mpi-operator": Preset(
            "kubeflow/mpi-operator", "mpi-operator", ("mpi-operator",), ("MPIJob.kubeflow.org",)
        ),
        "notebooks": Preset(
            "kubeflow/notebooks",
            "kubeflow",
            ("notebook-controller-service-account",),
            ("Notebook.kubeflow.org",),
        ),
        "katib": Preset(
            "kubeflow/katib",
            "kubeflow",
            ("katib-controller",),
            ("Experiment.kubeflow.org", "Suggestion.kubeflow.org", "Trial.kubeflow.org"),
        ),
        "argo-workflows": Preset(
            "argoproj/argo-workflows",
            "argo",
            ("argo", "argo-workflows-workflow-controller"),
            ("Workflow.argoproj.io", "CronWorkflow.argoproj.io"),
        ),
        "argo-rollouts": Preset(
            "argoproj/argo-rollouts", "argo-rollouts", ("argo-rollouts",), ("Rollout.argoproj.io",)
        ),
        "kserve": Preset(
            "kserve/kserve",
            "kserve",
            (
                "kserve-controller-manager",
                "llmisvc-controller-manager",
                "kserve-localmodel-controller-manager",
            ),
            _KSERVE_KINDS,
        ),
        "knative-serving": Preset(
            "knative/serving",
            "knative-serving",
            ("controller",),
            (
                *(f"{kind}.serving.knative.dev" for kind in ("Service", "Configuration", "Revision")),
                "PodAutoscaler.autoscaling.internal.knative.dev",
            ),
        ),
        "volcano": Preset(
            "volcano-sh/volcano",
            "volcano-system",
            ("volcano-controllers",),
            (
                "Job.batch.volcano.sh",
                "CronJob.batch.volcano.sh",
                "JobFlow.flow.volcano.sh",
                "JobTemplate.flow.volcano.sh",
            ),
        ),
        "dynamo": Preset(
            "ai-dynamo/dynamo",
            "dynamo-system",
            ("dynamo-platform-dynamo-operator-controller-manager",),
            tuple(
                f"{kind}.nvidia.com"
                for kind in ("DynamoGraphDeployment", "DynamoComponentDeployment", "DynamoCheckpoint")
            ),
        ),
        "grove": Preset(
            "ai-dynamo/grove",
            "grove-system",
            ("grove-operator",),
            ("PodCliqueSet.grove.io", "PodCliqueScalingGroup.grove.io", "PodClique.grove.io"),
        ),
        "nim": Preset(
            "NVIDIA/k8s-nim-operator",
            "nim-operator",
            ("k8s-nim-operator",),
            tuple(f"{kind}.apps.nvidia.com" for kind in ("NIMService", "NIMCache", "NIMPipeline")),
        ),
        "spark": Preset(
            "kubeflow/spark-operator",
            "spark-operator",
            ("spark-operator-controller", "spark-operator"),
            tuple(
                f"{kind}.sparkoperator.k8s.io"
                for kind in ("SparkApplication", "ScheduledSparkApplication", "SparkConnect")
            ),
        ),
        "apache-spark": Preset(
            "apache/spark-kubernetes-operator",
            "spark-kubernetes-operator",
            ("spark-operator",),
            ("SparkApplication.spark.apache.org", "SparkCluster.spark.apache.org"),
        ),
        "tekton": Preset(
            "tektoncd/pipeline",
            "tekton-pipelines",
            ("tekton-pipelines-controller",),
            ("TaskRun.tekton.dev", "PipelineRun.tekton.dev", "CustomRun.tekton.dev"),
        ),
        "kubevirt": Preset(
            "kubevirt/kubevirt",
            "kubevirt",
            ("kubevirt-controller",),
            (
                "VirtualMachine.kubevirt.io",
                "VirtualMachineInstance.kubevirt.io",
                "VirtualMachineInstanceReplicaSet.kubevirt.io",
                "VirtualMachineExport.export.kubevirt.io",
                "VirtualMachinePool.pool.kubevirt.io",
            ),
        ),
        "slinky": Preset(
            "SlinkyProject/slurm-operator",
            "slinky",
            ("slurm-operator",),
            tuple(
                f"{kind}.slinky.slurm.net"
                for kind in ("NodeSet", "LoginSet", "Controller", "Accounting", "RestApi")
            ),
        ),
        "keda": Preset("kedacore/keda", "keda", ("keda-operator",), ("ScaledJob.keda.sh",)),
        "kruise": Preset(
            "openkruise/kruise",
            "kruise-system",
            ("kruise-manager",),
            tuple(
                f"{kind}.apps.kruise.io"
                for kind in (
                    "CloneSet",
                    "StatefulSet",
                    "DaemonSet",
                    "BroadcastJob",
                    "AdvancedCronJob",
                    "UnitedDeployment",
                )
            ),
        ),
        "codeflare": Preset(
            "project-codeflare/appwrapper",
            "appwrapper-system",
            ("appwrapper-controller-manager",),
            ("AppWrapper.workload.codeflare.dev",),
        ),
        "sandbox": Preset(
            "kubernetes-sigs/agent-sandbox",
            "agent-sandbox-system",
            ("agent-sandbox-controller",),
            (
                "Sandbox.agents.x-k8s.io",
                "SandboxClaim.extensions.agents.x-k8s.io",
                "SandboxWarmPool.extensions.agents.x-k8s.io",
            ),
        ),
        "flink": Preset(
            "apache/flink-kubernetes-operator",
            "flink",
            ("flink-operator",),
            ("FlinkDeployment.flink.apache.org", "FlinkBlueGreenDeployment.flink.apache.org"),
        ),
        "dask": Preset(
            "dask/dask-kubernetes",
            "dask-operator",
            ("dask-kubernetes-operator",),
            tuple(
                f"{kind}.kubernetes.dask.org"
                for kind in ("DaskCluster", "DaskWorkerGroup", "DaskJob", "DaskAutoscaler")
            ),
        ),
        "fluid": Preset(
            "fluid-cloudnative/fluid",
            "fluid-system",
            tuple(
                f"{name}-controller"
                for name in (
                    "alluxioruntime",
                    "cacheruntime",
                    "dataset",
                    "efcruntime",
                    "jindoruntime",
                    "juicefsruntime",
                    "thinruntime",
                    "vineyardruntime",
                )
            ),
            tuple(
                f"{kind}.data.fluid.io"
                for kind in (
                    "AlluxioRuntime",
                    "CacheRuntime",
                    "DataBackup",
                    "DataLoad",
                    "DataMigrate",
                    "DataProcess",
                    "EFCRuntime",
                    "JindoRuntime",
                    "JuiceFSRuntime",
                    "ThinRuntime",
                    "VineyardRuntime",
                )
            ),
        ),
        "flyte": Preset(
            "flyteorg/flyte", "flyte", ("flyte-binary", "flytepropeller"), ("FlyteWorkflow.flyte.lyft.com",)
        ),
        "llmaz": Preset(
            "InftyAI/llmaz",
            "llmaz-system",
            ("llmaz-controller-manager",),
            ("Playground.inference.llmaz.io", "Service.inference.llmaz.io"),
        ),
        "kaito": Preset(
            "kaito-project/kaito",
            "kaito-workspace",
            ("kaito-workspace-sa",),
            ("Workspace.kaito.sh", "InferenceSet.kaito.sh"),
        ),
        "kubeai": Preset("substratusai/kubeai", "kubeai", ("kubeai",), ("Model.kubeai.org",)),
        "vllm": Preset(
            "vllm-project/production-stack",
            "production-stack-system",
            ("production-stack-controller-manager",),
            ("VLLMRuntime.production-stack.vllm.ai", "CacheServer.production-stack.vllm.ai"),
        ),
        "kthena": Preset(
            "volcano-sh/kthena",
            "kthena-system",
            ("kthena-controller-manager",),
            ("ModelServing.workload.serving.volcano.sh", "ModelBooster.workload.serving.volcano.sh"),
        ),
        "rbg": Preset(
            "sgl-project/rbg",
            "rbgs-system",
            ("rbgs-controller-sa",),
            tuple(
                f"{kind}.workloads.x-k8s.io"
                for kind in (
                    "RoleBasedGroup",
                    "RoleBasedGroupSet",
                    "RoleInstance",
                    "RoleInstanceSet",
                    "Warmup",
                )
            ),
        ),
        "ome": Preset(
            "sgl-project/ome",
            "ome",
            ("ome-controller-manager",),
            ("InferenceService.ome.io", "BenchmarkJob.ome.io"),
        ),
        "seldon": Preset(
            "SeldonIO/seldon-core",
            "seldon-mesh",
            ("seldon-v2-controller-manager",),
            ("Server.mlops.seldon.io", "SeldonRuntime.mlops.seldon.io"),
        ),
        "aibrix": Preset(
            "vllm-project/aibrix",
            "aibrix-system",
            ("aibrix-controller-manager",),
            tuple(
                f"{kind}.orchestration.aibrix.ai"
                for kind in (
                    "StormService",
                    "RoleSet",
                    "PodSet",
                    "KVCache",
                    "RayClusterFleet",
                    "RayClusterReplicaSet",
                )
            ),
        ),
    }
)

# The controllers of kube-controller-manager, and the kinds whose pods or workloads they write.
BUILT_IN_OWNERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "replicaset-controller": ("ReplicaSet.apps",),
        "deployment-controller": ("Deployment.apps",),
        "statefulset-controller": ("StatefulSet.apps",),
        "daemon-set-controller": ("DaemonSet.apps",),
        "replication-controller": ("ReplicationController",),
        "job-controller": ("Job.batch",),
        "cronjob-controller": ("CronJob.batch",),
    }
)
