"""The package //tests/bench: BuildKit's own harness, as a command. The matrix that it races is made by bk_side.py."""

from bkrules import go_binary

go_binary(
    name = "go_harness",
    mod = "//tests/bench/go_harness:go.mod",
    srcs = ["//tests/bench/go_harness:main.go"],
)

# What mirror.py races; by name only, since nothing else needs it.
go_binary(
    name = "crane",
    mod = "//tests/bench/crane:go.mod",
    module = "github.com/google/go-containerregistry",
    version = "v0.22.1",
    package = "cmd/crane",
    tags = ["manual"],
)
