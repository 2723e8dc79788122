{{/* What can be wrong about values taken together, which no schema says. */}}
{{- define "weightlock.check" -}}
{{- if eq .Release.Namespace "kube-system" -}}
{{- fail "Weightlock is not installed into kube-system: it exempts its own namespace, and gives nobody there a say; use --namespace weightlock-system --create-namespace" -}}
{{- end -}}
{{- include "weightlock.checkCertificates" . -}}
{{- include "weightlock.checkBudgets" . -}}
{{- include "weightlock.checkConfig" . -}}
{{- include "weightlock.checkPolicies" . -}}
{{- include "weightlock.checkMonitoring" . -}}
{{- end -}}

{{- define "weightlock.checkCertificates" -}}
{{- with .Values.certificates -}}
{{- if and (eq .mode "selfManaged") (not $.Values.controller.enabled) -}}
{{- fail "certificates.mode selfManaged needs the controller, which makes them: set controller.enabled, or use certManager or provided" -}}
{{- end -}}
{{- with .selfManaged -}}
{{- if le (int .authorityDays) (mul 2 .leafDays | int) -}}{{- fail "certificates.selfManaged.authorityDays must be more than twice leafDays" -}}{{- end -}}
{{- if ge (int .propagationMinutes) (mul 480 .leafDays | int) -}}{{- fail "certificates.selfManaged.propagationMinutes must be less than a third of leafDays" -}}{{- end -}}
{{- end -}}
{{- if eq .mode "provided" -}}
{{- if not .provided.caBundle -}}{{- fail "certificates.provided.caBundle is needed: the API server trusts no other authority" -}}{{- end -}}
{{- if not (or .provided.webhookSecret $.Values.webhook.url) -}}{{- fail "certificates.provided.webhookSecret is needed" -}}{{- end -}}
{{- if and $.Values.broker.enabled (not .provided.brokerSecret) -}}{{- fail "certificates.provided.brokerSecret is needed while broker.enabled" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.apiServerManifests.url (ne .Values.certificates.mode "provided") -}}
{{- fail "apiServerManifests needs certificates.mode provided: a file on an API server's disk does not follow an authority that is made or renewed in the cluster" -}}
{{- end -}}
{{- end -}}

{{/* A budget that leaves no replica to evict holds up every drain. One replica alone has no budget. */}}
{{- define "weightlock.checkBudgets" -}}
{{- range include "weightlock.parts" . | fromJsonArray -}}
{{- $values := get $.Values . -}}
{{- $replicas := int $values.replicas -}}
{{- $kept := $values.minAvailable | toString -}}
{{- if hasSuffix "%" $kept -}}
{{- /* Rounded up, as the disruption controller does. */ -}}
{{- $kept = div (add (mul ($kept | trimSuffix "%" | int) $replicas) 99) 100 -}}
{{- end -}}
{{- if and (gt $replicas 1) (ge (int $kept) $replicas) -}}
{{- fail (printf "%s.minAvailable %v of %d replicas leaves none to evict, so no node could be drained: set it lower" . $values.minAvailable $replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys of the configuration file that would undo what the rest of the release relies on. */}}
{{- define "weightlock.checkConfig" -}}
{{- $config := .Values.config -}}
{{- $patience := $config.reviewTimeoutSeconds | default 8 -}}
{{- if le (float64 .Values.webhook.timeoutSeconds) (float64 $patience) -}}
{{- fail (printf "webhook.timeoutSeconds %v must be more than config.reviewTimeoutSeconds (%v): else the API server gives up before the webhook answers" .Values.webhook.timeoutSeconds $patience) -}}
{{- end -}}
{{- if hasKey ($config.settings | default dict) "exemptNamespaces" -}}
{{- fail "config.settings.exemptNamespaces would exempt namespaces that the API server asks about: set exemptNamespaces, which both follow" -}}
{{- end -}}
{{- range $key, $instead := dict
  "embedded" "on a cluster there is no state directory"
  "listen" "Services and probes name the ports"
  "metricsListen" "Services and probes name the ports"
  "policies" "each is set by its name in policies, and those of your own are WeightPolicy objects"
  "signing" "signing.existingSecret says which key counts"
  "tls" "certificates and webhook.apiServerClient say which are used"
-}}
{{- if hasKey $config $key -}}{{- fail (printf "config.%s is the chart's to set: %s" $key $instead) -}}{{- end -}}
{{- end -}}
{{- $fixed := list "challengeKey" "webhooks" -}}
{{- if eq .Values.certificates.mode "selfManaged" -}}{{- $fixed = append $fixed "authorities" -}}{{- end -}}
{{- range $fixed -}}
{{- if hasKey $.Values.broker.config . -}}{{- fail (printf "broker.config.%s is the chart's to set" .) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "weightlock.checkPolicies" -}}
{{- range $name, $chosen := .Values.policies -}}
{{- if not ($.Files.Get (printf "files/policies/%s.yaml" $name)) -}}
{{- fail (printf "policies.%s: Weightlock ships no such policy" $name) -}}
{{- end -}}
{{- $actions := $chosen.actions | default list -}}
{{- if and (has "Deny" $actions) (has "Warn" $actions) -}}
{{- fail (printf "policies.%s.actions may not hold both Deny and Warn: a denial says all that a warning would" $name) -}}
{{- end -}}
{{- $known := (($.Files.Get (printf "files/params/%s.yaml" $name)) | fromYaml).data | default dict -}}
{{- range $key, $_ := $chosen.params -}}
{{- if not $known -}}{{- fail (printf "policies.%s.params: that policy has no parameters" $name) -}}{{- end -}}
{{- if not (hasKey $known $key) -}}
{{- fail (printf "policies.%s.params.%s: that policy has no such parameter; it has %s" $name $key (keys $known | sortAlpha | join ", ")) -}}
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
{{- if not (has . $alerts) -}}{{- fail (printf "monitoring.rules.disabled: Weightlock ships no alert %s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
