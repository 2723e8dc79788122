{{/* Check combinations of values that the schema cannot express. */}}
{{- define "weightlock.check" -}}
{{- if eq .Release.Namespace "kube-system" -}}
{{- fail "cannot install Weightlock into kube-system: Weightlock exempts its own namespace from admission; use --namespace weightlock-system --create-namespace" -}}
{{- end -}}
{{- include "weightlock.checkCertificates" . -}}
{{- include "weightlock.checkBudgets" . -}}
{{- include "weightlock.checkCallers" . -}}
{{- include "weightlock.checkVolumes" . -}}
{{- include "weightlock.checkConfig" . -}}
{{- include "weightlock.checkPolicies" . -}}
{{- include "weightlock.checkMonitoring" . -}}
{{- include "weightlock.checkAudit" . -}}
{{- include "weightlock.checkDetection" . -}}
{{- end -}}

{{- define "weightlock.checkCertificates" -}}
{{- with .Values.certificates -}}
{{- if and (eq .mode "selfManaged") (not $.Values.controller.enabled) -}}
{{- fail "certificates.mode selfManaged needs the controller, which issues them: set controller.enabled, or use certManager or provided" -}}
{{- end -}}
{{- with .selfManaged -}}
{{- $caDays := .authorityDays | default .caDays -}}{{- $certificateDays := .leafDays | default .certificateDays -}}
{{- if le (int $caDays) (mul 2 $certificateDays | int) -}}{{- fail "certificates.selfManaged.caDays must be more than twice certificateDays" -}}{{- end -}}
{{- if ge (int .propagationMinutes) (mul 480 $certificateDays | int) -}}{{- fail "certificates.selfManaged.propagationMinutes must be less than a third of certificateDays" -}}{{- end -}}
{{- end -}}
{{- if eq .mode "provided" -}}
{{- if not .provided.caBundle -}}{{- fail "certificates.provided.caBundle is required: it is the only CA that the API server trusts" -}}{{- end -}}
{{- if not (or .provided.webhookSecret $.Values.webhook.url) -}}{{- fail "certificates.provided.webhookSecret is required" -}}{{- end -}}
{{- if and $.Values.broker.enabled (not .provided.brokerSecret) -}}{{- fail "certificates.provided.brokerSecret is required if broker.enabled" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.apiServerManifests.url (ne .Values.certificates.mode "provided") -}}
{{- fail "apiServerManifests needs certificates.mode provided: a file on an API server's disk cannot follow a CA that is renewed in the cluster" -}}
{{- end -}}
{{- end -}}

{{/* A budget that allows no eviction blocks every drain. A single replica has no budget. */}}
{{- define "weightlock.checkBudgets" -}}
{{- range include "weightlock.parts" . | fromJsonArray -}}
{{- $values := get $.Values . -}}
{{- $replicas := int $values.replicas -}}
{{- $available := $values.minAvailable | toString -}}
{{- if hasSuffix "%" $available -}}
{{- /* Rounded up, as the disruption controller does. */ -}}
{{- $available = div (add (mul ($available | trimSuffix "%" | int) $replicas) 99) 100 -}}
{{- end -}}
{{- if and (gt $replicas 1) (ge (int $available) $replicas) -}}
{{- fail (printf "%s.minAvailable %v of %d replicas allows no eviction, so drains would block: set a lower value" . $values.minAvailable $replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
A new release needs a proof that callers are API servers, or a value that accepts callers without one. An upgrade only warns:
releases of earlier charts have neither.
*/}}
{{- define "weightlock.checkCallers" -}}
{{- $accepted := or .Values.webhook.acceptUnauthenticatedCallers (.Values.config.callers | default dict).allowUnauthenticated -}}
{{- if and .Release.IsInstall (not $accepted) (ne (include "weightlock.callersProven" .) "true") -}}
{{- fail "webhook: any client that reaches its port could query permissions, claims and grants. Set networkPolicy.apiServerCIDRs, webhook.apiServerClient.caConfigMap or config.callers.tokenConfigurations, or accept the risk with webhook.acceptUnauthenticatedCallers=true (docs/scaling.md#who-may-query-the-webhook)" -}}
{{- end -}}
{{- end -}}

{{/* The API server would reject a second volume or container of the same name, and not name the value. */}}
{{- define "weightlock.checkVolumes" -}}
{{- $volumes := list "audit" "audit-key" "broker-ca" "challenge" "client-ca" "config" "detections" "triage" "expected" "policies" "scratch" "signing" "stamp" "tls" -}}
{{- range $part := include "weightlock.parts" . | fromJsonArray -}}
{{- $values := get $.Values $part -}}
{{- range $values.volumes -}}
{{- if has .name $volumes -}}{{- fail (printf "%s.volumes: the chart has a volume %s: use another name" $part .name) -}}{{- end -}}
{{- end -}}
{{- range $values.extraContainers -}}
{{- if eq .name $part -}}{{- fail (printf "%s.extraContainers: the chart has a container %s: use another name" $part .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Reject keys of the configuration file that conflict with the rest of the release. */}}
{{- define "weightlock.checkConfig" -}}
{{- $config := .Values.config -}}
{{- $timeout := $config.reviewTimeoutSeconds | default 8 -}}
{{- if le (float64 .Values.webhook.timeoutSeconds) (float64 $timeout) -}}
{{- fail (printf "webhook.timeoutSeconds %v must be greater than config.reviewTimeoutSeconds (%v): otherwise the API server times out before the webhook responds" .Values.webhook.timeoutSeconds $timeout) -}}
{{- end -}}
{{- if hasKey ($config.settings | default dict) "exemptNamespaces" -}}
{{- fail "config.settings.exemptNamespaces conflicts with the webhook configurations: set exemptNamespaces, which applies to both" -}}
{{- end -}}
{{- range $key, $reason := dict
  "embedded" "a cluster has no state directory"
  "listen" "Services and probes use fixed ports"
  "metricsListen" "Services and probes use fixed ports"
  "policies" "configure shipped policies by name in policies, and create your own as WeightPolicy objects"
  "signing" "set signing.existingSecret instead"
  "tls" "set certificates and webhook.apiServerClient instead"
-}}
{{- if hasKey $config $key -}}{{- fail (printf "config.%s is set by the chart: %s" $key $reason) -}}{{- end -}}
{{- end -}}
{{- $fixed := list "challengeKey" "webhooks" "record" -}}
{{- if eq .Values.certificates.mode "selfManaged" -}}{{- $fixed = append $fixed "authorities" -}}{{- end -}}
{{- range $fixed -}}
{{- if hasKey $.Values.broker.config . -}}{{- fail (printf "broker.config.%s is set by the chart" .) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.checkAudit" -}}
{{- with .Values.audit -}}
{{- if and .enabled (not .existingClaim) (not .bucket) -}}{{- fail "audit.existingClaim or audit.bucket is required if audit.enabled: the logs must outlive the pods" -}}{{- end -}}
{{- if and .enabled .existingClaim .bucket -}}{{- fail "audit.existingClaim and audit.bucket exclude each other" -}}{{- end -}}
{{- if and .enabled (not .existingSecret) -}}{{- fail "audit.existingSecret is required if audit.enabled: create it with `weightlock audit key`" -}}{{- end -}}
{{- end -}}
{{- range list "directory" "key" -}}
{{- if get ($.Values.config.audit | default dict) . -}}{{- fail (printf "config.audit.%s is set by the chart: set audit.existingClaim or audit.bucket, and audit.existingSecret instead" .) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.checkDetection" -}}
{{- with .Values.detection -}}
{{- if and .enabled (not $.Values.audit.enabled) -}}{{- fail "detection.enabled needs audit.enabled: the rules read the audit log" -}}{{- end -}}
{{- if and .enabled (not $.Values.controller.enabled) -}}{{- fail "detection.enabled needs controller.enabled: the controller evaluates the rules" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.checkPolicies" -}}
{{- range $name, $chosen := .Values.policies -}}
{{- if not ($.Files.Get (printf "files/policies/%s.yaml" $name)) -}}
{{- fail (printf "policies.%s: unknown policy" $name) -}}
{{- end -}}
{{- $actions := $chosen.actions | default list -}}
{{- if and (has "Deny" $actions) (has "Warn" $actions) -}}
{{- fail (printf "policies.%s.actions must not contain both Deny and Warn: a denial already contains the warning" $name) -}}
{{- end -}}
{{- $parameters := (($.Files.Get (printf "files/params/%s.yaml" $name)) | fromYaml).data | default dict -}}
{{- range $key, $_ := $chosen.params -}}
{{- if not $parameters -}}{{- fail (printf "policies.%s.params: this policy has no parameters" $name) -}}{{- end -}}
{{- if not (hasKey $parameters $key) -}}
{{- fail (printf "policies.%s.params.%s: unknown parameter; this policy has %s" $name $key (keys $parameters | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.checkMonitoring" -}}
{{- $alerts := list -}}
{{- range (.Files.Get "files/alerts/weightlock.yaml" | fromYaml).groups -}}
{{- range .rules -}}{{- $alerts = append $alerts .alert -}}{{- end -}}
{{- end -}}
{{- range .Values.monitoring.rules.disabled -}}
{{- if not (has . $alerts) -}}{{- fail (printf "monitoring.rules.disabled: unknown alert %s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
