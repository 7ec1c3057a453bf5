"""The module @bk_tools: the pinned tools of all workers."""

from bkrules import go_binary, go_toolchain, host_binary, workspace

workspace(name = "bk_tools")

go_toolchain(
    name = "go",
    version = "1.27.3",
    sha256 = {
        "linux-aarch64": "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
        "linux-x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    },
)

# The C compiler of this machine, for runc alone: its namespace code is C, and seccomp is a C library.
host_binary(
    name = "cc",
    binary = "gcc",
    files = [
        "/usr/include/seccomp.h",
        "/usr/lib/{machine}-linux-gnu/libc.a",
        "/usr/lib/{machine}-linux-gnu/libseccomp.a",
    ],
)

go_binary(
    name = "buildkitd",
    mod = "//buildkit:go.mod",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "cmd/buildkitd",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version=v0.34.2"],
)

go_binary(
    name = "buildctl",
    mod = "//buildkit:go.mod",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "cmd/buildctl",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version=v0.34.2"],
)

[
    go_binary(
        name = command,
        mod = "//containerd:go.mod",
        module = "github.com/containerd/containerd/v2",
        version = "v2.4.2",
        package = "cmd/" + command,
        ldflags = ["-X", "github.com/containerd/containerd/v2/version.Version=v2.4.2"],
    )
    for command in ["containerd", "containerd-shim-runc-v2", "ctr"]
]

go_binary(
    name = "runc",
    mod = "//runc:go.mod",
    module = "github.com/opencontainers/runc",
    version = "v1.5.2",
    build_tags = ["netgo", "osusergo", "seccomp"],
    ldflags = ["-X", "main.version=1.5.2"],
    cc = ":cc",
)

go_binary(
    name = "rootlesskit",
    mod = "//rootlesskit:go.mod",
    module = "github.com/rootless-containers/rootlesskit/v3",
    version = "v3.3.0",
    package = "cmd/rootlesskit",
)

go_binary(
    name = "registry",
    mod = "//registry:go.mod",
    module = "github.com/distribution/distribution/v3",
    version = "v3.1.2",
    package = "cmd/registry",
)

go_binary(
    name = "containerd-stargz-grpc",
    mod = "//snapshotter:go.mod",
    srcs = ["//snapshotter:main.go"],
)

go_binary(
    name = "dockerd",
    mod = "//dockerd:go.mod",
    module = "github.com/moby/moby/v2",
    version = "v2.0.0-beta.24",
    package = "cmd/dockerd",
)

go_binary(
    name = "box",
    mod = "//box:go.mod",
    srcs = ["//box:main.go"],
)

# rootlesskit sets up its network with it. It is u-root's, since a distribution's is linked against its machine's libraries.
go_binary(
    name = "ip",
    mod = "//ip:go.mod",
    module = "github.com/u-root/u-root",
    version = "v0.16.0",
    package = "cmds/core/ip",
)

# fuse-overlayfs also needs a mount helper, and the daemon by which containerd uses it as a snapshotter.
go_binary(
    name = "mount.fuse3",
    mod = "//mount.fuse3:go.mod",
    srcs = ["//mount.fuse3:main.go"],
)

go_binary(
    name = "containerd-fuse-overlayfs-grpc",
    mod = "//fuse-overlayfs-snapshotter:go.mod",
    module = "github.com/containerd/fuse-overlayfs-snapshotter/v2",
    version = "v2.1.7",
    package = "cmd/containerd-fuse-overlayfs-grpc",
)
