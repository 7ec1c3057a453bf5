"""The package //tests/bench: BuildKit's own harness, as a command. The matrix that it races is made by bk_side.py."""

from bkrules import go_binary

go_binary(
    name = "go_harness",
    srcs = ["//tests/bench/go_harness:main.go"],
    mod = "//tests/bench/go_harness:go.mod",
)
