// The images of the workshop, each for both architectures: docker buildx bake --print shows what would be built.
//   REGISTRY=ghcr.io/OWNER/ TAG=1.0.0 docker buildx bake --push
// .github/workflows/release.yml does that, each architecture on a machine of its kind, because demo 2 trains
// two models while it is built.

variable "REGISTRY" {
  default = ""
}

variable "TAG" {
  default = "latest"
}

group "default" {
  targets = ["pickle-demo", "poisoning-demo", "grype-demo", "hardened-app"]
}

target "common" {
  platforms = ["linux/amd64", "linux/arm64"]
  // SBOM: what is in the image. Provenance: from which sources, base images (with digests) and arguments.
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "pickle-demo" {
  inherits = ["common"]
  context  = "demo-malicious"
  tags     = ["${REGISTRY}pickle-demo:${TAG}"]
}

target "poisoning-demo" {
  inherits = ["common"]
  context  = "demo-poisoning"
  tags     = ["${REGISTRY}poisoning-demo:${TAG}"]
}

target "grype-demo" {
  inherits = ["common"]
  context  = "demo-supply-chain"
  tags     = ["${REGISTRY}grype-demo:${TAG}"]
}

target "hardened-app" {
  inherits   = ["common"]
  context    = "demo-supply-chain/hardened"
  dockerfile = "hardened.Dockerfile"
  tags       = ["${REGISTRY}hardened-app:${TAG}"]
}
