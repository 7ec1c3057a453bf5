"""The package //targets/tools/versitygw: an S3 server on a folder, for builds whose cache is in a bucket."""

from bkrules import go_binary

go_binary(
    name = "versitygw",
    mod = ":go.mod",
    module = "github.com/versity/versitygw",
    version = "v1.8.0",
    package = "cmd/versitygw",
)
