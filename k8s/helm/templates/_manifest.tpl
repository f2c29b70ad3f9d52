{{/* The labels that k8s/base/kustomization.yaml adds: to every object, and to what selects and makes pods. */}}
{{- define "curfew.name" -}}
app.kubernetes.io/name: curfew
{{- end }}
{{- define "curfew.labels" -}}
{{ include "curfew.name" . }}
app.kubernetes.io/part-of: curfew
{{- end }}

{{/* A manifest of k8s/base with the labels of an object, as YAML. */}}
{{- define "curfew.base" -}}
{{- $object := .root.Files.Get (printf "base/%s.yaml" .name) | fromYaml }}
{{- $_ := set $object.metadata "labels" (include "curfew.labels" . | fromYaml) }}
{{- toYaml $object }}
{{- end }}

{{/* A manifest of a component, as YAML. */}}
{{- define "curfew.component" -}}
{{- .root.Files.Get (printf "components/%s.yaml" .name) | fromYaml | toYaml }}
{{- end }}
