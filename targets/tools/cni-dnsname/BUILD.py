"""The package //targets/tools/cni-dnsname: the CNI plugin by which containers find each other by name. By name only."""

from bkrules import go_binary

go_binary(
    name = "buildkit-cni-dnsname",
    mod = ":go.mod",
    module = "github.com/containers/dnsname",
    version = "v1.3.1",
    package = "plugins/meta/dnsname",
    tags = ["manual"],
)
