#!/bin/sh
# Builds the Kubernetes manifests as kustomize does, and decodes them as strictly as an
# API server.
set -eu
cd "$(dirname "$0")/kubernetes"
GO=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
$GO run . ../../kubernetes >"$work/all.yaml"
echo "ok: $(grep -c '^kind:' "$work/all.yaml") manifests are what their kinds have"
