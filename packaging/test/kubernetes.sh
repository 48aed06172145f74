#!/bin/sh
# Builds the Kubernetes manifests as kustomize does, decodes them as strictly as an API
# server, and has kube-score look at them.
set -eu
cd "$(dirname "$0")/kubernetes"
GO=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
$GO run . ../../kubernetes >"$work/all.yaml"
echo "ok: $(grep -c '^kind:' "$work/all.yaml") manifests are what their kinds have"
$GO run github.com/zegl/kube-score/cmd/kube-score@v1.20.0 score --output-format ci "$work/all.yaml"
