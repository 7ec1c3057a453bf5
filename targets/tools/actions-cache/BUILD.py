"""The package //targets/tools/actions-cache: the cache service of GitHub Actions, for builds whose cache is there."""

from bkrules import go_binary

go_binary(
    name = "actions-cache",
    mod = ":go.mod",
    srcs = ["main.go"],
)
