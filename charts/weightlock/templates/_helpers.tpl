{{- define "weightlock.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "weightlock.selector" -}}
app.kubernetes.io/name: weightlock
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "weightlock.labels" -}}
app.kubernetes.io/name: weightlock
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "weightlock.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The image of the key sidecar. Beside the published image is a published one that contains only the sidecar. Any other image, and one
that a digest pins, contains the sidecar too: a tag would undo the digest.
*/}}
{{- define "weightlock.sidecarImage" -}}
{{- $own := .Values.image -}}
{{- with .Values.sidecar.image -}}
{{- $published := and (eq $own.repository "ghcr.io/weightlock/weightlock") (or (not $own.digest) (not (empty .digest))) -}}
{{- $repository := .repository | default (ternary "ghcr.io/weightlock/weightlock-sidecar" "" $published) -}}
{{- if not $repository -}}{{ include "weightlock.image" $ }}
{{- else if .digest -}}{{ $repository }}@{{ .digest }}
{{- else -}}{{ $repository }}:{{ .tag | default $own.tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.exempt" -}}
{{- append .Values.exemptNamespaces .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The names of the CRDs, as JSON. */}}
{{- define "weightlock.definitions" -}}
{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" -}}
{{- $names = append $names ($.Files.Get $path | fromYaml).metadata.name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "weightlock.tlsSecret" -}}
{{- $provided := eq .root.Values.certificates.mode "provided" -}}
{{- if $provided -}}
{{- get .root.Values.certificates.provided (printf "%sSecret" .component) -}}
{{- else -}}
{{- $kind := ternary "serving" "tls" (eq .root.Values.certificates.mode "selfManaged") -}}
{{- printf "%s-%s-%s" (include "weightlock.fullname" .root) .component $kind -}}
{{- end -}}
{{- end -}}

{{/* The components that serve TLS, as JSON: each needs a certificate. */}}
{{- define "weightlock.serving" -}}
{{- ternary (list "webhook" "broker") (list "webhook") .Values.broker.enabled | toJson -}}
{{- end -}}

{{/* The components that run as pods, as JSON. */}}
{{- define "weightlock.parts" -}}
{{- $parts := list -}}
{{- if not .Values.webhook.url -}}{{- $parts = append $parts "webhook" -}}{{- end -}}
{{- range list "controller" "broker" -}}{{- if (get $.Values .).enabled -}}{{- $parts = append $parts . -}}{{- end -}}{{- end -}}
{{- toJson $parts -}}
{{- end -}}

{{- define "weightlock.signingSecret" -}}
{{- .Values.signing.existingSecret | default (printf "%s-signing" (include "weightlock.fullname" .)) -}}
{{- end -}}

{{/*
The creator of the keys in a Secret. controller: the chart installs the Secret empty, so that rendering is reproducible. kept: an
earlier chart created the keys, and Helm would delete them if they were not rendered again. helm: the controller is off.
*/}}
{{- define "weightlock.keysBy" -}}
{{- $live := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict -}}
{{- if $live.data -}}
{{- ternary "controller" "kept" (hasKey ($live.metadata.annotations | default dict) "weightlock.dev/filled-by") -}}
{{- else -}}
{{- ternary "controller" "helm" .root.Values.controller.enabled -}}
{{- end -}}
{{- end -}}

{{/* Secrets that the controller fills with keys once, by the names in its configuration. */}}
{{- define "weightlock.keySecrets" -}}
{{- $keys := dict -}}
{{- if not .Values.signing.existingSecret -}}{{- $_ := set $keys "signing" (include "weightlock.signingSecret" .) -}}{{- end -}}
{{- if .Values.broker.enabled -}}{{- $_ := set $keys "challenge" (printf "%s-challenge" (include "weightlock.fullname" .)) -}}{{- end -}}
{{- if .Values.controller.enabled -}}
{{- range list "stamp" "record" -}}{{- $_ := set $keys . (printf "%s-%s" (include "weightlock.fullname" $) .) -}}{{- end -}}
{{- end -}}
{{- toJson $keys -}}
{{- end -}}

{{/* Not empty if the API server authenticates itself, so that the webhook signs at admission. Otherwise the controller signs. */}}
{{- define "weightlock.webhookSigns" -}}
{{- if or .Values.webhook.apiServerClient.caConfigMap (.Values.config.callers | default dict).tokenConfigurations -}}true{{- end -}}
{{- end -}}

{{/* true if the webhook requires a proof of its callers: their address, a client certificate or the API server's token. */}}
{{- define "weightlock.callersProven" -}}
{{- $callers := .Values.config.callers | default dict -}}
{{- $addresses := ternary $callers.addresses .Values.networkPolicy.apiServerCIDRs (hasKey $callers "addresses") -}}
{{- $required := ternary $callers.requireCertificate true (hasKey $callers "requireCertificate") -}}
{{- $certificates := and .Values.webhook.apiServerClient.caConfigMap $required -}}
{{- or $addresses $callers.tokenConfigurations $certificates | not | not -}}
{{- end -}}

{{/* Server names of a component, as JSON: those of its Service, or the host of webhook.url. */}}
{{- define "weightlock.serverNames" -}}
{{- if and (eq .component "webhook") .root.Values.webhook.url -}}
{{- list ((urlParse .root.Values.webhook.url).hostname) | toJson -}}
{{- else -}}
{{- $service := printf "%s-%s.%s.svc" (include "weightlock.fullname" .root) .component .root.Release.Namespace -}}
{{- list $service (printf "%s.%s" $service .root.Values.clusterDomain) | toJson -}}
{{- end -}}
{{- end -}}

{{/* Both webhook configurations for an API server's disk, which requires special names and no Service. */}}
{{- define "weightlock.apiServerManifests" -}}
{{- $authority := .Values.certificates.provided.caBundle | trim | b64enc -}}
{{- $name := printf "%s.static.k8s.io" (include "weightlock.fullname" .) -}}
{{- include "weightlock.webhooks" (dict "root" . "caBundle" $authority "url" .Values.apiServerManifests.url "name" $name) -}}
{{- end -}}

{{/* The configuration file of one component, as YAML. */}}
{{- define "weightlock.config" -}}
{{- $root := .root -}}
{{- $name := include "weightlock.fullname" $root -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $account := printf "system:serviceaccount:%s:%s" $namespace $name -}}
{{- $listens := ne .component "controller" -}}
{{- $signs := or (eq .component "controller") (and (eq .component "webhook") (include "weightlock.webhookSigns" $root)) -}}
{{- $access := dict "controllers" (list (printf "%s-controller" $account)) "retention" (list (printf "%s-retention" $account)) -}}
{{- /* With the dot at its end no search domain is tried, in which somebody else might answer. */ -}}
{{- $broker := printf "https://%s-broker.%s.svc.%s.:8443" $name $namespace $root.Values.clusterDomain -}}
{{- $injection := dict "image" (include "weightlock.sidecarImage" $root) "imagePullPolicy" $root.Values.image.pullPolicy "brokerUrl" $broker -}}
{{- if $root.Values.broker.enabled -}}
{{- if eq $root.Values.certificates.mode "provided" -}}
{{- $_ := set $injection "caBundle" $root.Values.certificates.provided.caBundle -}}
{{- else -}}
{{- $_ := set $injection "caFile" "/etc/weightlock/broker-ca/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- $settings := dict "exemptNamespaces" (include "weightlock.exempt" $root | fromJsonArray) "access" $access "injection" $injection "operators" $root.Values.operators -}}
{{- $config := dict "policies" "/etc/weightlock/policies" "settings" $settings -}}
{{- if not (and (eq .component "controller") (not $root.Values.signing.existingSecret)) -}}
{{- $_ := set $config "signing" (ternary (dict "key" "/etc/weightlock/signing/signing.key") (dict "keys" "/etc/weightlock/signing/signing.pub") (not (not $signs))) -}}
{{- end -}}
{{- if and (eq .component "webhook") $root.Values.controller.enabled -}}
{{- $_ := set $config.signing "stampKey" "/etc/weightlock/stamp/key" -}}
{{- end -}}
{{- if $listens -}}
{{- $tls := dict "certificate" "/etc/weightlock/tls/tls.crt" "key" "/etc/weightlock/tls/tls.key" -}}
{{- if and (eq .component "webhook") $root.Values.webhook.apiServerClient.caConfigMap -}}
{{- $_ := set $tls "clientCa" "/etc/weightlock/client-ca/ca.crt" -}}
{{- $_ := set $tls "clientNames" $root.Values.webhook.apiServerClient.names -}}
{{- end -}}
{{- $_ := set $tls "serverNames" (list (include "weightlock.serverNames" . | fromJsonArray | first)) -}}
{{- $_ := set $config "tls" $tls -}}
{{- $_ := set $config "listen" (dict "port" 8443) -}}
{{- end -}}
{{- if and (eq .component "webhook") $root.Values.networkPolicy.apiServerCIDRs -}}
{{- $_ := set $config "callers" (dict "addresses" $root.Values.networkPolicy.apiServerCIDRs) -}}
{{- end -}}
{{- /* Plain, so that a certificate that nobody accepts any more hides no metric. Where there is no pod, no NetworkPolicy guards it. */ -}}
{{- if has .component (include "weightlock.parts" $root | fromJsonArray) -}}
{{- $_ := set $config "metricsListen" (dict "port" 8080) -}}
{{- end -}}
{{- if and (eq .component "webhook") (not (or (hasKey $root.Values.config "workerMemoryLimitMiB") (hasKey $root.Values.config "replaceAboveMib"))) -}}
{{- $_ := set $config "workerMemoryLimitMiB" (include "weightlock.workerMemoryLimitMiB" $root | int) -}}
{{- end -}}
{{- if eq .component "controller" -}}
{{- $controller := dict "namespace" $namespace "lease" (printf "%s-controller" $name) "webhooks" "/etc/weightlock/expected/webhooks.yaml" "restore" $root.Values.controller.restoreWebhooks "restoreDefinitions" $root.Values.controller.restoreDefinitions "keys" (include "weightlock.keySecrets" $root | fromJson) -}}
{{- if eq $root.Values.certificates.mode "selfManaged" -}}
{{- $_ := set $controller "certificates" (include "weightlock.selfManaged" $root | fromYaml) -}}
{{- end -}}
{{- if $root.Values.drill.schedule -}}
{{- $_ := set $controller "drills" (dict "record" (printf "%s-drill" $name) "periodSeconds" $root.Values.drill.periodSeconds) -}}
{{- end -}}
{{- $_ := set $config "controller" $controller -}}
{{- with $root.Values.reports -}}
{{- $kinds := ternary (list "Deployment.apps" "StatefulSet.apps" "DaemonSet.apps" "Job.batch" "CronJob.batch") (list) .workloads -}}
{{- $_ := set $config "reports" (dict "enabled" .enabled "api" .api "kinds" $kinds "events" .events "resourcesPerSecond" .resourcesPerSecond "intervalSeconds" .intervalSeconds) -}}
{{- end -}}
{{- end -}}
{{- if and $root.Values.images.pullSecrets (ne .component "broker") -}}
{{- $_ := set $config "images" (dict "pullSecrets" true) -}}
{{- end -}}
{{- if $root.Values.audit.enabled -}}
{{- $_ := set $config "audit" (dict "directory" ($root.Values.audit.bucket | default "/var/lib/weightlock/audit/logs") "key" "/etc/weightlock/audit/log.key" "cluster" $root.Values.audit.cluster) -}}
{{- end -}}
{{- if and $root.Values.detection.enabled (eq .component "controller") -}}
{{- with $root.Values.detection -}}
{{- $rules := ternary "/etc/weightlock/detections" "" (not (empty .rulesConfigMap)) -}}
{{- $triage := dict "url" .triageUrl "model" .triageModel "keyFile" (ternary "/etc/weightlock/triage/key" "" (not (empty .triageSecret))) -}}
{{- $_ := set $config "detection" (dict "enabled" true "rules" $rules "state" (printf "%s-detection-state" $name) "silences" (printf "%s-detection-silences" $name) "triage" $triage) -}}
{{- end -}}
{{- end -}}
{{- $config = mustMergeOverwrite $config (deepCopy $root.Values.config) -}}
{{- if ne .component "webhook" -}}
{{- with include "weightlock.previousImages" (dict "root" $root "image" $config.settings.injection.image "given" $config.settings.injection.previousImages) | fromJsonArray -}}
{{- $_ := set $config.settings.injection "previousImages" . -}}
{{- end -}}
{{- end -}}
{{- if eq .component "broker" -}}
{{- $fixed := dict "challengeKey" "/etc/weightlock/challenge/key" "webhooks" "/etc/weightlock/expected/webhooks.yaml" -}}
{{- if eq $root.Values.certificates.mode "selfManaged" -}}
{{- $_ := set $fixed "authorities" (printf "%s/%s" $namespace (include "weightlock.tlsSecret" .)) -}}
{{- end -}}
{{- if $root.Values.controller.enabled -}}
{{- $_ := set $fixed "record" (printf "%s/%s-record" $namespace $name) -}}
{{- end -}}
{{- $_ := set $config "broker" (merge $fixed (deepCopy $root.Values.broker.config)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/*
The sidecar images of the installed release, as JSON, newest first, at most eight. Running pods keep their keys through an upgrade
by them. Without access to a cluster, only the given images.
*/}}
{{- define "weightlock.previousImages" -}}
{{- $images := .given | default list -}}
{{- $live := lookup "v1" "ConfigMap" .root.Release.Namespace (printf "%s-config" (include "weightlock.fullname" .root)) | default dict -}}
{{- $before := ((get ($live.data | default dict) "broker.yaml" | default "" | fromYaml).settings).injection | default dict -}}
{{- $images = concat $images (list $before.image) ($before.previousImages | default $before.formerImages | default list) | compact | uniq -}}
{{- $images = without $images .image -}}
{{- toJson (slice $images 0 (min 8 (len $images))) -}}
{{- end -}}

{{/*
MiB of memory above which the webhook replaces its worker: three quarters of the container's limit, so that the kernel does not
kill it; 0 (never) without a limit.
*/}}
{{- define "weightlock.workerMemoryLimitMiB" -}}
{{- $limit := ((.Values.webhook.resources).limits).memory | default "" -}}
{{- $limit = ternary $limit (printf "%.0f" $limit) (kindIs "string" $limit) -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $limit -}}
{{- $unit := get $units (trimPrefix $number $limit) -}}
{{- if and $number $unit -}}
{{- divf (mulf (float64 $number) $unit 0.75) 1048576.0 | floor | int64 -}}
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* The controller's settings for certificates. */}}
{{- define "weightlock.selfManaged" -}}
{{- $root := . -}}
{{- $values := .Values.certificates.selfManaged -}}
authoritySecret: {{ include "weightlock.fullname" . }}-authority
{{- $caDays := $values.authorityDays | default $values.caDays }}
{{- $certificateDays := $values.leafDays | default $values.certificateDays }}
authoritySeconds: {{ mul $caDays 86400 }}
# The successor is issued at half the lifetime.
authorityRenewSeconds: {{ mul $caDays 43200 }}
leafSeconds: {{ mul $certificateDays 86400 }}
leafRenewSeconds: {{ mul $certificateDays 28800 }}
propagationSeconds: {{ mul $values.propagationMinutes 60 }}
pairs:
{{- range include "weightlock.serving" . | fromJsonArray }}
{{- $part := dict "root" $root "component" . }}
- secret: {{ include "weightlock.tlsSecret" $part | quote }}
  names: {{ include "weightlock.serverNames" $part }}
{{- end }}
{{- end -}}

{{/* The enabled policies with this release's actions and namespace, as one file. */}}
{{- define "weightlock.policies" -}}
{{- range $path, $_ := .Files.Glob "files/policies/*.yaml" -}}
{{- $policy := $.Files.Get $path | fromYaml -}}
{{- $chosen := get $.Values.policies $policy.metadata.name | default dict -}}
{{- if not (and (hasKey $chosen "enabled") (not $chosen.enabled)) -}}
{{- with $chosen.actions -}}{{- $_ := set $policy.spec "validationActions" . -}}{{- end -}}
{{- if hasKey ($policy.spec.paramRef | default dict) "namespace" -}}
{{- $_ := set $policy.spec.paramRef "namespace" $.Release.Namespace -}}
{{- end }}
---
{{ toYaml $policy }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Deployment of one component. */}}
{{- define "weightlock.deployment" -}}
{{- $root := .root -}}
{{- $name := include "weightlock.fullname" $root -}}
{{- $values := get $root.Values .component -}}
{{- $command := ternary "serve" .component (eq .component "webhook") -}}
{{- $listens := ne .component "controller" -}}
{{- $clientCa := ternary $root.Values.webhook.apiServerClient.caConfigMap "" (eq .component "webhook") -}}
{{- $brokerCa := and $root.Values.broker.enabled (ne $root.Values.certificates.mode "provided") -}}
{{- /* The controller reads through the API what it fills itself. */ -}}
{{- $signing := or $listens $root.Values.signing.existingSecret -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}-{{ .component }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "weightlock.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels:
      {{- include "weightlock.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels:
        {{- include "weightlock.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        checksum/config: {{ include "weightlock.config" . | sha256sum | quote }}
        checksum/policies: {{ include "weightlock.policies" $root | sha256sum | quote }}
        {{- if ne .component "webhook" }}
        checksum/webhooks: {{ include "weightlock.webhooks" (dict "root" $root "caBundle" "") | sha256sum | quote }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}-{{ .component }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{ toJson . }}
      {{- end }}
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        {{- range $field, $value := $root.Values.podSecurityContext }}
        {{- if not (kindIs "invalid" $value) }}
        {{ $field }}: {{ int64 $value }}
        {{- end }}
        {{- end }}
        seccompProfile: {type: RuntimeDefault}
      nodeSelector: {{ toJson $values.nodeSelector }}
      tolerations: {{ toJson $values.tolerations }}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm:
              topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "weightlock.selector" . | nindent 18 }}
      topologySpreadConstraints:
      {{- range $key, $spread := dict "topology.kubernetes.io/zone" "zone" "kubernetes.io/hostname" "host" }}
      - topologyKey: {{ $key }}
        maxSkew: 1
        whenUnsatisfiable: {{ get $root.Values.topologySpread $spread }}
        # Spread the replicas of each version separately.
        matchLabelKeys: [pod-template-hash]
        labelSelector:
          matchLabels:
            {{- include "weightlock.selector" $ | nindent 12 }}
      {{- end }}
      containers:
      - name: {{ .component }}
        image: {{ include "weightlock.image" $root | quote }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        args: [{{ $command }}, --config, /etc/weightlock/config/{{ .component }}.yaml]
        {{- with $values.env }}
        env: {{ toJson . }}
        {{- end }}
        {{- if and $root.Values.audit.enabled $root.Values.audit.bucketSecret }}
        envFrom: [{secretRef: {name: {{ $root.Values.audit.bucketSecret | quote }}}}]
        {{- end }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        resources: {{ toJson $values.resources }}
        {{- $port := ternary "https" "metrics" $listens }}
        {{- $scheme := ternary "HTTPS" "HTTP" $listens }}
        ports:
        {{- if $listens }}
        - {name: https, containerPort: 8443}
        {{- end }}
        - {name: metrics, containerPort: 8080}
        startupProbe:
          httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ $scheme }}}
          periodSeconds: 2
          failureThreshold: 60
        livenessProbe:
          httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ $scheme }}}
          periodSeconds: 10
          timeoutSeconds: 5
          failureThreshold: 6
        readinessProbe:
          httpGet: {path: /readyz, port: {{ $port }}, scheme: {{ $scheme }}}
          periodSeconds: 2
          timeoutSeconds: 2
        volumeMounts:
        - {name: config, mountPath: /etc/weightlock/config, readOnly: true}
        # A single file: the hidden directories of a ConfigMap volume would show every policy twice.
        - {name: policies, mountPath: /etc/weightlock/policies/policies.yaml, subPath: policies.yaml, readOnly: true}
        {{- if $signing }}
        - {name: signing, mountPath: /etc/weightlock/signing, readOnly: true}
        {{- end }}
        {{- if and (eq .component "webhook") $root.Values.controller.enabled }}
        - {name: stamp, mountPath: /etc/weightlock/stamp, readOnly: true}
        {{- end }}
        {{- if $listens }}
        - {name: tls, mountPath: /etc/weightlock/tls, readOnly: true}
        {{- end }}
        {{- if $brokerCa }}
        - {name: broker-ca, mountPath: /etc/weightlock/broker-ca, readOnly: true}
        {{- end }}
        {{- if $clientCa }}
        - {name: client-ca, mountPath: /etc/weightlock/client-ca, readOnly: true}
        {{- end }}
        {{- if ne .component "webhook" }}
        - {name: expected, mountPath: /etc/weightlock/expected, readOnly: true}
        {{- end }}
        {{- if eq .component "broker" }}
        - {name: challenge, mountPath: /etc/weightlock/challenge, readOnly: true}
        {{- end }}
        {{- if and (eq .component "controller") $root.Values.detection.enabled $root.Values.detection.rulesConfigMap }}
        - {name: detections, mountPath: /etc/weightlock/detections, readOnly: true}
        {{- end }}
        {{- if and (eq .component "controller") $root.Values.detection.enabled $root.Values.detection.triageSecret }}
        - {name: triage, mountPath: /etc/weightlock/triage, readOnly: true}
        {{- end }}
        {{- if $root.Values.audit.enabled }}
        {{- if $root.Values.audit.existingClaim }}
        - {name: audit, mountPath: /var/lib/weightlock/audit}
        {{- end }}
        - {name: audit-key, mountPath: /etc/weightlock/audit, readOnly: true}
        {{- end }}
        - {name: scratch, mountPath: /tmp}
        {{- range $values.volumeMounts }}
        - {{ toJson . }}
        {{- end }}
      {{- range $values.extraContainers }}
      - {{ toJson . }}
      {{- end }}
      volumes:
      - name: config
        configMap:
          name: {{ $name }}-config
          items: [{key: {{ .component }}.yaml, path: {{ .component }}.yaml}]
      - name: policies
        configMap: {name: {{ $name }}-policies}
      {{- if $signing }}
      # Only the signer mounts the private key. A named item makes the pod wait until the controller fills the Secret.
      - name: signing
        secret:
          secretName: {{ include "weightlock.signingSecret" $root | quote }}
          {{- $signs := or (eq .component "controller") (and (eq .component "webhook") (include "weightlock.webhookSigns" $root)) }}
          {{- $file := ternary "signing.key" "signing.pub" (not (not $signs)) }}
          items: [{key: {{ $file }}, path: {{ $file }}}]
      {{- end }}
      {{- if and (eq .component "webhook") $root.Values.controller.enabled }}
      - name: stamp
        secret:
          secretName: {{ $name }}-stamp
          items: [{key: key, path: key}]
      {{- end }}
      {{- if $listens }}
      - name: tls
        secret:
          secretName: {{ include "weightlock.tlsSecret" . | quote }}
          {{- if eq $root.Values.certificates.mode "selfManaged" }}
          # Named items make the pod wait until the controller fills the Secret.
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}, {key: ca.crt, path: ca.crt}]
          {{- end }}
      {{- end }}
      {{- if $brokerCa }}
      # The CA that sidecars verify the broker with. No other key of the Secret is mounted.
      - name: broker-ca
        secret:
          secretName: {{ include "weightlock.tlsSecret" (dict "root" $root "component" "broker") | quote }}
          items: [{key: ca.crt, path: ca.crt}]
          {{- if not $listens }}
          # The controller only compares CAs, and may issue them itself.
          optional: true
          {{- end }}
      {{- end }}
      {{- if $clientCa }}
      - name: client-ca
        configMap: {name: {{ $clientCa | quote }}}
      {{- end }}
      {{- if ne .component "webhook" }}
      - name: expected
        configMap: {name: {{ $name }}-webhooks}
      {{- end }}
      {{- if eq .component "broker" }}
      - name: challenge
        secret:
          secretName: {{ $name }}-challenge
          items: [{key: key, path: key}]
      {{- end }}
      {{- if and (eq .component "controller") $root.Values.detection.enabled $root.Values.detection.rulesConfigMap }}
      - name: detections
        configMap: {name: {{ $root.Values.detection.rulesConfigMap | quote }}}
      {{- end }}
      {{- if and (eq .component "controller") $root.Values.detection.enabled $root.Values.detection.triageSecret }}
      - name: triage
        secret:
          secretName: {{ $root.Values.detection.triageSecret | quote }}
          items: [{key: key, path: key}]
      {{- end }}
      {{- if $root.Values.audit.enabled }}
      {{- if $root.Values.audit.existingClaim }}
      - name: audit
        persistentVolumeClaim: {claimName: {{ $root.Values.audit.existingClaim | quote }}}
      {{- end }}
      - name: audit-key
        secret:
          secretName: {{ $root.Values.audit.existingSecret | quote }}
          items: [{key: log.key, path: log.key}]
      {{- end }}
      - name: scratch
        emptyDir: {}
      {{- range $values.volumes }}
      - {{ toJson . }}
      {{- end }}
{{- end -}}
