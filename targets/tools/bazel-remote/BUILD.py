"""The package //targets/tools/bazel-remote: a remote cache, for the tests of bk's client. No other target needs it."""

from bkrules import go_binary

go_binary(
    name = "bazel-remote",
    mod = ":go.mod",
    module = "github.com/buchgr/bazel-remote/v2",
    version = "v2.6.1",
)
