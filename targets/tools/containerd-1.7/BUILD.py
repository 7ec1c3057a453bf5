"""The package //targets/tools/containerd-1.7: the long-term release of containerd, in addition to the current one."""

from bkrules import go_binary

[
    go_binary(
        name = command,
        module = "github.com/containerd/containerd",
        version = "v1.7.35",
        package = "cmd/" + command,
        mod = ":go.mod",
        ldflags = ["-X", "github.com/containerd/containerd/version.Version=v1.7.35"],
    )
    for command in ["containerd", "containerd-shim-runc-v2", "ctr"]
]
