"""The package //targets/tools/buildkit-tests: BuildKit's own tests, and the mirror that they want. By name only."""

from bkrules import debian_package, go_binary, go_test, image, image_archive, image_mirror, load, test_matrix, worker

load("//targets/tools/debian:packages.py", DEBIAN = "PACKAGES")

PACKAGES = {
    "buildctl": "cmd/buildctl",
    "client": "client",
    "dockerfile": "frontend/dockerfile",
    "frontend": "frontend",
    "solver": "solver",
    "worker_containerd": "worker/containerd",
}

[
    go_binary(
        name = name + "_test",
        mod = ":go.mod",
        module = "github.com/moby/buildkit",
        version = "v0.34.2",
        package = package,
        test = True,
        tags = ["manual"],
    )
    for name, package in PACKAGES.items()
]

# All that a package names must be there before its first test, whichever that is. Three are just there: a test of each fails
# without the original, which has a foreign layer at a URL of the internet, or digests that the test knows.
image_mirror(
    name = "mirror",
    images = {
        "docker.io/amd64/debian:bullseye-20230109-slim": "//targets/images:busybox",
        "docker.io/cpuguy83/buildkit-foreign:latest": "//targets/images:busybox",
        "docker.io/library/alpine:latest": "//targets/images:alpine",
        "docker.io/library/busybox:latest": "//targets/images:busybox",
        "docker.io/library/busybox_amd64:latest": "//targets/images:busybox",
        "docker.io/library/busybox:stable-musl": "//targets/images:busybox",
        "docker.io/tonistiigi/hellofs:latest": "//targets/images:hellofs",
        "docker.io/tonistiigi/test:nolayers": "//targets/images:nolayers",
    },
    tags = ["manual"],
)

REGISTRY = "//targets/tools/registry-2.8:registry"

WORKERS = {
    "oci": {"plugin": "oci"},
    "oci_stargz": {"plugin": "oci", "snapshotter": "stargz"},
    "containerd": {"plugin": "containerd"},
    "containerd_stargz": {"plugin": "containerd+stargz"},
    "rootless": {"plugin": "rootless"},
    "rootless_gvisor": {"plugin": "rootless", "net": "gvisor-tap-vsock", "detach_netns": True},
}

[
    worker(name = name, tools = {"registry": REGISTRY}, tags = ["manual"], **settings)
    for name, settings in WORKERS.items()
]

# The program has its command from the name by which it is called, and no file of its package has this one.
[
    debian_package(
        name = name,
        package = "iptables",
        version = DEBIAN["iptables"][0],
        sha256 = {"linux-x86_64": DEBIAN["iptables"][1]},
        files = ["usr/sbin/xtables-legacy-multi"],
        tags = ["manual"],
    )
    for name in ["ip6tables", "iptables"]
]

TOOLS = [
    ":ip6tables",
    ":iptables",
    "//targets/tools/cni-dnsname:buildkit-cni-dnsname",
    "//targets/tools/cni:buildkit-cni-bridge",
    "//targets/tools/cni:buildkit-cni-firewall",
    "//targets/tools/cni:buildkit-cni-host-local",
    "//targets/tools/cni:buildkit-cni-loopback",
    "//targets/tools/silo:mc",
    "//targets/tools/silo:silo",
    "//targets/tools/versitygw:versitygw",
]

HARNESS = {
    "oci": "oci",
    "oci+stargz": "oci-snapshotter-stargz",
    "containerd": "containerd",
    "containerd+stargz": "containerd-snapshotter-stargz",
    "rootless": "oci-rootless",
    "rootless-gvisor-tap-vsock-detachnetns": "oci-rootless-gvisor-tap-vsock-detachnetns",
}

# As BuildKit's CI sets it: a bridge is the network of RUN steps, and tests of networks run.
NETWORKS = {"BUILDKIT_RUN_NETWORK_INTEGRATION_TESTS": "1"}

# BuildKit's own suite, unmodified, a cell for each leaf: client_matrix, dockerfile_matrix, ...
[
    go_test(
        name = name,
        binary = ":" + name + "_test",
        subtests = ["*Integration*"],
        tools = [REGISTRY] if name == "worker_containerd" else [],  # its TestMain starts one
        env = NETWORKS,
        harness = HARNESS,
        tags = ["manual"],
    )
    for name in PACKAGES
]

# The tests of the Dockerfile frontend once more, on the frontend as an image.
go_binary(
    name = "dockerfile-frontend",
    mod = ":go.mod",
    module = "github.com/moby/buildkit",
    version = "v0.34.2",
    package = "frontend/dockerfile/cmd/dockerfile-frontend",
    tags = ["manual"],
)
image(
    name = "frontend_image",
    files = {"bin/dockerfile-frontend": ":dockerfile-frontend"},
    entrypoint = ["/bin/dockerfile-frontend"],
    labels = {
        "moby.buildkit.frontend.caps": ",".join(
            "moby.buildkit.frontend." + name
            for name in ["inputs", "subrequests", "contexts", "gitquerystring", "contexts.zstd"]
        ),
        "moby.buildkit.frontend.network.none": "true",
    },
    tags = ["manual"],
)
image_archive(name = "frontend_archive", image = ":frontend_image", tags = ["manual"])
go_test(
    name = "dockerfile_gateway",
    binary = ":dockerfile_test",
    subtests = ["*Integration*"],
    env = NETWORKS | {"FRONTEND_GATEWAY_ONLY": "local:/src/targets/tools/buildkit-tests/frontend_archive.tar"},
    data = [":frontend_archive"],
    harness = HARNESS,
    tags = ["manual"],
)

# The tests of signatures, with keys.
SIGNED = [
    "TestIntegration/TestBuildHTTPSourcePGPSignatureVerify",
    "TestIntegration/TestSourcePolicySessionHTTPChecksumAssist",
    "TestIntegration/TestSourcePolicySignedCommit",
]
go_test(
    name = "client_signed",
    binary = ":client_test",
    subtests = ["*Integration*"],
    env = NETWORKS | {"BUILDKIT_TEST_SIGN_FIXTURES": "/src/targets/tools/sign-fixtures"},
    data = ["//targets/tools/sign-fixtures:fixtures"],
    harness = HARNESS,
    tags = ["manual"],
)

# Tests that look for all capabilities have them in a jail alone, where these hold over the jail's own namespaces. Rootless workers
# have a user namespace anyway.
ROOTFUL = [name for name in WORKERS if not name.startswith("rootless")]


def rootful(**entry):
    return [{"worker": name.replace("_", "+")} | entry for name in ROOTFUL]


INSECURE = {"security.insecure": "granted"}
ALL_CAPABILITIES = {
    "client": [
        entry
        for test in [
            "TestClientGatewayIntegration/TestClientGatewayContainerSecurityModeCaps",
            "TestIntegration/TestSecurityMode",
        ]
        for entry in rootful(test = test, secmode = "insecure")
    ],
    "dockerfile": rootful(test = "TestIntegration/TestRunSecurityInsecure", **INSECURE),
    "dockerfile_gateway": rootful(test = "TestIntegration/TestRunSecurityInsecure", **INSECURE),
}


def matrix(name, package, workers, tools = (), **settings):
    test_matrix(
        name = name,
        tests = [":" + package],
        workers = [":" + worker for worker in workers],
        mirror = ":mirror",
        tools = [*TOOLS, *tools],
        packages = ["//targets/tools/debian:" + package for package in DEBIAN],
        size = "large",
        tags = ["manual"],
        **settings,
    )


[
    matrix(
        name + "_matrix",
        name,
        WORKERS if name != "worker_containerd" else ["containerd"],
        exclude = ALL_CAPABILITIES.get(name, []) + [{"test": test} for test in SIGNED if name == "client"],
    )
    for name in [*PACKAGES, "dockerfile_gateway"]
]

[
    matrix(
        name + "_jail_matrix",
        name,
        ROOTFUL,
        isolation = "jail",
        exclude = [{"test": "*"}],
        include = cells,
    )
    for name, cells in ALL_CAPABILITIES.items()
]

matrix(
    "client_signed_matrix",
    "client_signed",
    WORKERS,
    tools = ["//targets/tools/sign-fixtures:git-gpg-sign", "//targets/tools/sign-fixtures:git-ssh-sign"],
    exclude = [{"test": "*"}],
    include = [{"test": test} for test in SIGNED],
)
