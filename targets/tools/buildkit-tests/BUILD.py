"""The package //targets/tools/buildkit-tests: BuildKit's own tests of its client, and the mirror that they want. By name only."""

from bkrules import go_binary, go_test, image_mirror, test_matrix

go_binary(
    name = "client_test",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "client",
    mod = ":go.mod",
    test = True,
    tags = ["manual"],
)

# All of these must be there before the first test, whichever it is.
image_mirror(
    name = "mirror",
    images = {
        "docker.io/cpuguy83/buildkit-foreign:latest": "//targets/images:busybox",
        "docker.io/library/alpine:latest": "//targets/images:alpine",
        "docker.io/library/busybox:latest": "//targets/images:busybox",
        "docker.io/tonistiigi/test:nolayers": "//targets/images:nolayers",
    },
    tags = ["manual"],
)

go_test(
    name = "client",
    binary = ":client_test",
    subtests = ["*Integration"],
    harness = {
        "oci": "oci",
        "oci+stargz": "oci-snapshotter-stargz",
        "containerd": "containerd",
        "containerd+stargz": "containerd-snapshotter-stargz",
        "rootless": "oci-rootless",
        "rootless-gvisor-tap-vsock-detachnetns": "oci-rootless-gvisor-tap-vsock-detachnetns",
    },
    tags = ["manual"],
)

WORKERS = ["oci", "oci_stargz", "containerd", "containerd_stargz", "rootless", "rootless_gvisor"]

# BuildKit's own suite, unmodified, a cell for each leaf.
test_matrix(
    name = "client_matrix",
    tests = [":client"],
    workers = ["//targets:" + name for name in WORKERS],
    mirror = ":mirror",
    size = "large",
    tags = ["manual"],
)
