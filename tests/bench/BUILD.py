"""The package //tests/bench: BuildKit's own harness, as a command. The matrix that it races is made by bk_side.py."""

from bkrules import go_binary

go_binary(
    name = "go_harness",
    srcs = ["//tests/bench/go_harness:main.go"],
    mod = "//tests/bench/go_harness:go.mod",
)

# What mirror.py races; by name only, since nothing else needs it.
go_binary(
    name = "crane",
    module = "github.com/google/go-containerregistry",
    version = "v0.22.1",
    package = "cmd/crane",
    mod = "//tests/bench/crane:go.mod",
    tags = ["manual"],
)
