#!/bin/sh
# Builds the container image from the source, for this machine's architecture:
#
#     packaging/container/build.sh [TAG]
#
# From the environment: GO, VERSION, ENGINE (podman, buildah or docker; else the first
# that is there), CA (the file of public CAs that goes into the image), and BUILD_FLAGS
# for the engine.
set -eu
tag=${1:-espalier}
cd "$(dirname "$0")/../.."
GO=${GO:-go}
VERSION=${VERSION:-$(git describe --tags --always --dirty)}
CA=${CA:-/etc/ssl/certs/ca-certificates.crt}
ENGINE=${ENGINE:-$(command -v podman || command -v buildah || command -v docker)} || {
	echo "none of podman, buildah and docker is installed" >&2
	exit 1
}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
CGO_ENABLED=0 GOOS=linux $GO build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$context/espalier" ./cmd/espalier
cp packaging/container/Containerfile packaging/container/espalier.yaml "$context/"
cp "$CA" "$context/ca-certificates.crt"
mkdir "$context/data"
case $ENGINE in
*docker) format= ;;
*) format=--format=docker ;; # the other one has no HEALTHCHECK
esac
# shellcheck disable=SC2086 # lists of flags
"$ENGINE" build $format ${BUILD_FLAGS:-} -f "$context/Containerfile" -t "$tag" --label "org.opencontainers.image.version=$VERSION" "$context"
