"""The package //targets/tools/releases: older releases, in addition to the current ones. `bk pin` writes their pins."""

from bkrules import go_releases

go_releases(
    name = "buildkitd",
    module = "github.com/moby/buildkit",
    versions = ["v0.17.3"],
    package = "cmd/buildkitd",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version={version}"],
)

[
    go_releases(
        name = command,
        module = "github.com/containerd/containerd",
        versions = ["v1.7.35"],
        package = "cmd/" + command,
        ldflags = ["-X", "github.com/containerd/containerd/version.Version={version}"],
    )
    for command in ["containerd", "containerd-shim-runc-v2", "ctr"]
]

# By name only, for //targets:release_matrix.
go_releases(
    name = "buildkitd",
    module = "github.com/moby/buildkit",
    versions = ["v0.33.1"],
    package = "cmd/buildkitd",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version={version}"],
    tags = ["manual"],
)

go_releases(
    name = "runc",
    module = "github.com/opencontainers/runc",
    versions = ["v1.4.4"],
    build_tags = ["netgo", "osusergo", "seccomp"],
    ldflags = ["-X", "main.version={number}"],
    cc = "//:cc",
    tags = ["manual"],
)
