{{/* The kinds that contain pod templates, by API group. A test compares them with the code. */}}
{{- define "weightlock.workloads" -}}
"": [pods, podtemplates, replicationcontrollers]
apps: [daemonsets, deployments, replicasets, statefulsets]
apps.kruise.io: [advancedcronjobs, broadcastjobs, clonesets, daemonsets, podprobemarkers, resourcedistributions, sidecarsets, statefulsets, uniteddeployments, workloadspreads]
apps.nvidia.com: [nimcaches, nimpipelines, nimservices]
argoproj.io: [clusterworkflowtemplates, cronworkflows, rollouts, sensors, workflows, workflowtemplates]
batch: [cronjobs, jobs]
batch.volcano.sh: [cronjobs, jobs]
cdi.kubevirt.io: [datavolumes]
data.fluid.io: [datasets]
disaggregatedset.x-k8s.io: [disaggregatedsets]
export.kubevirt.io: [virtualmachineexports]
extensions.agents.x-k8s.io: [sandboxclaims, sandboxwarmpools]
flink.apache.org: [flinksessionjobs]
flow.volcano.sh: [jobflows, jobtemplates]
jobset.x-k8s.io: [jobsets]
keda.sh: [scaledjobs]
kubeai.org: [models]
kubeflow.org: [experiments, jaxjobs, mpijobs, notebooks, paddlejobs, pytorchjobs, tfjobs, trials, xgboostjobs]
kubevirt.io: [virtualmachineinstancereplicasets, virtualmachineinstances, virtualmachines]
leaderworkerset.x-k8s.io: [leaderworkersets]
opentelemetry.io: [instrumentations, opentelemetrycollectors]
pool.kubevirt.io: [virtualmachinepools]
production-stack.vllm.ai: [cacheservers, vllmruntimes]
ray.io: [rayclusters, raycronjobs, rayjobs, rayservices]
serving.knative.dev: [configurations, revisions, services]
serving.kserve.io: [clusterservingruntimes, clusterstoragecontainers, inferenceservices, llminferenceserviceconfigs, llminferenceservices, localmodelcaches, localmodelnamespacecaches, localmodelnodegroups, servingruntimes]
sinks.knative.dev: [jobsinks]
slinky.slurm.net: [accountings, controllers, loginsets, nodesets, restapis]
sources.knative.dev: [containersources]
sparkoperator.k8s.io: [scheduledsparkapplications, sparkapplications, sparkconnects]
tekton.dev: [clustertasks, pipelineruns, pipelines, stepactions, taskruns, tasks]
trainer.kubeflow.org: [clustertrainingruntimes, optimizationjobs, trainingruntimes, trainjobs]
work.karmada.io: [works]
work.open-cluster-management.io: [manifestworkreplicasets, manifestworks]
workload.codeflare.dev: [appwrappers]
workload.serving.volcano.sh: [modelboosters]
{{- end -}}

{{/* The kinds that workloads refer to and owners of pods, by API group: the webhook reads them by name. */}}
{{- define "weightlock.referenced" -}}
agents.x-k8s.io: [sandboxes]
apps: [statefulsets]
apps.kruise.io: [advancedcronjobs, broadcastjobs, clonesets, daemonsets, statefulsets, uniteddeployments]
apps.nvidia.com: [nimcaches, nimpipelines, nimservices]
argoproj.io: [clusterworkflowtemplates, cronworkflows, rollouts, workflows, workflowtemplates]
autoscaling.internal.knative.dev: [podautoscalers]
batch.volcano.sh: [cronjobs, jobs]
disaggregatedset.x-k8s.io: [disaggregatedsets]
export.kubevirt.io: [virtualmachineexports]
extensions.agents.x-k8s.io: [sandboxclaims, sandboxtemplates, sandboxwarmpools]
flink.apache.org: [flinkbluegreendeployments, flinkdeployments]
flow.volcano.sh: [jobflows, jobtemplates]
grove.io: [podcliques, podcliquescalinggroups, podcliquesets]
jobset.x-k8s.io: [jobsets]
kaito.sh: [inferencesets, workspaces]
keda.sh: [scaledjobs]
kubeai.org: [models]
kubeflow.org: [experiments, jaxjobs, mpijobs, notebooks, paddlejobs, pytorchjobs, suggestions, tfjobs, trials, xgboostjobs]
kubevirt.io: [virtualmachineinstancereplicasets, virtualmachineinstances, virtualmachines]
kueue.x-k8s.io: [workloads]
leaderworkerset.x-k8s.io: [leaderworkersets]
mlops.seldon.io: [seldonruntimes, servers]
nvidia.com: [dynamocheckpoints, dynamocomponentdeployments, dynamographdeployments]
ome.io: [benchmarkjobs, inferenceservices]
orchestration.aibrix.ai: [kvcaches, podsets, rayclusterfleets, rayclusterreplicasets, rolesets, stormservices]
pool.kubevirt.io: [virtualmachinepools]
production-stack.vllm.ai: [cacheservers, vllmruntimes]
ray.io: [rayclusters, raycronjobs, rayjobs, rayservices]
serving.knative.dev: [configurations, revisions, services]
serving.kserve.io: [clusterservingruntimes, inferencegraphs, inferenceservices, llminferenceserviceconfigs, llminferenceservices, localmodelcaches, servingruntimes]
slinky.slurm.net: [accountings, controllers, loginsets, nodesets, restapis]
sparkoperator.k8s.io: [scheduledsparkapplications, sparkapplications, sparkconnects]
tekton.dev: [clustertasks, customruns, pipelineruns, pipelines, stepactions, taskruns, tasks]
trainer.kubeflow.org: [clustertrainingruntimes, trainingruntimes, trainjobs]
workload.codeflare.dev: [appwrappers]
workload.serving.volcano.sh: [modelboosters, modelservings]
workloads.x-k8s.io: [rolebasedgroups, rolebasedgroupsets, roleinstances, roleinstancesets, warmups]
{{- end -}}

{{/* The kinds whose pods come in part from an object that another user may change. The webhook lists them to decide the change. */}}
{{- define "weightlock.users" -}}
argoproj.io: [cronworkflows, workflows]
extensions.agents.x-k8s.io: [sandboxclaims, sandboxwarmpools]
flow.volcano.sh: [jobflows]
serving.kserve.io: [inferenceservices, llminferenceservices]
tekton.dev: [pipelineruns, taskruns]
trainer.kubeflow.org: [trainjobs]
{{- end -}}

{{/* Additional rules of the validating webhook: API group, resources, operations. */}}
{{- define "weightlock.validated" -}}
- ["", [pods/ephemeralcontainers, pods/resize], [UPDATE]]
- ["", [bindings, pods/binding, serviceaccounts/token], [CREATE]]
- ["", [pods/exec, pods/attach, pods/portforward, pods/proxy, services/proxy, nodes/proxy], [CONNECT]]
- ["", [namespaces, namespaces/status, namespaces/finalize], [UPDATE]]
- ["", [persistentvolumeclaims, persistentvolumes, secrets, serviceaccounts], [CREATE, UPDATE]]
- ["", [persistentvolumeclaims/status, persistentvolumes/status], [UPDATE]]
- [apps.nvidia.com, [nimcaches], [CREATE, UPDATE]]
- [apiextensions.k8s.io, [customresourcedefinitions], [UPDATE, DELETE]]
- [cdi.kubevirt.io, [datasources, datavolumes], [CREATE, UPDATE]]
- [checkpoint.k8s.io, [podcheckpoints], [CREATE, UPDATE]]
- [cilium.io, [ciliumclusterwidenetworkpolicies, ciliumegressgatewaypolicies, ciliumlocalredirectpolicies, ciliumnetworkpolicies], [CREATE, UPDATE]]
- [clone.kubevirt.io, [virtualmachineclones], [CREATE, UPDATE]]
- [crd.antrea.io, [clusternetworkpolicies, networkpolicies], [CREATE, UPDATE]]
- [crd.projectcalico.org, [globalnetworkpolicies, networkpolicies, stagednetworkpolicies], [CREATE, UPDATE]]
- [data.fluid.io, [databackups, dataloads, datamigrates, dataprocesses, datasets], [CREATE, UPDATE]]
- [export.kubevirt.io, [virtualmachineexports], [CREATE, UPDATE]]
- [groupsnapshot.storage.k8s.io, [volumegroupsnapshotcontents, volumegroupsnapshots], [CREATE, UPDATE]]
- [k8s.ovn.org, [egressfirewalls], [CREATE, UPDATE]]
- [kaito.sh, [checkpoints], [CREATE, UPDATE]]
- [longhorn.io, [backups, volumes], [CREATE, UPDATE]]
- [network.openshift.io, [egressnetworkpolicies], [CREATE, UPDATE]]
- [networking.k8s.io, [networkpolicies], [CREATE, UPDATE, DELETE]]
- [nvidia.com, [podsnapshotcontents, podsnapshots], [CREATE, UPDATE]]
- [podsnapshot.gke.io, [podsnapshotmanualtriggers, podsnapshotpolicies], [CREATE, UPDATE]]
- [policy.networking.k8s.io, [adminnetworkpolicies, clusternetworkpolicies], [CREATE, UPDATE]]
- [projectcalico.org, [globalnetworkpolicies, networkpolicies, stagednetworkpolicies], [CREATE, UPDATE]]
- [resource.k8s.io, [clusterresourceclaimtemplates, deviceclasses, resourceclaims, resourceclaimtemplates], [CREATE, UPDATE]]
- [serving.kserve.io, [localmodelcaches, localmodelnamespacecaches], [CREATE, UPDATE]]
- [snapshot.kubevirt.io, [virtualmachinesnapshots], [CREATE, UPDATE]]
- [snapshot.storage.k8s.io, [volumesnapshotcontents, volumesnapshots], [CREATE, UPDATE]]
- [storage.k8s.io, [csidrivers], [CREATE, UPDATE]]
- [weightlock.dev, [accessapprovals, accessrequests, imagetrusts, modelweights, weightpolicies], [CREATE, UPDATE, DELETE]]
- [weightlock.dev, [accessapprovals/status, accessrequests/status], [UPDATE]]
{{- end -}}

{{- define "weightlock.mutated" -}}
- ["", [pods], [CREATE]]
- ["", [pods/ephemeralcontainers], [UPDATE]]
- [weightlock.dev, [accessapprovals, accessrequests], [CREATE]]
{{- end -}}

{{/* One rule of a webhook from group, resources and operations. */}}
{{- define "weightlock.rule" }}
- apiGroups: [{{ index . 0 | quote }}]
  apiVersions: ["*"]
  resources: {{ index . 1 | toJson }}
  operations: {{ index . 2 | toJson }}
  scope: "*"
{{- end -}}

{{/* The clientConfig of one path of the webhook. */}}
{{- define "weightlock.clientConfig" -}}
{{- $url := .url | default .root.Values.webhook.url -}}
{{- if $url -}}
url: {{ printf "%s%s" (trimSuffix "/" $url) .path | quote }}
{{- else -}}
service: {name: {{ include "weightlock.fullname" .root }}-webhook, namespace: {{ .root.Release.Namespace | quote }}, path: {{ .path }}, port: 443}
{{- end }}
{{- with .caBundle }}
caBundle: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Exemptions use the only namespace label that users cannot set. */}}
{{- define "weightlock.webhook" -}}
admissionReviewVersions: [v1]
clientConfig:
  {{- include "weightlock.clientConfig" . | nindent 2 }}
namespaceSelector:
  matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ include "weightlock.exempt" .root }}}
failurePolicy: Fail
matchPolicy: Equivalent
sideEffects: None
timeoutSeconds: {{ .root.Values.webhook.timeoutSeconds }}
{{- end -}}

{{/* Both webhook configurations, as installed and as controller and broker expect them. */}}
{{- define "weightlock.webhooks" -}}
{{- $metadata := include "weightlock.webhookMetadata" . -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
{{ $metadata }}
webhooks:
- name: validate.weightlock.dev
  {{- include "weightlock.webhook" (merge (dict "path" "/validate") .) | nindent 2 }}
  matchConditions:
  # A node starts admitted pods, with or without Weightlock. It gets tokens only for the pods bound to it.
  - name: tokens-but-those-for-kubelets
    expression: "!(request.resource.resource == 'serviceaccounts' && 'system:nodes' in request.userInfo.groups)"
  - name: namespaces-with-labels-of-weightlock
    expression: >-
      request.resource.group != '' || request.resource.resource != 'namespaces' || (has(oldObject.metadata.labels)
      && oldObject.metadata.labels.exists(key, key.startsWith('weightlock.dev/') || key.contains('.weightlock.dev/')))
  # The API server sends no other Secret.
  - name: secrets-for-tokens
    expression: >-
      request.resource.group != '' || request.resource.resource != 'secrets'
      || object.type == 'kubernetes.io/service-account-token'
  - name: definitions-of-weightlock
    expression: request.resource.group != 'apiextensions.k8s.io' || oldObject.spec.group == 'weightlock.dev'
  rules:
  {{- range $group, $resources := include "weightlock.workloads" . | fromYaml }}
  {{- include "weightlock.rule" (list $group $resources (list "CREATE" "UPDATE")) | nindent 2 }}
  {{- end }}
  {{- range include "weightlock.validated" . | fromYamlArray }}
  {{- include "weightlock.rule" . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.webhook.extraRules }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
{{ $metadata }}
webhooks:
- name: mutate.weightlock.dev
  {{- include "weightlock.webhook" (merge (dict "path" "/mutate") .) | nindent 2 }}
  reinvocationPolicy: IfNeeded
  rules:
  {{- range include "weightlock.mutated" . | fromYamlArray }}
  {{- include "weightlock.rule" . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "weightlock.webhookMetadata" -}}
metadata:
  name: {{ .name | default (include "weightlock.fullname" .root) | quote }}
  labels:
    {{- include "weightlock.labels" .root | nindent 4 }}
  {{- $injected := and (eq .root.Values.certificates.mode "certManager") (not .url) }}
  {{- if or $injected .owned }}
  annotations:
    {{- if .owned }}
    meta.helm.sh/release-name: {{ .root.Release.Name | quote }}
    meta.helm.sh/release-namespace: {{ .root.Release.Namespace | quote }}
    {{- end }}
    {{- if $injected }}
    cert-manager.io/inject-ca-from: {{ .root.Release.Namespace }}/{{ include "weightlock.tlsSecret" (dict "root" .root "component" "webhook") }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The watches of the snapshot. Claims and policy parameters can be in any namespace. */}}
{{- define "weightlock.watchRules" -}}
- {apiGroups: [""], resources: [configmaps, limitranges, namespaces, persistentvolumeclaims, persistentvolumes, pods, resourcequotas], verbs: [list, watch]}
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
- {apiGroups: [node.k8s.io], resources: [runtimeclasses], verbs: [list, watch]}
- {apiGroups: [resource.k8s.io], resources: [deviceclasses, resourceclaims, resourceclaimtemplates], verbs: [list, watch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents, volumesnapshots], verbs: [list, watch]}
- {apiGroups: [storage.k8s.io], resources: [storageclasses], verbs: [list, watch]}
- {apiGroups: [weightlock.dev], resources: [accessapprovals, accessrequests, imagetrusts, imageverifications, modelweights, weightpolicies], verbs: [list, watch]}
{{- end -}}

{{/* Reads by name for objects that the watches lack (they may lag, and some kinds have no watch), and RBAC queries of policies. */}}
{{- define "weightlock.lookupRules" -}}
- {apiGroups: [""], resources: [configmaps, namespaces, persistentvolumeclaims, persistentvolumes, pods, serviceaccounts], verbs: [get]}
- {apiGroups: [cdi.kubevirt.io], resources: [datasources], verbs: [get]}
- {apiGroups: [snapshot.kubevirt.io], resources: [virtualmachinesnapshots], verbs: [get]}
- {apiGroups: [nvidia.com], resources: [podsnapshots], verbs: [get]}
- {apiGroups: [groupsnapshot.storage.k8s.io], resources: [volumegroupsnapshotcontents, volumegroupsnapshots], verbs: [get]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get]}
# A workload may take its pods from other objects, and an operator writes pods for a custom resource.
{{- range $group, $resources := include "weightlock.referenced" . | fromYaml }}
- {apiGroups: [{{ $group | quote }}], resources: {{ toJson $resources }}, verbs: [get]}
{{- end }}
- {apiGroups: [resource.k8s.io], resources: [clusterresourceclaimtemplates, deviceclasses, resourceclaims, resourceclaimtemplates], verbs: [get]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents, volumesnapshots], verbs: [get]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
{{- end -}}
