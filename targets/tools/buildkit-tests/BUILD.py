"""The package //targets/tools/buildkit-tests: BuildKit's own tests of its client, and the mirror that they want. By name only."""

from bkrules import go_binary, image_mirror

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
        "docker.io/cpuguy83/buildkit-foreign:latest": "//targets:busybox",
        "docker.io/library/alpine:latest": "//targets:busybox",
        "docker.io/library/busybox:latest": "//targets:busybox",
        "docker.io/tonistiigi/test:nolayers": "//targets:busybox",
    },
    tags = ["manual"],
)
