{{- define "receiver.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 45 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "receiver.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "receiver.labels" -}}
{{ include "receiver.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "receiver.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "receiver.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "receiver.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* A Deployment's spec.template: (dict "root" $ "part" .Values.serve "component" "serve" "args" (list "serve" …)) */ -}}
{{- define "receiver.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "receiver.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    checksum/config: {{ $root.Values.config | sha256sum }}
    {{- with .part.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "receiver.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: { type: RuntimeDefault }
  containers:
    - name: receiver
      image: {{ include "receiver.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        - { name: RECEIVER_CONFIG, value: /etc/receiver/receiver.toml }
        - { name: RECEIVER_HTTP__HOST, value: 0.0.0.0 }
        - { name: RECEIVER_HTTP__PORT, value: "8000" }
        {{- with $root.Values.adminPort }}
        - { name: RECEIVER_HTTP__ADMIN_PORT, value: {{ . | quote }} }
        {{- end }}
        - { name: RECEIVER_REDIS__URL, value: {{ required "redis.url: the address of Redis or Valkey, without the password." $root.Values.redis.url | quote }} }
        - { name: RECEIVER_REDIS__WAIT_REPLICAS, value: {{ $root.Values.redis.waitReplicas | quote }} }
        {{- if $root.Values.redis.passwordSecret }}
        - { name: RECEIVER_REDIS__PASSWORD_FILE, value: /run/secrets/redis/password }
        {{- end }}
        {{- with $root.Values.trustedProxies }}
        - { name: RECEIVER_HTTP__TRUSTED_PROXIES, value: {{ join "," . | quote }} }
        {{- end }}
        {{- with .part.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - { name: http, containerPort: 8000, protocol: TCP }
        {{- with $root.Values.adminPort }}
        - { name: admin, containerPort: {{ . }}, protocol: TCP }
        {{- end }}
      startupProbe:
        httpGet: { path: /healthz, port: http }
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: { path: /healthz, port: http }
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        httpGet: { path: /readyz, port: http }
        periodSeconds: 5
        timeoutSeconds: 4
        failureThreshold: 2
      lifecycle:
        preStop:
          exec: { command: ["sleep", {{ $root.Values.preStopSeconds | quote }}] }
      resources:
        {{- toYaml .part.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        - { name: config, mountPath: /etc/receiver, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        {{- if $root.Values.secrets }}
        - { name: secrets, mountPath: /run/secrets/receiver, readOnly: true }
        {{- end }}
        {{- if $root.Values.redis.passwordSecret }}
        - { name: redis, mountPath: /run/secrets/redis, readOnly: true }
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "receiver.fullname" $root }} }
    - name: tmp
      emptyDir: { medium: Memory, sizeLimit: 64Mi }
    {{- if $root.Values.secrets }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range $root.Values.secrets }}
          - secret: { name: {{ . | quote }} }
          {{- end }}
    {{- end }}
    {{- if $root.Values.redis.passwordSecret }}
    - name: redis
      secret:
        secretName: {{ $root.Values.redis.passwordSecret | quote }}
        defaultMode: 0440
        items: [{ key: {{ $root.Values.redis.passwordKey | quote }}, path: password }]
    {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "receiver.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .component }}
  {{- with .part.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .part.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .part.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
