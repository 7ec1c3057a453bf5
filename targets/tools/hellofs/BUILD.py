"""The package //targets/tools/hellofs: a file system in FUSE that says hello. By name only: a test of BuildKit mounts it."""

from bkrules import go_binary

go_binary(
    name = "hellofs",
    mod = ":go.mod",
    module = "bazil.org/fuse",
    version = "v0.0.0-20230120002735-62a210ff1fd5",
    package = "examples/hellofs",
    tags = ["manual"],
)
