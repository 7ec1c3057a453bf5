"""The package //targets/tools/cni: the plugins of CNI networks, by the names that BuildKit's images give them."""

from bkrules import go_binary

[
    go_binary(
        name = "buildkit-cni-" + plugin,
        mod = ":go.mod",
        module = "github.com/containernetworking/plugins",
        version = "v1.9.1",
        package = "plugins/" + kind + "/" + plugin,
    )
    for kind, plugin in [("main", "bridge"), ("main", "loopback"), ("ipam", "host-local"), ("meta", "firewall")]
]
