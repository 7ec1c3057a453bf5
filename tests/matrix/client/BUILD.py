"""The package //tests/matrix/client: behaviours of BuildKit as a client sees them, each on every worker."""

from bkrules import glob, go_binary, test_matrix

# Those of BuildKit's own harness, but for dockerd.
WORKERS = [
    "//targets:oci",
    "//targets:oci_stargz",
    "//targets:containerd",
    "//targets:containerd_stargz",
    "//targets:containerd_rootless",
    "//targets:rootless",
    "//targets:rootless_gvisor",
]

test_matrix(
    name = "client_matrix",
    tests = glob(["test_*.py"], exclude = ["test_gha.py", "test_lazy*.py", "test_registries.py", "test_s3.py"]),
    workers = [*WORKERS, "//targets:dockerd", "//targets:dockerd_graphdriver"],
    mirror = "//targets:mirror",
)

# Build caches in a bucket, and in the service of GitHub Actions. Apart from the others, which need not wait until these
# servers are compiled.
test_matrix(
    name = "s3_matrix",
    tests = ["test_s3.py"],
    workers = WORKERS,
    mirror = "//targets:mirror",
    tools = ["//targets/tools/versitygw:versitygw"],
)

test_matrix(
    name = "gha_matrix",
    tests = ["test_gha.py"],
    workers = [*WORKERS, "//targets:dockerd"],
    mirror = "//targets:mirror",
    tools = ["//targets/tools/actions-cache:actions-cache"],
)

go_binary(
    name = "xattrs",
    mod = "xattrs/go.mod",
    srcs = ["xattrs/main.go"],
)

LAZY_WORKERS = [
    "//targets:" + name for name in ["oci_stargz", "oci_stargz_proxy", "containerd_stargz", "rootless_stargz"]
]

# Each way to pull lazily, and two workers that do not.
test_matrix(
    name = "lazy_matrix",
    tests = glob(["test_lazy*.py"]),
    workers = ["//targets:oci", "//targets:containerd", *LAZY_WORKERS],
    mirror = "//targets:mirror",
    axes = {"compression": {"gzip": "latest", "estargz": "esgz"}},
    # these make their own images, of both kinds, or need no control
    exclude = [
        {"test": "test_extended_*", "compression": "gzip"},
        {"test": "test_a_private_*", "compression": "gzip"},
        {"test": "test_an_export_brings*docker*", "compression": "gzip"},
        {"test": "test_a_cached_step*registry*", "compression": "gzip"},
        {"test": "test_a_cached_step*inline*", "compression": "gzip"},
        {"test": "test_the_tree_*", "compression": "gzip"},
        {"test": "test_layers_made_*", "compression": "gzip"},
        {"test": "test_another_table_*", "compression": "gzip"},
        # these are about mounts: of whatever serves them, and of the snapshotter daemon
        {"test": "test_what_a_snapshotter_*", "compression": "gzip"},
        {"test": "test_what_a_snapshotter_*", "worker": "oci"},
        {"test": "test_what_a_snapshotter_*", "worker": "containerd"},
        {"test": "test_a_snapshotter_that_*"},
    ],
    include = [
        {"test": "test_a_snapshotter_that_*", "worker": worker, "compression": "estargz"}
        for worker in ["oci+stargz-proxy", "containerd+stargz"]
    ],
    tools = [":xattrs"],
)

# Where images are pulled from.
test_matrix(
    name = "registries_matrix",
    tests = ["test_registries.py"],
    workers = ["//targets:oci", *LAZY_WORKERS],
    mirror = "//targets:mirror",
    axes = {
        "registry": {
            name: {"updater": name}
            for name in ["dead_mirror_first", "dead_mirror_alone", "insecure", "insecure_for_buildkitd"]
        },
    },
    updaters = ["registry_configuration.py"],
)
