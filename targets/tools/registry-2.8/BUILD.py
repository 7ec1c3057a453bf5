"""The package //targets/tools/registry-2.8: the registry of the release that BuildKit's own suite pins. By name only."""

from bkrules import go_binary

# v3 answers `blob unknown` to one of its tests.
go_binary(name = "registry", mod = ":go.mod", srcs = ["main.go"], tags = ["manual"])
