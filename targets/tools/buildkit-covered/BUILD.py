"""The package //targets/tools/buildkit-covered: a buildkitd that counts what of BuildKit's module runs. By name only."""

from bkrules import go_binary

go_binary(
    name = "buildkitd",
    mod = "@bk_tools//buildkit:go.mod",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "cmd/buildkitd",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version=v0.34.2"],
    coverpkg = ["github.com/moby/buildkit/..."],
    tags = ["manual"],
)
