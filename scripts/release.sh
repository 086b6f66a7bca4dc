#!/usr/bin/env bash
# The steps of .github/workflows/release.yml.
#
#   scripts/release.sh build      pins the base images, builds for this machine's architecture, pushes NAME:TAG-ARCH
#   scripts/release.sh publish    joins both architectures as NAME:TAG, signs that by digest, and verifies the signature
#
# Environment: REGISTRY (ends with a slash), TAG; for publish also IDENTITY, who the signature must be from.
# Needs Docker with buildx and a login; for publish also cosign. Exit codes: 0 fine, 1 a step failed, 2 wrong use.
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

IMAGES="pickle-demo poisoning-demo grype-demo hardened-app"
ARCHITECTURES="amd64 arm64"
ISSUER=https://token.actions.githubusercontent.com

show() {
    printf '$ %s\n' "$*"
    "$@"
}

build() {
    local arch
    case $(uname -m) in x86_64 | amd64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) echo "error: no release for $(uname -m)." >&2 && exit 2 ;; esac
    show scripts/refresh_pins.sh
    TAG="$TAG-$arch" show docker buildx bake --push --set "*.platform=linux/$arch"
}

publish() {
    local image name arch parts digest
    for image in $IMAGES; do
        name=$REGISTRY$image parts=""
        for arch in $ARCHITECTURES; do parts="$parts $name:$TAG-$arch"; done
        # shellcheck disable=SC2086 # a list of words
        show docker buildx imagetools create --tag "$name:$TAG" $parts # with their SBOMs and provenance
        digest=$(docker buildx imagetools inspect "$name:$TAG" --format '{{.Manifest.Digest}}')
        show cosign sign --yes "$name@$digest"
        show cosign verify --certificate-oidc-issuer "$ISSUER" --certificate-identity "$IDENTITY" "$name@$digest"
        printf '%s %s\n' "$name:$TAG" "$digest"
    done
}

REGISTRY=$(printf '%s' "${REGISTRY:-}" | tr '[:upper:]' '[:lower:]') # registries take no capitals
export REGISTRY
case ${1:-} in
    build) : "${REGISTRY:?}" "${TAG:?}" && build ;;
    publish) : "${REGISTRY:?}" "${TAG:?}" "${IDENTITY:?}" && publish ;;
    *) echo "error: scripts/release.sh takes build or publish." >&2 && exit 2 ;;
esac
