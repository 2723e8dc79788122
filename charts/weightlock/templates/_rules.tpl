{{/* One rule of a webhook from group, resources and operations. */}}
{{- define "weightlock.rule" }}
- apiGroups: [{{ index . 0 | quote }}]
  apiVersions: ["*"]
  resources: {{ index . 1 | toJson }}
  operations: {{ index . 2 | toJson }}
  scope: "*"
{{- end -}}

{{/* Whether the settings compare Secrets and ConfigMaps with the Secrets that a ModelWeights names; empty if not. */}}
{{- define "weightlock.comparesSecrets" -}}
{{- $storage := ((.Values.config.settings | default dict).storage | default dict) -}}
{{- if $storage.compareSecrets }}true{{ end -}}
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
  {{- if not (include "weightlock.comparesSecrets" .root) }}
  # The API server sends no other Secret: one for a token, and one that a controller fills with another Secret.
  - name: secrets-for-tokens-and-copies
    expression: >-
      request.resource.group != '' || request.resource.resource != 'secrets'
      || object.type == 'kubernetes.io/service-account-token'
      || (has(object.metadata.annotations) && object.metadata.annotations.exists(key,
      object.metadata.annotations[key].matches('^[ ]*[-.a-z0-9]+/[-.a-z0-9]+[ ]*$')))
  {{- end }}
  - name: definitions-of-weightlock
    expression: request.resource.group != 'apiextensions.k8s.io' || oldObject.spec.group == 'weightlock.dev'
  rules:
  {{- range $group, $resources := include "weightlock.workloads" . | fromYaml }}
  {{- include "weightlock.rule" (list $group $resources (list "CREATE" "UPDATE")) | nindent 2 }}
  {{- end }}
  {{- range include "weightlock.validated" . | fromYamlArray }}
  {{- include "weightlock.rule" . | nindent 2 }}
  {{- end }}
  {{- if include "weightlock.comparesSecrets" .root }}
  {{- include "weightlock.rule" (list "" (list "configmaps") (list "CREATE" "UPDATE")) | nindent 2 }}
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
{{- if include "weightlock.comparesSecrets" . }}
# config.settings.storage.compareSecrets: to recognise a copy of a Secret that a ModelWeights names.
- {apiGroups: [""], resources: [secrets], verbs: [get]}
{{- end }}
{{- end -}}
