"""The package //targets/tools/buildkit-0.17: an old release of buildkitd, for the tests of today."""

from bkrules import go_binary

go_binary(
    name = "buildkitd",
    module = "github.com/moby/buildkit",
    version = "v0.17.3",
    package = "cmd/buildkitd",
    mod = ":go.mod",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version=v0.17.3"],
)
