"""The package //targets/tools/silo: silo and mc, which BuildKit's own suite starts, as versitygw answers. By name only."""

from bkrules import go_binary

[go_binary(name = name, mod = ":go.mod", srcs = ["main.go"], tags = ["manual"]) for name in ["mc", "silo"]]
