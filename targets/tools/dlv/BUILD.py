"""The package //targets/tools/dlv: Delve, the debugger of Go, for a shell in a cell."""

from bkrules import go_binary

go_binary(
    name = "dlv",
    mod = ":go.mod",
    module = "github.com/go-delve/delve",
    version = "v1.27.2",
    package = "cmd/dlv",
)
