"""The package //targets/tools/clients: older releases of buildctl, for tests of old clients with new daemons."""

from bkrules import go_releases

go_releases(
    name = "buildctl",
    module = "github.com/moby/buildkit",
    versions = ["v0.31.0"],
    package = "cmd/buildctl",
    ldflags = ["-X", "github.com/moby/buildkit/version.Version={version}"],
)
